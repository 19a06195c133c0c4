"""The miniature's autoencoder itself: settings, architecture, how good it is, the folder it is kept in."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from experiments.mini.training import to_bytes, to_unit


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


LINEAR_PICTURES = 1024


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
