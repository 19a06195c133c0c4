"""Which latent diffusion models are run here, told from their networks' configurations: all others are refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffusers import DDIMScheduler

PREDICTIONS = ("epsilon", "v_prediction", "sample")
OTHER_SCHEDULES = ("EDM", "FlowMatch", "CosineDPM")  # schedulers whose noise is not that of alpha-bar on timesteps


def unlike(unet: Any, vae: Any) -> str | None:
    """Why a UNet and an autoencoder are not of Stable Diffusion's kind, in words; None where they are."""
    own, needed = unet.config.in_channels, vae.config.latent_channels
    if own != needed:  # inpainting, depth, InstructPix2Pix
        return f"its UNet takes {own} channels, its autoencoder has {needed}; give a text-to-image model"
    if getattr(unet.config, "time_cond_proj_dim", None) is not None:
        return "its UNet is told the guidance scale, as of latent consistency models; give the model that it is made of"
    for name in ("latents_mean", "latents_std"):
        if getattr(vae.config, name, None) is not None:
            return f"its autoencoder has {name}, by which no latents are scaled here; give a model without"
    return None


def ddim(config: Mapping[str, Any], made_by: str = "") -> DDIMScheduler:
    """DDIM with a model's schedule, whichever sampler its configuration is of (of SDXL Euler's).

    made_by: the class of the scheduler whose configuration it is, where this does not tell.

    What is foreseen is not clipped: that is for pixels, and DDIM's default where a configuration says nothing of it.

    Raises:
        ValueError: a schedule of another kind, or a prediction that is not known.
    """
    from diffusers import DDIMScheduler

    name = str(config.get("_class_name", made_by))
    if name.startswith(OTHER_SCHEDULES):
        raise ValueError(f"its scheduler is {name}, whose noise levels are not Stable Diffusion's")
    made: DDIMScheduler = DDIMScheduler.from_config(config, clip_sample=False)
    kind = made.config.prediction_type
    if kind not in PREDICTIONS:
        raise ValueError(f"its scheduler's prediction_type is {kind}; known are {', '.join(PREDICTIONS)}")
    return made
