"""Diffusers' deprecated StableDiffusionPanoramaPipeline, made to denoise the same windows as our MultiDiffusion.

The pipeline offers no stride: its `get_views` places windows of 64 latent cells every 8. Here `get_views` is replaced,
on the one object, by our own windows, for else a model of other windows could not be compared at all. Nothing
else of it is touched. Circular padding is off, the initial latents are passed in and latents come out.
"""

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from syncdiffusion.backbones.backbone import Backbone

VIEW_BATCH_SIZES = (1, 2, 4, 8)  # besides all views at once

View = tuple[int, int, int, int]  # top, bottom, left, right in latent cells, the ends excluded


def views_of(corners: Sequence[tuple[int, int]], size: int) -> list[View]:
    """The pipeline's notation of square windows of side `size` at `corners` (top, left)."""
    return [(top, top + size, left, left + size) for top, left in corners]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without diffusers' word, at every construction, that the pipeline is deprecated."""
    from diffusers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(before)


def panorama_pipeline(backbone: "Backbone", steps: int, views: list[View]):
    """The pipeline around the backbone's own UNet and DDIM schedule, with `views` for its windows.

    It gets neither autoencoder nor text encoder: latents are all that is asked of it, and embeddings are passed in.
    """
    from diffusers import StableDiffusionPanoramaPipeline

    with quiet():
        pipeline = StableDiffusionPanoramaPipeline(
            vae=None,
            text_encoder=None,
            tokenizer=None,
            unet=backbone.unet,
            scheduler=backbone.steps(steps),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.get_views = lambda *sizes, **options: views
    return pipeline


def panorama_latents(
    backbone: "Backbone",
    prompt: str,
    noise: Tensor,
    *,
    corners: Sequence[tuple[int, int]],
    steps: int,
    guidance_scale: float,
    view_batch_size: int,
) -> Tensor:
    """Denoised canvas [1, 4, h, w] of the pipeline.

    Args:
        noise: initial latents [1, 4, h, w]; the backbone's windows cover them, at `corners` (top, left) in cells.
        guidance_scale: above 1, for below the pipeline leaves guidance out.
    """
    pipeline = panorama_pipeline(backbone, steps, views_of(corners, backbone.window))
    height, width = (cells * backbone.factor for cells in noise.shape[2:])
    with backbone.autocast(), torch.no_grad():
        return pipeline(
            prompt_embeds=backbone.encode_prompts([prompt]),
            negative_prompt_embeds=backbone.encode_prompts([""]),
            height=height,
            width=width,
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            view_batch_size=view_batch_size,
            latents=noise.to(backbone.device, backbone.dtype),
            output_type="latent",
            circular_padding=False,
        ).images
