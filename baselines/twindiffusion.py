"""TwinDiffusion (ECAI 2024, arXiv 2404.19475; code: 0606zt/TwinDiffusion@db0eb64).

MultiDiffusion with two changes:

1. Cross sampling: the windows lie at one of `sets` sets of places, in turn. In step i, all windows of a row but its
   first and last lie (i mod sets) · stride / sets cells further to the right.
2. Crop fusion, in the first `crop` share of the steps: from left to right, each denoised window takes over what its
   left neighbour has where the two overlap,

       x'_j  <-  (x'_(j-1) + own · x'_j) / (1 + own)    on the overlap, with what x'_(j-1) is by then,

   before all are averaged. So windows further left count more: at a stride of a quarter of a window and own = 1, the
   four windows of a cell count .469, .219, .188 and .125 from left to right.

Defaults are the released code's: stride 16, two sets, half of the steps, own = 1. (It reads the number of sets from the
command line and then does not use it.) Where a row has two windows, both are its ends and stay; there, the released
code moves one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from syncdiffusion.cost import NetworkCalls, Square, joint_calls
from syncdiffusion.errors import UsageError
from syncdiffusion.method import Corners, Method, overlapping_corners
from syncdiffusion.method_settings import (
    JointSettings,
    StartSettings,
    first_steps,
    stride_setting,
    window_batch_setting,
)
from syncdiffusion.settings import setting

if TYPE_CHECKING:
    from torch import Tensor

    from syncdiffusion.geometry.windows import Windows
    from syncdiffusion.joint.task import Step, Task


@dataclass(frozen=True)
class TwinDiffusionSettings(StartSettings, JointSettings):
    """Settings of one TwinDiffusion panorama."""

    stride: int = stride_setting()
    sets: int = setting(2, "of places that the windows take in turn; 1 is none but the usual", least=1)
    crop: float = setting(0.5, "share of the steps, the first ones, with crop fusion", least=0, most=1)
    own: float = setting(1.0, "weight of a window's own values against its left neighbour's", least=0)
    window_batch: int | str = window_batch_setting()


def sample(task: Task, settings: TwinDiffusionSettings) -> Tensor:
    """Denoised canvases [n, c, h, w]; UsageError for a canvas that the windows cannot cover."""
    from syncdiffusion.joint.loop import denoise

    usual = task.windows(settings.stride)
    check_sets(settings, usual.size, usual.width)
    places = [
        replace(usual, corners=moved(usual.corners, usual.width - usual.size, index * settings.stride // settings.sets))
        for index in range(settings.sets)
    ]

    def windows(step: Step) -> Windows:
        return places[step.index % settings.sets]

    def fuse(step: Step, placed: Windows, views: Tensor) -> Tensor:
        if step.index < first_steps(settings.crop, step.count):
            views = crop_fused(placed, views, settings.own)
        return placed.fuse(views)

    return denoise(task, windows, fuse=fuse)


def moved(corners: Corners, last: int, cells: int) -> Corners:
    """Windows that are neither at the left end nor at the right one, `last`, moved to the right."""
    return tuple((top, left + cells if 0 < left < last else left) for top, left in corners)


def crop_fused(windows: Windows, views: Tensor, own: float) -> Tensor:
    """Windows [n, N, c, s, s] that took over their left neighbours' values, one after the other."""
    views = views.clone()
    for j, (_, left) in enumerate(windows.corners):
        if left > 0:
            overlap = windows.size - (left - windows.corners[j - 1][1])  # rows of windows are numbered from the left
            neighbour = views[:, j - 1, ..., windows.size - overlap :]
            views[:, j, ..., :overlap] = (neighbour + own * views[:, j, ..., :overlap]) / (1 + own)
    return views


def check_sets(settings: TwinDiffusionSettings, window: int, width: int) -> None:
    """UsageError for sets that would leave a gap after the first window of a row, or differ by less than a cell."""
    inner = settings.stride < width - window  # a row has more than its two ends
    furthest = settings.stride + (settings.sets - 1) * settings.stride // settings.sets
    if inner and (furthest > window or settings.sets > settings.stride):
        raise UsageError(
            f"sets={settings.sets}: with stride={settings.stride} and windows of {window} cells they would leave gaps "
            "or lie in one place; use a smaller stride or fewer sets"
        )


def corners(settings: TwinDiffusionSettings, square: Square) -> Corners:
    """The windows of the first step; UsageError where they, or those of another step, cannot cover the canvas."""
    usual = overlapping_corners(settings, square)
    check_sets(settings, square.window, settings.width // square.factor)
    return usual


def calls(settings: TwinDiffusionSettings, square: Square) -> NetworkCalls:
    """Network calls of one panorama."""
    return joint_calls(len(corners(settings, square)), len(settings.passes), settings.height, settings.width, square)


METHOD = Method(
    name="twindiffusion",
    title="TwinDiffusion",
    settings=TwinDiffusionSettings,
    sample=sample,
    calls=calls,
    corners=corners,
    source="ECAI 2024, arXiv 2404.19475: windows pulled to their left neighbours, at two sets of places in turn",
    mark=("#cc6677", "p"),
    moving=True,
)
