"""Every method by name: a frozen dataclass of settings in, images out, one signature for all.

    METHODS["multidiffusion"].generate(backbone, prompts, seeds, settings, on_step)

To add a method, write a file with a settings dataclass, `sample_latents`, `generate` and `evaluations`, and a line
below.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from baselines import blended_latent, multidiffusion, profile_matching, stable_diffusion
from syncdiffusion import sync as guidance
from syncdiffusion.cost import Evaluations


@dataclass(frozen=True)
class Method:
    """settings: the dataclass of its settings.

    generate: makes images; sample_latents: the same, but stops before decoding.
    evaluations: (settings, window, factor) -> the network evaluations that one panorama takes.
    """

    name: str
    title: str
    settings: type
    generate: Callable[..., Any]
    sample_latents: Callable[..., Any]
    evaluations: Callable[..., Evaluations]


def _method(module: Any, name: str, title: str, settings: type) -> Method:
    return Method(name, title, settings, module.generate, module.sample_latents, module.evaluations)


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        _method(guidance, "syncdiffusion", "SyncDiffusion", guidance.SyncDiffusionSettings),
        _method(profile_matching, "profile_matching", "Profile matching", profile_matching.ProfileMatchingSettings),
        _method(multidiffusion, "multidiffusion", "MultiDiffusion", multidiffusion.MultiDiffusionSettings),
        _method(blended_latent, "blended_latent", "Blended latent diffusion", blended_latent.BlendedLatentSettings),
        _method(stable_diffusion, "stable_diffusion", "Stable Diffusion", stable_diffusion.StableDiffusionSettings),
    )
}
