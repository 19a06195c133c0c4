"""The decoder's last stretch: the autoencoder's own losses and a critic that tells decoded crops from true ones.

    python -m experiments.mini.train_decoder --threads 1

Begins with the autoencoder in WORK/vae and writes it back with a better decoder; the encoder, and with it the latent
space that the diffusion model has learned, stays as it is. Where latents do not say everything (noise, a diffusion
model's errors) a mean absolute error alone answers with a blur; the critic makes the decoder choose something sharp.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, relu

from experiments.common.command_line import one_line_errors
from experiments.mini.autoencoder_model import load_lpips, psnr_values, reconstruct
from experiments.mini.dataset import load_pictures
from experiments.mini.diffusion_data import encoder_hash, load_vae
from experiments.mini.files import contact_sheet
from experiments.mini.optimisers import Muon, split_parameters
from experiments.mini.train_autoencoder import draw_crops
from experiments.mini.training import (
    MovingAverage,
    Training,
    add_machine,
    add_settings,
    descend,
    learning_rate,
    say,
    step_generator,
    take_options,
    to_unit,
    train_steps,
)


@dataclass(frozen=True)
class DecoderSettings:
    """What determines the trained weights, besides the pictures, the autoencoder and the number of steps.

    latent_noise: as in AutoencoderSettings.
    critic_weight: of the critic's verdict and of its features' distance in the decoder's loss.
    critic_width: channels of the critic's first layer.
    """

    batch: int = 8
    crop: int = 64
    peak_rate: float = 5e-4
    warmup: int = 50
    perceptual_weight: float = 0.25
    latent_noise: float = 0.3
    critic_weight: float = 0.03
    critic_width: int = 32
    average_decay: float = 0.998
    seed: int = 0


class Critic(nn.Module):
    """A convolutional judge of patches (Isola et al., CVPR 2017): a number for each overlapping field of 34 pixels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        sizes = (3, width, 2 * width, 3 * width)
        pairs = zip(sizes[:-1], sizes[1:], strict=True)
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in pairs)
        self.last = nn.Conv2d(sizes[-1], 1, 3, padding=1)

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """[n, 3, h, w] in [-1, 1] -> verdicts [n, 1, h/8, w/8], high for true ones, and every layer's features."""
        features = []
        for layer in self.layers:
            images = leaky_relu(layer(images), 0.2)
            features.append(images)
        return self.last(images), features


