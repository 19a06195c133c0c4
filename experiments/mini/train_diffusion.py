"""Trains the miniature model's UNet and text encoder and writes the diffusers folder.

    python -m experiments.mini.train_diffusion --threads 1
    python -m experiments.mini.train_diffusion --export        # from the last checkpoint, no training

Needs the autoencoder of train_autoencoder.py. Every picture is encoded once; training then runs on windows of the
latents alone, cut anywhere from pictures twice as wide. A second call continues from the last checkpoint, with a
longer `--steps` and other scenes (`--first`) if so wished.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from experiments.common.command_line import one_line_errors
from experiments.common.progress import say_step
from experiments.mini.diffusion_data import DiffusionData, load_data, load_vae
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
from experiments.mini.optimisers import Muon, split_parameters
from experiments.mini.tokenizer import load_tokenizer
from experiments.mini.training import (
    MovingAverage,
    Training,
    add_machine,
    add_settings,
    descend,
    draw_lefts,
    lasting,
    learning_rate,
    load_checkpoint,
    print_steps_that_fit,
    step_generator,
    take_options,
    train_steps,
)
from syncdiffusion.errors import UsageError
from syncdiffusion.joint.noise import noised

if TYPE_CHECKING:
    from transformers import CLIPTokenizer


# A training may go on in other batches, at another rate or precision and with another weight of faint noise.
CHANGEABLE = ("batch", "peak_rate", "snr_gamma", "bfloat16")


def draw_batch(
    data: DiffusionData, settings: DiffusionSettings, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A random batch: latents [b, c, h, h], tokens [b, MAX_TOKENS], timesteps [b], noise as latents."""
    return draw_at(data, settings, generator, *draw_places(data, settings.batch, generator))


