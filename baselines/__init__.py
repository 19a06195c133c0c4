"""Every method by name: a frozen dataclass of settings in, images out, one signature for all.

    METHODS["multidiffusion"].generate(backbone, prompts, seeds, settings, on_step)

To add a method, write a file with a settings dataclass, `sample_latents` and `generate`, and a line here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from baselines import blended_latent, multidiffusion, stable_diffusion
from syncdiffusion import guidance


@dataclass(frozen=True)
class Method:
    """settings: the dataclass of its settings; `generate` makes images, `sample_latents` stops before decoding."""

    name: str
    title: str
    settings: type
    generate: Callable[..., Any]
    sample_latents: Callable[..., Any]


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            "syncdiffusion", "SyncDiffusion", guidance.SyncDiffusionSettings, guidance.generate, guidance.sample_latents
        ),
        Method(
            "multidiffusion",
            "MultiDiffusion",
            multidiffusion.MultiDiffusionSettings,
            multidiffusion.generate,
            multidiffusion.sample_latents,
        ),
        Method(
            "blended_latent",
            "Blended latent diffusion",
            blended_latent.BlendedLatentSettings,
            blended_latent.generate,
            blended_latent.sample_latents,
        ),
        Method(
            "stable_diffusion",
            "Stable Diffusion",
            stable_diffusion.StableDiffusionSettings,
            stable_diffusion.generate,
            stable_diffusion.sample_latents,
        ),
    )
}
