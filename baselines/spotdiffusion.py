"""SpotDiffusion (Frolov et al., WACV 2025, arXiv 2407.15507): disjoint windows whose places change at every step.

Windows side by side need a sixth of MultiDiffusion's network calls at the paper's sizes, and leave a seam wherever two
meet. So at every step all windows are moved along the canvas, around its edge, by a shift drawn at random: no seam lies
at one place twice, and the steps that follow smooth it.

The official code rolls the canvas instead of moving the windows, and never rolls it back, so that its picture is a
random rotation of this one; it draws the shifts from the global generator, here each panorama has a generator of its
own. Columns that no window covers are zero there; here such a width is refused. Rows of windows would never meet,
since shifts go sideways alone: a higher canvas is refused, too. As the windows go around the edge, left and right end
of the latents meet, and the canvas is decoded as the ring that it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from syncdiffusion.cost import NetworkCalls, Square, joint_calls
from syncdiffusion.geometry.sizes import check_one_row, check_pixels, window_corners
from syncdiffusion.method import Corners, Method
from syncdiffusion.method_settings import JointSettings, StartSettings, window_batch_setting

if TYPE_CHECKING:
    from torch import Tensor

    from syncdiffusion.geometry.windows import Windows
    from syncdiffusion.joint.task import Step, Task


@dataclass(frozen=True)
class SpotDiffusionSettings(StartSettings, JointSettings):
    """Settings of one SpotDiffusion panorama, one window high; its width is a multiple of the model's square."""

    window_batch: int | str = window_batch_setting()


def sample(task: Task, settings: SpotDiffusionSettings) -> Tensor:
    """Denoised canvases [n, c, h, w]; UsageError for a canvas that squares do not tile in one row."""
    import torch

    from syncdiffusion.joint.loop import denoise

    check_one_row(settings.height, task.backbone.window * task.backbone.factor)
    tiles = task.windows(stride=task.backbone.window)
    generators = task.generators("shift")
    shifts = [0] * len(generators)

    def windows(step: Step) -> Windows:
        if step.index > 0:
            for i, generator in enumerate(generators):
                shifts[i] += int(torch.randint(tiles.width, (), generator=generator))
        return tiles.shifted(shifts)

    return denoise(task, windows)


def corners(settings: Any, square: Square) -> Corners:
    """The squares side by side, before any shift; UsageError where they do not fill the canvas, or it is higher."""
    check_one_row(settings.height, square.pixels)
    width = check_pixels("width", settings.width, square.factor, square.window, square.window)
    return window_corners(square.window, width, square.window, square.window)


def calls(settings: SpotDiffusionSettings, square: Square) -> NetworkCalls:
    """Network calls of one panorama."""
    count = len(corners(settings, square))
    return joint_calls(count, len(settings.passes), settings.height, settings.width, square)


METHOD = Method(
    name="spotdiffusion",
    title="SpotDiffusion",
    settings=SpotDiffusionSettings,
    sample=sample,
    calls=calls,
    corners=corners,
    source="Frolov et al., WACV 2025, arXiv 2407.15507: disjoint windows, shifted at random from step to step",
    mark=("#56b4e9", "P"),
    moving=True,
    closed=lambda settings: True,
)
