"""Trains the miniature model's UNet and text encoder and writes the diffusers folder.

    python -m experiments.mini.train_diffusion --threads 1
    python -m experiments.mini.train_diffusion --export        # from the last checkpoint, no training

Needs the autoencoder of train_autoencoder.py. Every picture and its mirror image are encoded once;
training then runs on latents alone. A second call continues from the last checkpoint, with a longer
`--steps` if so wished. Once it is done the text encoder is frozen like the rest.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from experiments.common.command_line import one_line_errors
from experiments.mini.diffusion_data import DiffusionData, encoder_hash, load_data, load_vae
from experiments.mini.diffusion_model import (
    TRAIN_TIMESTEPS,
    DiffusionSettings,
    attention_kernel,
    build_models,
    build_pipeline,
    build_scheduler,
    export,
    write_samples,
)
from experiments.mini.tokenizer import load_tokenizer
from experiments.mini.training import (
    MovingAverage,
    Training,
    add_machine,
    add_settings,
    descend,
    learning_rate,
    load_checkpoint,
    print_steps_that_fit,
    say,
    step_generator,
    take_options,
    train_steps,
)
from syncdiffusion.errors import UsageError

if TYPE_CHECKING:
    from transformers import CLIPTokenizer


def draw_batch(
    data: DiffusionData, settings: DiffusionSettings, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A random batch: latents [b, 4, h, w], tokens [b, MAX_TOKENS], timesteps [b], noise as latents."""
    count, captions = data.tokens.shape[:2]
    rows = torch.randint(count, (settings.batch,), generator=generator)
    mirror = torch.randint(2, (settings.batch,), generator=generator)
    choice = torch.randint(captions, (settings.batch,), generator=generator)
    drop = torch.rand(settings.batch, generator=generator) < settings.caption_dropout
    # One timestep from each of `batch` equal slices: every batch covers the schedule evenly, which
    # makes the gradient less noisy than independent draws would.
    place = torch.arange(settings.batch) + torch.rand(settings.batch, generator=generator)
    timesteps = (place * (TRAIN_TIMESTEPS / settings.batch)).long().clamp_(max=TRAIN_TIMESTEPS - 1)
    latents = data.latents[rows, mirror].float()
    tokens = torch.where(drop[:, None], data.empty, data.tokens[rows, choice].long())
    return latents, tokens, timesteps, torch.randn(latents.shape, generator=generator)


def loss_weights(alphas_cumprod: Tensor, gamma: float) -> Tensor:
    """Weight of the squared noise error by timestep: min(SNR, gamma) / SNR (Min-SNR, arXiv 2303.09556, eq. 4)."""
    snr = alphas_cumprod / (1.0 - alphas_cumprod)
    return snr.clamp(max=gamma) / snr if gamma else torch.ones_like(snr)


def diffusion_loss(
    models: nn.ModuleDict, batch: tuple[Tensor, Tensor, Tensor, Tensor], alphas_cumprod: Tensor, gamma: float
) -> tuple[Tensor, Tensor]:
    """Weighted and plain mean squared error of the predicted noise, of a batch as `draw_batch` gives it."""
    latents, tokens, timesteps, noise = batch
    alpha = alphas_cumprod[timesteps][:, None, None, None]
    noisy = alpha.sqrt() * latents + (1.0 - alpha).sqrt() * noise
    text = models["text_encoder"](tokens).last_hidden_state
    predicted = models["unet"](noisy, timesteps, text).sample
    error = (predicted.float() - noise).square().mean((1, 2, 3))
    return (loss_weights(alphas_cumprod, gamma)[timesteps] * error).mean(), error.mean()


def start(
    settings: DiffusionSettings, vocabulary: int, size: int, device: torch.device
) -> tuple[nn.ModuleDict, torch.optim.Optimizer]:
    models = build_models(settings, vocabulary, size).to(device).train()
    return models, torch.optim.AdamW(models.parameters(), lr=settings.peak_rate, weight_decay=0.01, fused=True)


def train_step(
    models: nn.ModuleDict,
    optimiser: torch.optim.Optimizer,
    step: int,
    steps: int,
    data: DiffusionData,
    settings: DiffusionSettings,
) -> dict[str, float]:
    """Step number `step` (from 0) of `steps`, wholly determined by these, the data and the weights."""
    device = next(models.parameters()).device
    batch = draw_batch(data, settings, step_generator(settings.seed, step))
    latents, tokens, timesteps, noise = (part.to(device) for part in batch)
    alphas = build_scheduler().alphas_cumprod.to(device)
    with attention_kernel(device), torch.autocast(device.type, torch.bfloat16, enabled=settings.bfloat16):
        loss, plain = diffusion_loss(models, (latents, tokens, timesteps, noise), alphas, settings.snr_gamma)
    descend(optimiser, loss, learning_rate(step, steps, settings.peak_rate, settings.warmup))
    return {"loss": loss.item(), "mse": plain.item()}


