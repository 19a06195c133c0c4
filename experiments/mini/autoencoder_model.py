"""The miniature's autoencoder itself: settings, how it begins, how good it is, the folder it is kept in."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from experiments.common.files import make_folder, write_json
from experiments.mini.files import move_files
from experiments.mini.linear_decoder import LinearDecoder, set_linear_decoder
from experiments.mini.linear_start import principal_components, set_linear_encoder
from experiments.mini.training import StepLines, descend, learning_rate, step_generator, to_bytes, to_unit

LINEAR_PICTURES = 1024  # whose principal components the encoder takes
# Standard deviation of the latents that the diffusion model works on (Stable Diffusion's: 1). Where sampling begins,
# Stable Diffusion's schedule leaves 0.085 of the latents in the noise. A window here has 256 cells, so that its mean in
# pure noise deviates by 1/16; at a deviation of 1 the mean colours of pictures, 1.65, would leave 0.14 there, and a
# model that learned to read it would see hardly any colours but the middle ones in pure noise.
LATENT_DEVIATION = 0.5


@dataclass(frozen=True)
class AutoencoderSettings:
    """What determines the trained weights, besides the pictures and the number of steps.

    decoder_blocks: residual blocks a resolution, from an eighth to full. A block at full resolution would cost as
        much as four at half.
    linear_steps: length of the linear chain's training, with which the decoder begins.
    latent_noise: largest standard deviation of the noise added to the latents before decoding, in units of their own;
        each picture draws one between 0 and this. The decoder will see a diffusion model's latents, which are never
        quite the encoder's.
    critic_weight: of the critic's verdict and of its features' distance in the decoder's loss.
    critic_width: channels of the critic's first layer.
    bfloat16: autocast; the weights and the optimiser stay float32.
    """

    latent_channels: int = 16
    encoder_width: int = 48
    decoder_width: int = 64
    decoder_blocks: tuple[int, ...] = (6, 4, 2, 0)
    linear_steps: int = 400
    linear_rate: float = 4e-3
    batch: int = 16
    crop: int = 64
    peak_rate: float = 5e-4
    warmup: int = 50
    perceptual_weight: float = 0.25
    latent_noise: float = 0.2
    critic_weight: float = 0.03
    critic_width: int = 32
    average_decay: float = 0.998
    seed: int = 0
    bfloat16: bool = False


# A training may go on in other batches, at another rate or precision and with another weight of the critic.
CHANGEABLE = ("batch", "peak_rate", "critic_weight", "bfloat16")


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


def build_autoencoder(settings: AutoencoderSettings) -> nn.Module:
    """AutoencoderTiny with random weights, factor 8. Its encoder has no residual blocks: it will be linear."""
    from diffusers import AutoencoderTiny

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return AutoencoderTiny(
            latent_channels=settings.latent_channels,
            encoder_block_out_channels=(settings.encoder_width,) * 4,
            decoder_block_out_channels=(settings.decoder_width,) * 4,
            num_encoder_blocks=(0, 0, 0, 0),
            num_decoder_blocks=settings.decoder_blocks,
            scaling_factor=1.0,
        )


def start_autoencoder(settings: AutoencoderSettings, images: Sequence[np.ndarray], device: torch.device) -> nn.Module:
    """The autoencoder to begin with, channels last, encoder frozen: principal components, and a linear decoder.

    The diffusion model works on latents * scaling_factor, whose standard deviation is LATENT_DEVIATION.

    Args:
        images: n training pictures, each uint8 [h, w, 3].
    """
    vae = build_autoencoder(settings)
    some = [images[i] for i in range(min(LINEAR_PICTURES, len(images)))]
    set_linear_encoder(vae.encoder, *principal_components(some, settings.latent_channels))
    # Weights are kept in half precision: latents shall be those of the kept weights.
    vae.encoder.half().float().requires_grad_(False)
    vae = vae.to(device, memory_format=torch.channels_last)
    with torch.no_grad():
        latents = vae.encoder(to_unit(np.stack(some[:64]), device))
    vae.register_to_config(scaling_factor=round(LATENT_DEVIATION / float(latents.std()), 5))
    set_linear_decoder(vae.decoder, train_linear(settings, vae, images))
    return vae


def noisy_latents(vae: nn.Module, batch: Tensor, strongest: float, generator: torch.Generator) -> Tensor:
    """Latents of pictures [n, 3, h, w], each picture's with noise of 0 to `strongest` deviations of theirs."""
    with torch.no_grad():
        latents = vae.encoder(batch)
    deviation = LATENT_DEVIATION / vae.config.scaling_factor
    strength = strongest * deviation * torch.rand(len(batch), 1, 1, 1, generator=generator)
    return latents + (strength * torch.randn(latents.shape, generator=generator)).to(latents.device)


def train_linear(settings: AutoencoderSettings, vae: nn.Module, images: Sequence[np.ndarray]) -> LinearDecoder:
    """The linear decoder with the smallest squared error on this autoencoder's latents."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        linear = LinearDecoder(settings.latent_channels, settings.decoder_width)
    linear = linear.to(vae.device, memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(linear.parameters(), betas=(0.9, 0.99), weight_decay=0.0)
    steps = settings.linear_steps
    progress = StepLines("linear decoder", 0, steps, every=50)
    for step in range(steps):
        generator = step_generator(settings.seed + 2, step)
        batch = to_unit(draw_crops(images, settings, generator), vae.device)
        batch = batch.contiguous(memory_format=torch.channels_last)
        latents = noisy_latents(vae, batch, settings.latent_noise / 2, generator)
        loss = (linear(latents) - batch).square().mean()
        descend(optimiser, loss, learning_rate(step, steps, settings.linear_rate, settings.warmup, steps // 2))
        progress.add(step + 1, mse=loss.item())
    return linear


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

    VGG costs more than the autoencoder itself, so it looks at one picture in `share` only, whose distance counts
    `share` times.
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


def save_autoencoder(vae: nn.Module, folder: Path) -> None:
    """Writes diffusers' folder, weights in half precision; the model stays as it is.

    Its config.json comes last: where that is, the weights are whole.
    """
    from diffusers import AutoencoderTiny

    kept = AutoencoderTiny.from_config(vae.config)
    kept.load_state_dict({name: value.cpu() for name, value in vae.state_dict().items()})
    make_folder(folder.parent)
    with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as name:
        made = Path(name)
        kept.half().save_pretrained(made)
        config = json.loads((made / "config.json").read_text())
        config.pop("block_out_channels", None)  # AutoencoderTiny sets this itself, and warns where it finds it set
        write_json(made / "config.json", config)
        move_files(made, folder, last="config.json")
