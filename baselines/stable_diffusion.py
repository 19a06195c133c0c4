"""Stable Diffusion itself: independent squares, the reference set of FID and KID."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from syncdiffusion.backbones.backbone import Backbone
from syncdiffusion.cost import Evaluations
from syncdiffusion.errors import UsageError
from syncdiffusion.joint.loop import OnStep, Step, check_sampling, condition, decode_canvas, initial_noise


@dataclass(frozen=True)
class StableDiffusionSettings:
    """Settings of one image denoised whole; the model was trained on squares of one window.

    height, width: pixels, multiples of the autoencoder's factor (8); other sizes than the window's run, but
    the model was not trained for them.
    """

    height: int = 512
    width: int = 512
    steps: int = 50
    guidance_scale: float = 7.5
    negative_prompt: str = ""

    def __post_init__(self) -> None:
        check_sampling(self)


@torch.no_grad()
def sample_latents(
    backbone: Backbone,
    prompts: Sequence[str],
    seeds: Sequence[int],
    settings: StableDiffusionSettings,
    on_step: OnStep | None = None,
) -> Tensor:
    """Denoised latents [n, 4, h, w]."""
    # The UNet halves its input three times in Stable Diffusion, twice in the miniature.
    multiple = backbone.factor * 2 ** (len(backbone.unet.config.block_out_channels) - 1)
    for name in ("height", "width"):
        pixels = getattr(settings, name)
        if pixels < multiple or pixels % multiple:
            nearest = max(1, round(pixels / multiple)) * multiple
            raise UsageError(f"{name}={pixels}: use a multiple of {multiple} px; nearest: {nearest}")
    shape = (backbone.channels, settings.height // backbone.factor, settings.width // backbone.factor)
    latents = initial_noise(prompts, seeds, shape).to(backbone.device, backbone.dtype)
    c = condition(backbone, prompts, settings.negative_prompt, settings.guidance_scale)
    scheduler = backbone.steps(settings.steps)
    for index, t in enumerate(scheduler.timesteps):
        noise = backbone.predict_noise(latents, t, c.text, c.empty, c.guidance_scale)
        latents = scheduler.step(noise, t, latents).prev_sample
        if on_step is not None:
            on_step(Step(index, settings.steps, int(t)))
    return latents


def generate(
    backbone: Backbone,
    prompts: Sequence[str],
    seeds: Sequence[int],
    settings: StableDiffusionSettings,
    on_step: OnStep | None = None,
) -> Tensor:
    """Images [n, 3, height, width] in [0, 1] on the CPU; arguments as in syncdiffusion.sync."""
    return decode_canvas(backbone, sample_latents(backbone, prompts, seeds, settings, on_step))


def evaluations(settings: StableDiffusionSettings, window: int, factor: int) -> Evaluations:
    """Network evaluations of one image, counted in squares; see syncdiffusion.sync."""
    area = settings.height * settings.width / (window * factor) ** 2
    return Evaluations(unet=area * settings.steps, decoder=area)