def train(
    settings: DiffusionSettings,
    steps: int,
    work: Path,
    device: torch.device,
    data: DiffusionData,
    vae_folder: Path,
    tokenizer: CLIPTokenizer,
    checkpoint_minutes: float = 5.0,
    sample_minutes: float = 10.0,
    stop_after: int | None = None,
) -> nn.ModuleDict:
    """Trains from the last checkpoint in `work/diffusion` to `steps`; returns the averaged models.

    Args:
        data: as `load_data` gives it; a checkpoint made with other data is refused.
        stop_after: leaves after this many steps of this call, with a checkpoint and no sample sheet.
    """
    folder, size = work / "diffusion", data.latents.shape[-1]
    models, optimiser = start(settings, len(tokenizer), size, device)
    average = MovingAverage(models, settings.average_decay)
    identity = {**asdict(settings), "data": data.identity, "encoder": data.encoder}
    training = Training("diffusion", folder / "checkpoint.pt", identity, models, optimiser, average, {"size": size})

    def averaged() -> nn.ModuleDict:
        return average.copy_to(build_models(settings, len(tokenizer), size)).to(device)

    take = partial(train_step, models, optimiser, steps=steps, data=data, settings=settings)
    sampled = time.monotonic()
    for step, _ in train_steps(training, take, steps, checkpoint_minutes, stop_after):
        if step == steps or time.monotonic() - sampled > 60 * sample_minutes:
            # Opened anew: the decoder may have been trained further in the meantime.
            vae = load_vae(vae_folder, device)
            write_samples(build_pipeline(averaged(), vae, tokenizer), folder / f"samples-{step:06d}.png")
            say("diffusion", f"wrote samples-{step:06d}.png")
            sampled = time.monotonic()
    return averaged()


def load_averaged(settings: DiffusionSettings, work: Path, vae: nn.Module, vocabulary: int) -> nn.ModuleDict:
    """The averaged models of the last checkpoint.

    Raises:
        UsageError: there is none, or it was made with other settings.
    """
    path = work / "diffusion" / "checkpoint.pt"
    # Latents of another encoder would decode to garbage.
    state = load_checkpoint(path, {**asdict(settings), "encoder": encoder_hash(vae)})
    if state is None:
        raise UsageError(f"work={work}: no checkpoint {path}; train first, without --export")
    models = build_models(settings, vocabulary, state["size"])
    average = MovingAverage(models)
    average.load_state_dict(state["average"])
    return average.copy_to(models)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the miniature model's UNet and text encoder.")
    parser.add_argument("--steps", type=int, default=3300, help="may be raised when a training is continued")
    names = ("batch", "peak_rate", "snr_gamma", "seed", "bfloat16")
    add_settings(parser, DiffusionSettings, *names, snr_gamma="0: the plain loss")
    parser.add_argument("--pictures", type=int, default=16000, help="training scenes")
    parser.add_argument("--work", type=Path, default=Path("runs/mini-training"))
    parser.add_argument("--vae", type=Path, help="trained autoencoder (default: WORK/vae)")
    parser.add_argument("--out", type=Path, default=Path("syncdiffusion/weights/mini"))
    add_machine(parser, checkpoint_minutes=5.0)
    parser.add_argument("--sample-minutes", type=float, default=10.0)
    parser.add_argument("--export", action="store_true", help="write the folder from the last checkpoint, and stop")
    parser.add_argument("--measure", type=float, metavar="MINUTES", help="print the steps that fit, and stop")
    return parser.parse_args(arguments)


@one_line_errors(exits=True)
def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    device, settings = take_options(options, DiffusionSettings)
    if options.steps < 1 or options.batch < 1:
        raise UsageError(f"steps={options.steps}, batch={options.batch}: use 1 or more")
    vae_folder = options.vae or options.work / "vae"
    vae, tokenizer_folder = load_vae(vae_folder, device), options.work / "tokenizer"
    if options.export:
        if not (tokenizer_folder / "vocab.json").is_file():
            raise UsageError(f"work={options.work}: no tokenizer in it; train first, without --export")
        vocabulary = len(load_tokenizer(tokenizer_folder))
        models = load_averaged(settings, options.work, vae, vocabulary).to(device)
    else:
        data = load_data(options.work, vae, options.pictures, settings.seed, device, settings.bfloat16)
        tokenizer = load_tokenizer(tokenizer_folder)
        if options.measure:
            models, optimiser = start(settings, len(tokenizer), data.latents.shape[-1], device)
            take = partial(train_step, models, optimiser, steps=1000, data=data, settings=settings)
            print_steps_that_fit(options.measure, take)
            return
        minutes = (options.checkpoint_minutes, options.sample_minutes)
        models = train(settings, options.steps, options.work, device, data, vae_folder, tokenizer, *minutes)
    vae = load_vae(vae_folder, device)
    export(build_pipeline(models, vae, load_tokenizer(tokenizer_folder)), tokenizer_folder, options.out)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