def build_models(vae: nn.Module, settings: DecoderSettings) -> nn.ModuleDict:
    """The autoencoder's decoder (the very object) and an untrained critic."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        critic = Critic(settings.critic_width)
    return nn.ModuleDict({"decoder": vae.decoder.requires_grad_(True), "critic": critic.to(vae.device)})


def losses(
    models: nn.ModuleDict,
    latents: Tensor,
    images: Tensor,
    perceptual: Callable[[Tensor, Tensor], Tensor],
    settings: DecoderSettings,
) -> tuple[Tensor, dict[str, float]]:
    """The sum of the decoder's and the critic's losses, whose gradients do not reach the other's weights.

    Args:
        latents: [n, c, h/8, w/8], already with noise.
        images: [n, 3, h, w] in [-1, 1].
    """
    critic = models["critic"]
    decoded = models["decoder"](latents).float()
    l1, distance = (decoded - images).abs().mean(), perceptual(decoded, images).mean()
    critic.requires_grad_(False)
    verdict, seen = critic(decoded)
    wanted = critic(images)[1]
    critic.requires_grad_(True)
    alike = torch.stack([(a - b).abs().mean() for a, b in zip(seen, wanted, strict=True)]).sum()
    decoder_loss = l1 + settings.perceptual_weight * distance + settings.critic_weight * (alike - verdict.mean())
    # The hinge (Lim and Ye, 2017): right by a margin of one is right enough.
    critic_loss = relu(1 - critic(images)[0]).mean() + relu(1 + critic(decoded.detach())[0]).mean()
    parts = {"l1": l1, "lpips": distance, "alike": alike, "verdict": verdict.mean(), "critic": critic_loss}
    return decoder_loss + critic_loss, {name: value.item() for name, value in parts.items()}


def train_step(
    vae: nn.Module,
    models: nn.ModuleDict,
    optimiser: torch.optim.Optimizer,
    step: int,
    schedule: tuple[int, int],
    images: Sequence[np.ndarray],
    perceptual: Callable[[Tensor, Tensor], Tensor],
    settings: DecoderSettings,
) -> dict[str, float]:
    """Step number `step` (from 0), wholly determined by the arguments and the weights.

    Args:
        schedule: length of the training and of its cooldown, in steps.
    """
    generator = step_generator(settings.seed + 1, step)
    batch = to_unit(draw_crops(images, settings, generator), vae.device)
    batch = batch.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        latents = vae.encoder(batch)
    strength = settings.latent_noise * torch.rand(len(latents), 1, 1, 1, generator=generator)
    noise = strength * torch.randn(latents.shape, generator=generator) / vae.config.scaling_factor
    loss, parts = losses(models, latents + noise.to(vae.device), batch, perceptual, settings)
    descend(optimiser, loss, learning_rate(step, schedule[0], settings.peak_rate, settings.warmup, schedule[1]))
    return parts


def train(
    settings: DecoderSettings,
    steps: int,
    cooldown: int,
    work: Path,
    vae: nn.Module,
    images: Sequence[np.ndarray],
    heldout: np.ndarray,
    perceptual: Callable[[Tensor, Tensor], Tensor],
    checkpoint_minutes: float = 4.0,
    stop_after: int | None = None,
) -> nn.Module:
    """Trains from the last checkpoint in `work/decoder` to `steps`; returns the autoencoder with the averaged decoder.

    Args:
        vae: the autoencoder to begin with; its decoder is changed.
        images: n training pictures, each uint8 [h, w, 3]; heldout: uint8 [n, h, w, 3].
        stop_after: leaves after this many steps of this call, with a checkpoint.
    """
    folder = work / "decoder"
    vae = vae.to(memory_format=torch.channels_last)
    models = build_models(vae, settings)
    average = MovingAverage(models, settings.average_decay)
    identity = {**asdict(settings), "encoder": encoder_hash(vae)}
    optimiser = Muon(split_parameters(models, settings.peak_rate, 0.0))
    training = Training("decoder", folder / "checkpoint.pt", identity, models, optimiser, average)

    def show(step: int) -> None:
        live = {name: value.clone() for name, value in models.state_dict().items()}
        average.copy_to(models)
        decoded, _ = reconstruct(vae, heldout, vae.device)
        models.load_state_dict(live)
        say("decoder", f"step {step}: held-out PSNR {psnr_values(heldout, decoded).mean():.2f} dB (n={len(heldout)})")
        rows = [r for i in (0, 4, 8, 12) if i < len(heldout) for r in (heldout[i : i + 4], decoded[i : i + 4])]
        contact_sheet(rows, folder / "reconstructions.png")

    arguments = {"images": images, "perceptual": perceptual, "settings": settings, "schedule": (steps, cooldown)}
    take = partial(train_step, vae, models, optimiser, **arguments)
    for step, saved in train_steps(training, take, steps, checkpoint_minutes, stop_after):
        if saved:
            show(step)
    average.copy_to(models)
    return vae


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the miniature's decoder further, with a critic.")
    parser.add_argument("--steps", type=int, default=2000, help="may be raised when a training is continued")
    parser.add_argument("--cooldown", type=int, default=500, help="steps at the end over which the rate falls")
    add_settings(parser, DecoderSettings, "batch", "peak_rate", "critic_weight", "seed")
    parser.add_argument("--pictures", type=int, default=12288, help="training scenes")
    parser.add_argument("--first", type=int, default=0, help="number of the first training scene")
    parser.add_argument("--work", type=Path, default=Path("runs/mini-training"))
    parser.add_argument("--vae", type=Path, help="the autoencoder to begin with (default: WORK/vae)")
    parser.add_argument("--out", type=Path, help="folder of the result (default: WORK/vae)")
    parser.add_argument("--heldout", type=int, default=32, help="held-out scenes for the PSNR")
    add_machine(parser, checkpoint_minutes=4.0)
    return parser.parse_args(arguments)


@one_line_errors(exits=True)
def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    device, settings = take_options(options, DecoderSettings)
    vae = load_vae(options.vae or options.work / "vae", device)
    heldout = load_pictures(options.work, "heldout", options.heldout, settings.seed).images[:]
    images = load_pictures(options.work, "train", options.pictures, settings.seed, first=options.first).images
    schedule = (options.steps, options.cooldown)
    vae = train(settings, *schedule, options.work, vae, images, heldout, load_lpips(device), options.checkpoint_minutes)
    out = options.out or options.work / "vae"
    vae.to("cpu", memory_format=torch.contiguous_format).half().save_pretrained(out)
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
