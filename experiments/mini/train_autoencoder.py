"""Trains the miniature model's autoencoder (diffusers AutoencoderTiny) and writes `vae/`.

    python -m experiments.mini.train_autoencoder --threads 1

The encoder begins as principal components (linear_start.py). Loss: L1 + LPIPS (Alex on all, VGG on a quarter of each
batch) on random 64x64 crops with random flips, plus a weak pull of the latents towards zero mean. Three things make
its latents easier to diffuse: the decoder sees them with noise; now and then it sees only the first few channels,
which therefore carry the coarse picture; and latents shrunk to a half must decode to the picture shrunk to a half.
AutoencoderTiny has no normalisation layers and no attention, so what it learns on crops holds for windows and whole
canvases alike.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from experiments.common.command_line import one_line_errors
from experiments.mini.autoencoder_model import (
    CHANGEABLE,
    LINEAR_PICTURES,
    AutoencoderSettings,
    build_autoencoder,
    load_lpips,
    psnr_values,
    reconstruct,
    save_autoencoder,
)
from experiments.mini.dataset import load_pictures
from experiments.mini.files import contact_sheet
from experiments.mini.linear_start import principal_components, set_linear_encoder
from experiments.mini.optimisers import Muon, split_parameters
from experiments.mini.training import (
    MovingAverage,
    Training,
    add_machine,
    add_settings,
    descend,
    learning_rate,
    print_steps_that_fit,
    say,
    step_generator,
    take_options,
    to_unit,
    train_steps,
)


class Crops(Protocol):
    """Settings of a training on crops: how many, and the side of each in pixels."""

    @property
    def batch(self) -> int: ...

    @property
    def crop(self) -> int: ...


def draw_crops(images: Sequence[np.ndarray], settings: Crops, generator: torch.Generator) -> np.ndarray:
    """A batch of random crops, uint8 [batch, crop, crop, 3], each flipped with probability 1/2."""
    height, width = images[0].shape[:2]

    def draw(high: int) -> list[int]:
        return torch.randint(high, (settings.batch,), generator=generator).tolist()

    places = zip(
        draw(len(images)), draw(height - settings.crop + 1), draw(width - settings.crop + 1), draw(2), strict=True
    )
    crops = []
    for index, top, left, flip in places:
        crop = images[index][top : top + settings.crop, left : left + settings.crop]
        crops.append(crop[:, ::-1] if flip else crop)
    return np.stack(crops)


@dataclass(frozen=True)
class Disturbance:
    """What stands between encoder and decoder in one step.

    noise: [n, c, h/8, w/8], in units of the latents' deviation.
    mask: [n, c, 1, 1], 1 where a channel is seen and 0 where not.
    """

    noise: Tensor
    mask: Tensor


def draw_disturbance(settings: AutoencoderSettings, generator: torch.Generator, device: torch.device) -> Disturbance:
    """Noise and mask of a batch, wholly determined by the generator."""
    count, channels, side = settings.batch, settings.latent_channels, settings.crop // 8
    strength = settings.latent_noise * torch.rand(count, 1, 1, 1, generator=generator)
    noise = strength * torch.randn(count, channels, side, side, generator=generator)
    seen = torch.tensor([channels // 4, channels // 2])[torch.randint(2, (count,), generator=generator)]
    seen[torch.rand(count, generator=generator) >= settings.nested] = channels
    mask = (torch.arange(channels)[None] < seen[:, None]).float()[..., None, None]
    return Disturbance(noise.to(device), mask.to(device))


def autoencoder_loss(
    vae: nn.Module,
    images: Tensor,
    disturbance: Disturbance,
    perceptual: Callable[[Tensor, Tensor], Tensor],
    settings: AutoencoderSettings,
) -> tuple[Tensor, dict[str, float]]:
    """The loss of one batch.

    Args:
        images: [n, 3, h, w] in [-1, 1].
        perceptual: distance of two batches in [-1, 1], [n].

    Returns:
        the loss, and its parts as numbers.
    """
    latents = vae.encoder(images)
    flat = latents.float().transpose(0, 1).flatten(1)
    mean, deviation = flat.mean(1), flat.std(1)
    # In units of the deviation: larger latents are no way out of the noise.
    noise = disturbance.noise * deviation.detach()[:, None, None]
    decoded = vae.decoder((latents + noise) * disturbance.mask).float()
    # Keeps the decoder's own tanh(z/3) near its linear part.
    moments = (mean.square() + (deviation - 1.0).clamp(min=0).square()).mean()
    l1 = (decoded - images).abs().mean()
    quarter = max(1, len(images) // 4)
    halved = (vae.decoder(avg_pool2d(latents[:quarter], 2)).float() - avg_pool2d(images[:quarter], 2)).abs().mean()
    with torch.autocast(images.device.type, enabled=False):
        distance = perceptual(decoded, images).mean()
    loss = l1 + settings.perceptual_weight * distance + settings.moment_weight * moments
    loss = loss + settings.halved_weight * halved
    parts = {"loss": loss, "l1": l1, "lpips": distance, "halved": halved, "std": deviation.mean()}
    return loss, {name: value.item() for name, value in parts.items()}


def start(
    settings: AutoencoderSettings, device: torch.device, images: Sequence[np.ndarray]
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The model to begin with, in the memory layout that trains fastest, and its optimiser.

    The encoder begins as the best linear one of up to LINEAR_PICTURES pictures, the decoder with random weights.
    """
    vae = build_autoencoder(settings)
    some = [images[i] for i in range(min(LINEAR_PICTURES, len(images)))]
    set_linear_encoder(vae.encoder, *principal_components(some, settings.latent_channels))
    vae = vae.to(device, memory_format=torch.channels_last)
    return vae, Muon(split_parameters(vae, settings.peak_rate, 0.0))