def draw_places(data: DiffusionData, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Scenes, and the left edges of windows in them, in cells: [b] each."""
    rows = torch.randint(len(data.tokens), (batch,), generator=generator)
    return rows, draw_lefts(data.edges[rows], generator)


def draw_at(
    data: DiffusionData, settings: Any, generator: torch.Generator, rows: Tensor, lefts: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The batch of these windows, see `draw_batch`; settings: DiffusionSettings, or others that draw captions so."""
    shares = torch.tensor(settings.caption_shares)
    choice = torch.multinomial(shares, settings.batch, replacement=True, generator=generator)
    drop = torch.rand(settings.batch, generator=generator) < settings.caption_dropout
    timesteps = spread_timesteps(settings.batch, TRAIN_TIMESTEPS, generator)
    latents = data.windows(rows, lefts)
    tokens = torch.where(drop[:, None], data.empty, data.tokens[rows, choice].long())
    return latents, tokens, timesteps, torch.randn(latents.shape, generator=generator)


def spread_timesteps(batch: int, count: int, generator: torch.Generator) -> Tensor:
    """[b] of `count` timesteps, one from each of `batch` equal slices.

    Every batch covers the schedule evenly, which makes the gradient less noisy than independent draws would.
    """
    place = torch.arange(batch) + torch.rand(batch, generator=generator)
    return (place * (count / batch)).long().clamp_(max=count - 1)


def loss_weights(alphas_cumprod: Tensor, gamma: float) -> Tensor:
    """Weight of the squared noise error by timestep: min(SNR, gamma) / SNR (Min-SNR, arXiv 2303.09556, eq. 4)."""
    snr = alphas_cumprod / (1.0 - alphas_cumprod)
    return snr.clamp(max=gamma) / snr if gamma else torch.ones_like(snr)


def diffusion_loss(
    models: nn.ModuleDict, batch: tuple[Tensor, Tensor, Tensor, Tensor], alphas_cumprod: Tensor, gamma: float
) -> tuple[Tensor, Tensor]:
    """Weighted and plain mean squared error of the predicted noise, of a batch as `draw_batch` gives it."""
    latents, tokens, timesteps, noise = batch
    noisy = noised(latents, noise, alphas_cumprod[timesteps][:, None, None, None])
    text = models["text_encoder"](tokens).last_hidden_state
    predicted = models["unet"](noisy, timesteps, text).sample
    return weighted_and_plain(predicted, noise, loss_weights(alphas_cumprod, gamma)[timesteps])


def weighted_and_plain(predicted: Tensor, noise: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Means of the squared errors of predictions [b, c, h, w], weighted by row [b], and not."""
    error = (predicted.float() - noise).square().mean((1, 2, 3))
    return (weights * error).mean(), error.mean()


def start(
    settings: DiffusionSettings, vocabulary: int, size: int, device: torch.device
) -> tuple[nn.ModuleDict, torch.optim.Optimizer]:
    models = build_models(settings, vocabulary, size).to(device, memory_format=torch.channels_last).train()
    return models, Muon(split_parameters(models, settings.peak_rate, settings.weight_decay))


def train_step(
    models: nn.ModuleDict,
    optimiser: torch.optim.Optimizer,
    step: int,
    schedule: tuple[int, int],
    data: DiffusionData,
    settings: DiffusionSettings,
) -> dict[str, float]:
    """Step number `step` (from 0), wholly determined by the arguments and the weights.

    Args:
        schedule: length of the training and of its cooldown, in steps.
    """
    device = next(models.parameters()).device
    batch = draw_batch(data, settings, step_generator(settings.seed, step))
    latents, tokens, timesteps, noise = (part.to(device) for part in batch)
    latents = latents.contiguous(memory_format=torch.channels_last)
    alphas = build_scheduler().alphas_cumprod.to(device)
    with attention_kernel(device), torch.autocast(device.type, torch.bfloat16, enabled=settings.bfloat16):
        loss, plain = diffusion_loss(models, (latents, tokens, timesteps, noise), alphas, settings.snr_gamma)
    descend(optimiser, loss, learning_rate(step, schedule[0], settings.peak_rate, settings.warmup, schedule[1]))
    return {"loss": loss.item(), "mse": plain.item()}


@dataclass(frozen=True)
class Places:
    """Where a training takes its parts from, and leaves what it makes.

    work: folder of the trainings; checkpoint and sample sheets go to `work/diffusion`.
    vae: folder of the autoencoder.
    weights: an exported model whose UNet and text encoder the training begins with, where there is no checkpoint.
    """

    work: Path
    vae: Path
    weights: Path | None = None

    @property
    def folder(self) -> Path:
        return self.work / "diffusion"


def identity_of(settings: DiffusionSettings, data: DiffusionData) -> dict[str, Any]:
    """What a checkpoint must have been made with, to be gone on with."""
    return {**lasting(settings, CHANGEABLE), "encoder": data.encoder}


def train(
    settings: DiffusionSettings,
    steps: int,
    cooldown: int,
    places: Places,
    device: torch.device,
    data: DiffusionData,
    tokenizer: CLIPTokenizer,
    checkpoint_minutes: float = 5.0,
    sample_minutes: float = 15.0,
    stop_after: int | None = None,
) -> nn.ModuleDict:
    """Trains from the last checkpoint in `places.folder` to `steps`; returns the models of the first average.

    Args:
        cooldown: number of steps at the end over which the learning rate falls.
        data: as `load_data` gives it. A stretch of the training may have other scenes than the one before it, of the
            same encoder: a checkpoint made with another is refused.
        stop_after: leaves after this many steps of this call, with a checkpoint and no sample sheet.
    """
    size = data.latents[0].shape[-2]
    models, optimiser = start(settings, len(tokenizer), size, device)
    if places.weights is not None and not (places.folder / "checkpoint.pt").exists():
        load_weights(models, places.weights)
    average = MovingAverage(models, *settings.averages)
    identity = identity_of(settings, data)
    checkpoint = places.folder / "checkpoint.pt"
    training = Training("diffusion", checkpoint, identity, models, optimiser, average, {"size": size})

    def averaged() -> nn.ModuleDict:
        return average.copy_to(build_models(settings, len(tokenizer), size)).to(device)

    take = partial(train_step, models, optimiser, schedule=(steps, cooldown), data=data, settings=settings)
    sampled = time.monotonic()
    for step, _ in train_steps(training, take, steps, checkpoint_minutes, stop_after):
        if step == steps or time.monotonic() - sampled > 60 * sample_minutes:
            # Opened anew: the decoder may have been trained further in the meantime.
            vae = load_vae(places.vae, device)
            write_samples(build_pipeline(averaged(), vae, tokenizer), places.folder / f"samples-{step:06d}.png")
            say_step("diffusion", f"wrote samples-{step:06d}.png")
            sampled = time.monotonic()
    return averaged()


def load_weights(models: nn.ModuleDict, folder: Path) -> None:
    """The weights of an exported model of the same architecture.

    Raises:
        UsageError: there is no model in the folder, or it is of another architecture.
    """
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextModel

    if not (folder / "model_index.json").is_file():
        raise UsageError(f"init_from={folder}: no model_index.json there")
    found = {
        "unet": UNet2DConditionModel.from_pretrained(folder / "unet", dtype=torch.float32),
        "text_encoder": CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32),
    }
    for name, model in found.items():
        try:
            models[name].load_state_dict(model.state_dict())
        except RuntimeError as error:
            raise UsageError(f"init_from={folder}: its {name} has another architecture") from error


@torch.no_grad()
def heldout_loss(models: nn.ModuleDict, data: DiffusionData, settings: DiffusionSettings, batches: int = 8) -> float:
    """Mean loss on batches that are the same at every call, of held-out data."""
    device, alphas = next(models.parameters()).device, build_scheduler().alphas_cumprod
    total = 0.0
    for number in range(batches):
        batch = draw_batch(data, settings, step_generator(settings.seed + 1, number))
        latents, tokens, timesteps, noise = (part.to(device) for part in batch)
        loss, _ = diffusion_loss(models, (latents, tokens, timesteps, noise), alphas.to(device), settings.snr_gamma)
        total += loss.item()
    return total / batches


def best_average(settings: DiffusionSettings, places: Places, vocabulary: int, data: DiffusionData) -> nn.ModuleDict:
    """The averaged models of the last checkpoint, of the length with the smallest loss on held-out data.

    Raises:
        UsageError: there is none, or it was made with other settings or another encoder.
    """
    path = places.folder / "checkpoint.pt"
    # Latents of another encoder would decode to garbage.
    state = load_checkpoint(path, identity_of(settings, data))
    if state is None:
        raise UsageError(f"work={places.work}: no checkpoint {path}; train first, without --export")
    found = []
    for which, decay in enumerate(settings.averages):
        models = build_models(settings, vocabulary, state["size"]).eval()
        average = MovingAverage(models, *settings.averages)
        average.load_state_dict(state["average"])
        loss = heldout_loss(average.copy_to(models, which), data, settings)
        say_step("diffusion", f"step {state['step']}, average of decay {decay:g}: held-out loss {loss:.4f}")
        found.append((loss, models))
    return min(found, key=lambda pair: pair[0])[1]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the miniature model's UNet and text encoder.")
    parser.add_argument("--steps", type=int, default=3300, help="may be raised when a training is continued")
    parser.add_argument("--cooldown", type=int, default=600, help="steps at the end over which the rate falls")
    names = ("batch", "peak_rate", "snr_gamma", "seed", "bfloat16")
    add_settings(parser, DiffusionSettings, *names, snr_gamma="0: the plain loss")
    parser.add_argument("--pictures", type=int, default=12288, help="training scenes")
    parser.add_argument("--first", type=int, default=0, help="number of the first training scene")
    parser.add_argument("--work", type=Path, default=Path("runs/mini-training"))
    parser.add_argument("--vae", type=Path, help="trained autoencoder (default: WORK/vae)")
    parser.add_argument("--init-from", type=Path, help="an exported model to begin with, where there is no checkpoint")
    parser.add_argument("--out", type=Path, default=Path("syncdiffusion/weights/mini"))
    add_machine(parser, checkpoint_minutes=5.0)
    parser.add_argument("--workers", type=int, default=2, help="processes that render")
    parser.add_argument("--sample-minutes", type=float, default=15.0)
    parser.add_argument("--export", action="store_true", help="write the folder from the last checkpoint, and stop")
    parser.add_argument("--measure", type=float, metavar="MINUTES", help="print the steps that fit, and stop")
    return parser.parse_args(arguments)


@one_line_errors(exits=True)
def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    device, settings = take_options(options, DiffusionSettings)
    if options.steps < 1 or options.batch < 1:
        raise UsageError(f"steps={options.steps}, batch={options.batch}: use 1 or more")
    places = Places(options.work, options.vae or options.work / "vae", options.init_from)
    vae = load_vae(places.vae, device)
    settings = replace(settings, latent_channels=vae.config.latent_channels)

    def load(split: str, count: int, first: int) -> DiffusionData:
        how = {"workers": options.workers, "bfloat16": settings.bfloat16}
        return load_data(options.work, vae, count, settings.seed, device, split, first, **how)

    if not options.export:
        data = load("train", options.pictures, options.first)
        tokenizer = load_tokenizer(options.work / "tokenizer")
        if options.measure:
            models, optimiser = start(settings, len(tokenizer), data.latents[0].shape[-2], device)
            take = partial(train_step, models, optimiser, schedule=(1000, 0), data=data, settings=settings)
            print_steps_that_fit(options.measure, take)
            return
        minutes = (options.checkpoint_minutes, options.sample_minutes)
        train(settings, options.steps, options.cooldown, places, device, data, tokenizer, *minutes)
    heldout = load("heldout", 512, 0)
    tokenizer = load_tokenizer(options.work / "tokenizer")
    models = best_average(settings, places, len(tokenizer), heldout).to(device)
    export(build_pipeline(models, load_vae(places.vae, device), tokenizer), options.work / "tokenizer", options.out)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
