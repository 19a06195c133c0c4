"""Blended Latent Diffusion (Avrahami et al., SIGGRAPH 2023) as extrapolation.

The paper's recipe (window, overlap, mask) is not public (protocol §2). This is ours:

1. The first window (top left) is an ordinary sample of the model, from its part of the canvas noise.
2. Then window after window, row by row, each `overlap` of a window into what is there already.
   A window starts `start` of the way into the schedule from pure noise (its part of the canvas
   noise); after each step its known cells are replaced by the known latents, noised afresh to
   the level that the step has just reached.
3. The mask is binary, in latent cells. When a window is done its known cells are put back clean,
   so what was there never changes, and the whole canvas is decoded at once.

The authors' script noises the known cells to the level *before* the step, which leaves noise in them at
the end, starts a quarter into the schedule and uses 50 DDIM steps; we keep the last two.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from syncdiffusion.backbones.backbone import Backbone
from syncdiffusion.cost import Evaluations, plain
from syncdiffusion.errors import UsageError
from syncdiffusion.geometry.sizes import window_corners
from syncdiffusion.joint.loop import (
    Conditioning,
    OnStep,
    Step,
    check_sampling,
    condition,
    decode_canvas,
    initial_noise,
    noise_generator,
    windows_for,
)


@dataclass(frozen=True)
class BlendedLatentSettings:
    """Settings of one panorama by repeated outpainting.

    overlap: share of a window that is known already, above 0 and below 1.
    start: share of the schedule that outpainted windows skip, from 0 and below 1.
    """

    height: int = 512
    width: int = 3072
    steps: int = 50
    guidance_scale: float = 7.5
    negative_prompt: str = ""
    overlap: float = 0.5
    start: float = 0.25

    def __post_init__(self) -> None:
        check_sampling(self)
        if not 0 < self.overlap < 1:
            raise UsageError(f"overlap={self.overlap}: use a number between 0 and 1")
        if not 0 <= self.start < 1:
            raise UsageError(f"start={self.start}: use a number from 0 and below 1")


@torch.no_grad()
def outpaint(
    backbone: Backbone,
    latents: Tensor,
    known: Tensor,
    mask: Tensor,
    conditioning: Conditioning,
    steps: int,
    start: float,
    generators: Sequence[torch.Generator],
) -> Tensor:
    """Denoise one window of each panorama around what is known of it.

    Args:
        latents: pure noise [n, 4, s, s].
        known: clean latents [n, 4, s, s], used where `mask` [s, s] is True.
        generators: one CPU generator per panorama, for the noise on the known cells.

    Returns:
        clean latents [n, 4, s, s], equal to `known` under the mask.
    """
    scheduler = backbone.steps(steps)
    begin = int(start * steps) if mask.any() else 0
    timesteps = scheduler.timesteps[begin:]
    levels = [*timesteps[1:], None]
    for t, reached in zip(timesteps, levels, strict=True):
        c = conditioning
        noise = backbone.predict_noise(latents, t, c.text, c.empty, c.guidance_scale)
        latents = scheduler.step(noise, t, latents).prev_sample
        if reached is not None and mask.any():
            fresh = torch.stack([torch.randn(known.shape[1:], generator=g) for g in generators]).to(known)
            latents = torch.where(mask, scheduler.add_noise(known, fresh, reached[None]), latents)
    return torch.where(mask, known, latents)


def hop_of(settings: BlendedLatentSettings, window: int) -> int:
    """Latent cells from one window of `window` cells to the next."""
    hop = window - round(settings.overlap * window)
    if not 0 < hop < window:
        raise UsageError(f"overlap={settings.overlap}: less than one latent cell of a window of {window}")
    return hop


def sample_latents(
    backbone: Backbone,
    prompts: Sequence[str],
    seeds: Sequence[int],
    settings: BlendedLatentSettings,
    on_step: OnStep | None = None,
) -> Tensor:
    """Denoised canvases [n, 4, h, w]."""
    hop = hop_of(settings, backbone.window)
    windows = windows_for(backbone, settings.height, settings.width, hop)
    shape = (backbone.channels, windows.height, windows.width)
    noise = initial_noise(prompts, seeds, shape).to(backbone.device, backbone.dtype)
    canvas = noise.clone()
    done = torch.zeros(windows.height, windows.width, dtype=torch.bool, device=backbone.device)
    generators = [noise_generator(p, s, stream="blend") for p, s in zip(prompts, seeds, strict=True)]
    c = condition(backbone, prompts, settings.negative_prompt, settings.guidance_scale)
    for index, (top, left) in enumerate(windows.corners):
        place = (..., slice(top, top + windows.size), slice(left, left + windows.size))
        known = (canvas[place], done[place])
        canvas[place] = outpaint(backbone, noise[place], *known, c, settings.steps, settings.start, generators)
        done[place] = True
        if on_step is not None:
            on_step(Step(index, len(windows), 0))
    return canvas


def generate(
    backbone: Backbone,
    prompts: Sequence[str],
    seeds: Sequence[int],
    settings: BlendedLatentSettings,
    on_step: OnStep | None = None,
) -> Tensor:
    """Panoramas [n, 3, height, width] in [0, 1] on the CPU; arguments as in syncdiffusion.sync.

    `on_step` is called after every window rather than after every denoising step.
    """
    return decode_canvas(backbone, sample_latents(backbone, prompts, seeds, settings, on_step))


def evaluations(settings: BlendedLatentSettings, window: int, factor: int) -> Evaluations:
    """Network evaluations of one panorama; see syncdiffusion.sync. The first window alone has all steps."""
    height, width = settings.height // factor, settings.width // factor
    count = len(window_corners(height, width, window, hop_of(settings, window)))
    outpainted = settings.steps - int(settings.start * settings.steps)
    canvas = plain(count, outpainted, settings.height, settings.width, window * factor)
    return canvas + Evaluations(unet=settings.steps - outpainted)