def train_step(
    vae: nn.Module,
    optimiser: torch.optim.Optimizer,
    step: int,
    images: Sequence[np.ndarray],
    perceptual: Callable[[Tensor, Tensor], Tensor],
    settings: AutoencoderSettings,
) -> dict[str, float]:
    """Step number `step` (from 0), wholly determined by it, the settings and the weights."""
    device = next(vae.parameters()).device
    generator = step_generator(settings.seed, step)
    crops = draw_crops(images, settings, generator)
    batch = to_unit(crops, device).contiguous(memory_format=torch.channels_last)
    disturbance = draw_disturbance(settings, generator, device)
    with torch.autocast(device.type, torch.bfloat16, enabled=settings.bfloat16):
        loss, parts = autoencoder_loss(vae, batch, disturbance, perceptual, settings)
    rate = learning_rate(step, settings.steps, settings.peak_rate, settings.warmup, settings.cooldown)
    descend(optimiser, loss, rate)
    return parts


def train(
    settings: AutoencoderSettings,
    work: Path,
    device: torch.device,
    images: Sequence[np.ndarray],
    heldout: np.ndarray,
    perceptual: Callable[[Tensor, Tensor], Tensor],
    checkpoint_minutes: float = 4.0,
    stop_after: int | None = None,
) -> nn.Module:
    """Trains from the last checkpoint in `work/autoencoder` to the end; returns the averaged model.

    Args:
        images: n training pictures, each uint8 [h, w, 3].
        heldout: pictures for the PSNR and the contact sheets, uint8 [n, h, w, 3].
        stop_after: leaves after this many steps of this call, with a checkpoint.
    """
    folder = work / "autoencoder"
    vae, optimiser = start(settings, device, images)
    average = MovingAverage(vae)
    identity = {name: value for name, value in asdict(settings).items() if name not in CHANGEABLE}
    training = Training("autoencoder", folder / "checkpoint.pt", identity, vae, optimiser, average)

    def averaged() -> nn.Module:
        return average.copy_to(build_autoencoder(settings).to(device))

    def take(step: int) -> dict[str, float]:
        if step == settings.encoder_steps:
            average.copy_to(vae)
            save_autoencoder(averaged(), heldout, work / "vae", device)
            say("autoencoder", f"step {step}: the encoder stands; {work / 'vae'} serves the diffusion model from here")
        if step >= settings.encoder_steps:
            vae.encoder.requires_grad_(False)
        return train_step(vae, optimiser, step, images, perceptual, settings)

    for step, saved in train_steps(training, take, settings.steps, checkpoint_minutes, stop_after):
        if saved:
            decoded, _ = reconstruct(averaged(), heldout, device)
            ratio = psnr_values(heldout, decoded).mean()
            say("autoencoder", f"step {step}: held-out PSNR {ratio:.2f} dB (n={len(heldout)})")
            rows = [r for i in (0, 4, 8, 12) if i < len(heldout) for r in (heldout[i : i + 4], decoded[i : i + 4])]
            contact_sheet(rows, folder / "reconstructions.png")
    return averaged()


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the miniature model's autoencoder.")
    add_settings(parser, AutoencoderSettings)
    parser.add_argument("--work", type=Path, default=Path("runs/mini-training"))
    parser.add_argument("--first", type=int, default=0, help="number of the first training scene")
    parser.add_argument("--out", type=Path, help="folder of the result (default: WORK/vae)")
    parser.add_argument("--heldout", type=int, default=64, help="held-out scenes for the PSNR")
    add_machine(parser, checkpoint_minutes=4.0)
    parser.add_argument("--measure", type=float, metavar="MINUTES", help="print the steps that fit, and stop")
    return parser.parse_args(arguments)


@one_line_errors(exits=True)
def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    device, settings = take_options(options, AutoencoderSettings)
    heldout = load_pictures(options.work, "heldout", options.heldout, settings.seed).images[:]
    images = load_pictures(options.work, "train", settings.pictures, settings.seed, first=options.first).images
    perceptual = load_lpips(device)
    if options.measure:
        vae, optimiser = start(settings, device, images)
        take = partial(train_step, vae, optimiser, images=images, perceptual=perceptual, settings=settings)
        print_steps_that_fit(options.measure, take)
        return
    vae = train(settings, options.work, device, images, heldout, perceptual, options.checkpoint_minutes)
    save_autoencoder(vae, heldout, options.out or options.work / "vae", device)


if __name__ == "__main__":
    main()
