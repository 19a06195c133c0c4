"""Trains the miniature model's autoencoder (diffusers AutoencoderTiny) and writes `vae/`.

    python -m experiments.mini.train_autoencoder --threads 1

Loss: L1 + LPIPS (Alex on all, VGG on a quarter of each batch) on random 64x64 crops with random flips, plus a weak
pull of the latents towards zero mean and unit variance. Three things make its latents easier to diffuse: the decoder
sees them with noise; now and then it sees only the first few channels, which therefore carry the coarse picture;
and latents shrunk to a half must decode to the picture shrunk to a half. AutoencoderTiny has no normalisation layers
and no attention, so what it learns on crops holds for windows and whole canvases alike.
"""

from __future__ import annotations

import argparse
import sys
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
from experiments.mini.dataset import load_pictures
from experiments.mini.files import contact_sheet
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
    to_bytes,
    to_unit,
    train_steps,
)


@dataclass(frozen=True)
class AutoencoderSettings:
    """What determines the trained weights, besides the pictures.

    steps: length so far; may be raised to go on.
    encoder_steps: the encoder is frozen (at its average) after this step and the decoder goes on alone:
        the latent space then stands, so that the diffusion model can be trained at the same time.
    cooldown: steps at the end over which the learning rate falls.
    encoder_width, decoder_width: channels of each, the same at every resolution.
    encoder_blocks: residual blocks a resolution, from full to an eighth.
    decoder_blocks: residual blocks a resolution, from an eighth to full. A block at full resolution costs as much
        as four at half, and pixels are a linear map of the half's features well enough.
    latent_noise: largest standard deviation of the noise added to the latents before decoding, in units of
        their own (about 1); each picture draws one between 0 and this. The decoder will see a diffusion model's
        latents, which are never quite the encoder's.
    nested: share of pictures of which the decoder sees the first quarter or half of the channels only.
    bfloat16: autocast; the weights and the optimiser stay float32.
    """

    steps: int = 2800
    encoder_steps: int = 2400
    cooldown: int = 400
    batch: int = 16
    crop: int = 64
    latent_channels: int = 16
    encoder_width: int = 48
    decoder_width: int = 64
    encoder_blocks: tuple[int, ...] = (0, 1, 3, 5)
    decoder_blocks: tuple[int, ...] = (6, 4, 2, 0)
    peak_rate: float = 1.5e-3
    warmup: int = 100
    perceptual_weight: float = 0.25
    moment_weight: float = 0.05
    latent_noise: float = 0.3
    nested: float = 0.15
    halved_weight: float = 0.5
    pictures: int = 20000
    seed: int = 0
    bfloat16: bool = False


# A training may go on for longer, keep its encoder longer, in other batches and on other pictures.
CHANGEABLE = ("steps", "encoder_steps", "cooldown", "batch", "peak_rate", "pictures")


