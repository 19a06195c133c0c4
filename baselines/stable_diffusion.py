"""Stable Diffusion itself: independent squares, the reference set of FID and KID."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from syncdiffusion.cost import NetworkCalls, Square
from syncdiffusion.errors import UsageError
from syncdiffusion.method import Method, no_corners
from syncdiffusion.method_settings import LONGEST, SamplingSettings
from syncdiffusion.settings import setting

if TYPE_CHECKING:
    from torch import Tensor

    from syncdiffusion.backbones.backbone import Backbone
    from syncdiffusion.joint.task import Step, Task


@dataclass(frozen=True)
class StableDiffusionSettings(SamplingSettings):
    """Settings of one image denoised whole; the model was trained on squares of one window.

    height, width: pixels, multiples of the autoencoder's factor (8) and of the UNet's own; other sizes than the
        window's run, but the model was not trained for them.
    """

    height: int = setting(512, "pixels", least=1, most=LONGEST)
    width: int = setting(512, "pixels", least=1, most=LONGEST)


def sample(task: Task, settings: StableDiffusionSettings) -> Tensor:
    """Denoised latents [n, c, h, w]; UsageError for a size that the networks cannot have."""
    import torch

    from syncdiffusion.joint.finite import always_finite

    # The UNet halves its input three times in Stable Diffusion, twice in the miniature.
    multiple = task.backbone.factor * 2 ** (len(task.backbone.unet.config.block_out_channels) - 1)
    for name in ("height", "width"):
        pixels = getattr(settings, name)
        if pixels % multiple:
            nearest = max(1, round(pixels / multiple)) * multiple
            raise UsageError(f"{name}={pixels}: use a multiple of {multiple} px; nearest: {nearest}")
    latents, text = task.noise, task.conditioning.text
    for step in task.steps:

        def predict(model: Backbone, x: Tensor, which: Tensor, step: Step = step) -> tuple[Tensor]:
            return (model.predict_noise(x, step.timestep, text.rows(which)),)

        with torch.no_grad():
            noise = always_finite(task.backbone, predict)(latents, torch.arange(len(latents), device=latents.device))[0]
            latents = task.advance(step, latents, noise)
        latents = task.told(step, latents)
    return latents


def calls(settings: StableDiffusionSettings, square: Square) -> NetworkCalls:
    """Network calls of one image, counted in squares."""
    area = settings.height * settings.width / square.pixels**2
    return NetworkCalls(unet=area * settings.steps, decoder=area)


METHOD = Method(
    name="stable_diffusion",
    title="Stable Diffusion",
    settings=StableDiffusionSettings,
    sample=sample,
    calls=calls,
    corners=no_corners,
    source="Rombach et al., CVPR 2022, arXiv 2112.10752: independent squares",
    mark=("#707070", "X"),
)
