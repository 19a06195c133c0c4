"""Blended Latent Diffusion (Avrahami et al., SIGGRAPH 2023) as extrapolation.

The paper's recipe (window, overlap, mask) is not public (PROTOCOL.md, section 2). This is ours:

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

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from syncdiffusion.cost import NetworkCalls, Square, joint_calls
from syncdiffusion.errors import UsageError
from syncdiffusion.geometry.sizes import check_pixels, window_corners
from syncdiffusion.method import Corners, Method
from syncdiffusion.method_settings import JointSettings, whole_steps
from syncdiffusion.settings import setting

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from syncdiffusion.geometry.windows import Windows
    from syncdiffusion.joint.task import Task


# (where a window lies, what is known of it [n, c, s, s], where it is [s, s]) -> clean latents, as known there
Fill = Callable[["Windows", "Tensor", "Tensor"], "Tensor"]


@dataclass(frozen=True)
class BlendedLatentSettings(JointSettings):
    """Settings of one panorama by repeated outpainting."""

    overlap: float = setting(0.5, "share of a window that is known already", above=0, below=1)
    start: float = setting(0.25, "share of the schedule that outpainted windows skip", least=0, below=1)


def sample(task: Task, settings: BlendedLatentSettings) -> Tensor:
    """Denoised canvases [n, c, h, w]; `on_step` is told of every window rather than of every denoising step.

    Raises:
        UsageError: a canvas that the windows cannot cover, an overlap of less than a cell.
    """
    generators = task.generators("blend")

    def fill(window: Windows, known: Tensor, mask: Tensor) -> Tensor:
        return outpaint(task, window, known, mask, settings.start, generators)

    return extrapolated(task, settings, fill)


def extrapolated(task: Task, settings: Any, fill: Fill) -> Tensor:
    """Canvases [n, c, h, w] that are filled window after window; `on_step` is told of every window.

    Args:
        settings: have an `overlap`.
        fill: makes a window of each panorama around what is known of it.

    Raises:
        UsageError: a canvas that the windows cannot cover, an overlap of less than a cell.
    """
    import torch

    from syncdiffusion.joint.task import Step

    windows = task.windows(hop_of(settings, task.backbone.window))
    canvas = task.noise.clone()
    done = torch.zeros(windows.height, windows.width, dtype=torch.bool, device=canvas.device)
    for index, (top, left) in enumerate(windows.corners):
        window = replace(windows, corners=((top, left),))
        place = (..., slice(top, top + windows.size), slice(left, left + windows.size))
        canvas[place] = fill(window, canvas[place], done[place])
        done[place] = True
        canvas = task.told(Step(index, len(windows), 0), canvas)
    return canvas


def outpaint(
    task: Task,
    window: Windows,
    known: Tensor,
    mask: Tensor,
    start: float,
    generators: Sequence[torch.Generator],
) -> Tensor:
    """Denoise one window of each panorama around what is known of it.

    Args:
        window: where it lies; it begins as the pure noise of the canvas there.
        known: clean latents [n, c, s, s], used where `mask` [s, s] is True.
        generators: one CPU generator per panorama, for the noise on the known cells.

    Returns:
        clean latents [n, c, s, s], equal to `known` under the mask.
    """
    import torch

    from syncdiffusion.joint.noise import draw_normal, noised

    latents = window.crop(task.noise)[:, 0]
    steps = task.steps[whole_steps(start, len(task.steps)) if mask.any() else 0 :]
    for step, following in zip(steps, [*steps[1:], None], strict=True):
        noise = task.predict_noise(step, window, latents[:, None])[:, 0]
        with torch.no_grad():
            latents = task.advance(step, latents, noise)
        if following is not None and mask.any():
            fresh = draw_normal(generators, known.shape[1:]).to(known)
            latents = torch.where(mask, noised(known, fresh, task.signal(following)), latents)
    return torch.where(mask, known, latents)


def hop_of(settings: Any, window: int) -> int:
    """Latent cells from one window of `window` cells to the next, of settings with an `overlap`.

    Raises:
        UsageError: the windows would not overlap.
    """
    hop = window - round(settings.overlap * window)
    if not 0 < hop < window:
        raise UsageError(f"overlap={settings.overlap}: less than one latent cell of a window of {window}")
    return hop


def corners(settings: Any, square: Square) -> Corners:
    """Where the windows lie, one after the other; UsageError where they cannot cover the canvas."""
    hop = hop_of(settings, square.window)
    height, width = (
        check_pixels(name, getattr(settings, name), square.factor, square.window, hop) for name in ("height", "width")
    )
    return window_corners(height, width, square.window, hop)


def calls_of_first(settings: BlendedLatentSettings, square: Square) -> float:
    """Those of `calls` that are of the first window alone, which skips no step."""
    return whole_steps(settings.start, settings.steps)


def calls(settings: BlendedLatentSettings, square: Square) -> NetworkCalls:
    """Network calls of one panorama. The first window alone has all steps."""
    outpainted = settings.steps - whole_steps(settings.start, settings.steps)
    count = len(corners(settings, square))
    canvas = joint_calls(count, outpainted, settings.height, settings.width, square)
    return canvas + NetworkCalls(unet=calls_of_first(settings, square))


METHOD = Method(
    name="blended_latent",
    title="Blended latent diffusion",
    settings=BlendedLatentSettings,
    sample=sample,
    calls=calls,
    calls_of_first=calls_of_first,
    corners=corners,
    source="Avrahami et al., SIGGRAPH 2023, arXiv 2206.02779, as extrapolation: outpainted window after window",
    mark=("#009e73", "^"),
)