def build_autoencoder(settings: AutoencoderSettings) -> nn.Module:
    """AutoencoderTiny with random weights, factor 8."""
    from diffusers import AutoencoderTiny

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return AutoencoderTiny(
            latent_channels=settings.latent_channels,
            encoder_block_out_channels=(settings.encoder_width,) * 4,
            decoder_block_out_channels=(settings.decoder_width,) * 4,
            num_encoder_blocks=settings.encoder_blocks,
            num_decoder_blocks=settings.decoder_blocks,
            scaling_factor=1.0,
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
    # Keeps the decoder's own tanh(z/3) near its linear part and the scaling factor near 1.
    moments = (mean.square() + (deviation - 1.0).square()).mean()
    l1 = (decoded - images).abs().mean()
    quarter = max(1, len(images) // 4)
    halved = (vae.decoder(avg_pool2d(latents[:quarter], 2)).float() - avg_pool2d(images[:quarter], 2)).abs().mean()
    with torch.autocast(images.device.type, enabled=False):
        distance = perceptual(decoded, images).mean()
    loss = l1 + settings.perceptual_weight * distance + settings.moment_weight * moments
    loss = loss + settings.halved_weight * halved
    parts = {"loss": loss, "l1": l1, "lpips": distance, "halved": halved, "std": deviation.mean()}
    return loss, {name: value.item() for name, value in parts.items()}


@torch.no_grad()
def normalise_latents(vae: nn.Module, images: np.ndarray) -> None:
    """Scales the untrained encoder's last convolution so that latents start with mean 0, deviation 1.

    With PyTorch's own initialisation they start near 0.02, below the noise added to them, and the
    first hundreds of steps are spent on growing them.
    """
    last = vae.encoder.layers[-1]
    latents = vae.encoder(to_unit(images, last.weight.device)).transpose(0, 1).flatten(1)
    mean, deviation = latents.mean(1), latents.std(1)
    last.weight.div_(deviation[:, None, None, None])
    last.bias.sub_(mean).div_(deviation)


@torch.no_grad()
def reconstruct(vae: nn.Module, images: np.ndarray, device: torch.device, batch: int = 16) -> tuple[np.ndarray, Tensor]:
    """uint8 [n, h, w, 3] through encoder and decoder: the same in bytes, and latents [n, c, h/8, w/8]."""
    decoded, latents = [], []
    for begin in range(0, len(images), batch):
        latent = vae.encoder(to_unit(images[begin : begin + batch], device))
        decoded.append(to_bytes(vae.decoder(latent)))
        latents.append(latent.float().cpu())
    return np.concatenate(decoded), torch.cat(latents)


def psnr_values(images: np.ndarray, decoded: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio in dB of each of uint8 [n, h, w, 3]: [n]."""
    error = ((images.astype(np.float64) - decoded) ** 2).mean(axis=(1, 2, 3))
    return 10.0 * np.log10(255.0**2 / np.maximum(error, 1e-8))


def load_lpips(device: torch.device, share: int = 4) -> Callable[[Tensor, Tensor], Tensor]:
    """LPIPS-Alex plus LPIPS-VGG of two batches in [-1, 1]: [n]; gradient to the first only.

    VGG costs five times as much as the autoencoder itself, so it looks at one picture in `share` only, whose
    distance counts `share` times.
    """
    from syncdiffusion.perceptual.distances import PerceptualLoss, load_perceptual

    alex, vgg = (load_perceptual(name, device=str(device)) for name in ("lpips_alex", "lpips_vgg"))

    def one(loss: PerceptualLoss, a: Tensor, b: Tensor) -> Tensor:
        with torch.no_grad():
            target = loss.features(b.add(1).div(2))
        return loss.distance(loss.features(a.add(1).div(2)), target)

    def distance(a: Tensor, b: Tensor) -> Tensor:
        few = max(1, len(a) // share)
        costly = one(vgg, a[:few], b[:few]) * (len(a) / few)
        return one(alex, a, b) + torch.cat([costly, costly.new_zeros(len(a) - few)])

    return distance


def start(
    settings: AutoencoderSettings, device: torch.device, images: Sequence[np.ndarray]
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The untrained model, in the memory layout that trains fastest, and its optimiser."""
    vae = build_autoencoder(settings)
    normalise_latents(vae, images[:32])
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


def save_autoencoder(vae: nn.Module, heldout: np.ndarray, folder: Path, device: torch.device) -> float:
    """Sets the scaling factor from the held-out latents and writes fp16 safetensors; returns it.

    The diffusion model works on latents * scaling_factor, whose standard deviation is 1; diffusers'
    pipelines divide by `scaling_factor` before decoding.
    """
    _, latents = reconstruct(vae, heldout, device)
    factor = round(1.0 / float(latents.std()), 5)
    vae.register_to_config(scaling_factor=factor)
    vae.to("cpu", memory_format=torch.contiguous_format).half().save_pretrained(folder)
    vae.float()
    means = ", ".join(f"{v:.3f}" for v in latents.mean((0, 2, 3)).tolist())
    deviations = ", ".join(f"{v:.3f}" for v in latents.std((0, 2, 3)).tolist())
    print(f"latents: means {means}; deviations {deviations}; scaling factor {factor}", file=sys.stderr)
    return factor


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
