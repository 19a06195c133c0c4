"""SaFa (ICCV 2025, arXiv 2502.05130), as described by others: no official code was found.

Windows are not averaged, they are swapped. Where two neighbours overlap, columns come from the right one and the left
one in turn, `swap_width` columns each, so that no column is a blurred mean of two. This is the self-loop swap:

    column m = 1 ... overlap is the left window's where v_m = 1, else the right one's
    v_m = (1 - (-1)^floor((m - 1) / swap_width)) / 2

In the first `guided` share of the steps, the rest of every window also swaps with a reference: one further window that
is denoised beside them, from noise of its own. Of its rows, by the same rule, those with v_m = 1 are copied into the
columns that a window shares with no other. This is the reference-guided swap. The reference belongs to no place: it is
told the canvas' prompt alone, nothing of a layout's regions or a control image.

Which rows are copied, the swap's width there, and whether the two ends of a panorama are swapped as well (they are not
here) are not known. An overlap of a fifth is said to be enough; the default is the least from there on with which
windows cover the canvas: three eighths for windows of 64 and 3072 px, a quarter for those of 128 and 4096 px. Steps and
guidance are those that all methods are compared at.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from baselines.blended_latent import corners as overlap_corners
from baselines.blended_latent import hop_of
from syncdiffusion.cost import NetworkCalls, Square, joint_calls
from syncdiffusion.geometry.sizes import check_one_row
from syncdiffusion.method import Corners, Method
from syncdiffusion.method_settings import JointSettings, first_steps, window_batch_setting
from syncdiffusion.settings import setting

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from syncdiffusion.geometry.windows import Windows
    from syncdiffusion.joint.task import Step, Task


@dataclass(frozen=True)
class SafaSettings(JointSettings):
    """Settings of one SaFa panorama, one window high."""

    overlap: float | None = setting(
        None, "share of a window that it has in common with the next", above=0, most=0.5,
        null="the least from a fifth on with which windows cover the canvas",
    )  # fmt: skip
    swap_width: int = setting(1, "columns (and rows of the reference) that are taken at a time", least=1)
    guided: float = setting(0.3, "share of the steps, the first ones, that swap with the reference", least=0, most=1)
    window_batch: int | str = window_batch_setting()


def sample(task: Task, settings: SafaSettings) -> Tensor:
    """Denoised canvases [n, c, h, w]; UsageError for a canvas that the windows cannot cover in one row."""
    from syncdiffusion.conditioning.canvas import CanvasConditioning
    from syncdiffusion.joint.loop import denoise
    from syncdiffusion.joint.noise import draw_normal

    square = Square(task.backbone.window, task.backbone.factor)
    windows = task.windows(hop_of(with_overlap(settings, square), square.window))
    check_one_row(settings.height, square.pixels)
    taken, alone = swap_masks(windows, settings.swap_width)
    taken, alone = taken.to(task.noise), alone.to(task.noise.device)
    one = replace(windows, corners=windows.corners[:1])
    shape = (task.noise.shape[1], windows.size, windows.size)
    reference = task.sampler.start_scale * draw_normal(task.generators("reference"), shape).to(task.noise)
    anywhere = replace(task, conditioning=CanvasConditioning(task.conditioning.text))

    def advance(step: Step, views: Tensor, noise: Tensor) -> Tensor:
        nonlocal reference
        moved = task.advance(step, views, noise)
        if step.index < first_steps(settings.guided, step.count):
            predicted = anywhere.predict_noise(step, one, reference[:, None])[:, 0]
            # As latents of no window, of which a sampler remembers and draws nothing that is a window's.
            reference = task.advance(step, reference, predicted)
            moved = reference[:, None].where(alone[:, None], moved)
        return moved

    def fuse(step: Step, placed: Windows, views: Tensor) -> Tensor:
        return placed.fuse(views, taken)

    return denoise(task, windows, advance=advance, fuse=fuse)


def with_overlap(settings: SafaSettings, square: Square) -> SafaSettings:
    """The same settings with a number for the overlap."""
    if settings.overlap is not None:
        return settings
    window, width = square.window, settings.width / square.factor
    hops = [hop for hop in range(int(0.8 * window), (window - 1) // 2, -1) if (width - window) % hop == 0]
    # Where none covers it, the refusal names a width that windows of 3072 px's overlap do.
    return replace(settings, overlap=1 - hops[0] / window if hops else 0.375)


def swap_masks(windows: Windows, swap_width: int) -> tuple[Tensor, torch.Tensor]:
    """Which cells the canvas takes from which window, and which a window takes from the reference.

    Returns:
        [N, size, size] of 1 and 0, a single 1 for each cell of the canvas; [N, size, size] of booleans.
    """
    import torch

    lefts = [left for _, left in windows.corners]
    count, size, hop = len(lefts), windows.size, lefts[1] - lefts[0] if len(lefts) > 1 else windows.size
    overlap = size - hop
    turn = torch.arange(size) // swap_width % 2  # v_m, counted from m - 1 = 0
    taken, alone = torch.ones(count, size, size), torch.zeros(count, size, size, dtype=torch.bool)
    taken[:-1, :, hop:] = turn[:overlap].float()
    taken[1:, :, :overlap] = 1 - turn[:overlap].float()
    alone[:, turn.bool()] = True
    alone[:-1, :, hop:] = False
    alone[1:, :, :overlap] = False
    return taken, alone


def corners(settings: SafaSettings, square: Square) -> Corners:
    """Where the windows lie; UsageError where they cannot cover the canvas in one row."""
    found = overlap_corners(with_overlap(settings, square), square)
    check_one_row(settings.height, square.pixels)
    return found


def calls(settings: SafaSettings, square: Square) -> NetworkCalls:
    """Network calls of one panorama, the reference included."""
    count = len(corners(settings, square))
    canvas = joint_calls(count, settings.steps, settings.height, settings.width, square)
    return canvas + NetworkCalls(unet=calls_of_none(settings, square))


def calls_of_none(settings: SafaSettings, square: Square) -> float:
    """Those of `calls` that are of no window: the reference's."""
    return first_steps(settings.guided, settings.steps)


METHOD = Method(
    name="safa",
    title="SaFa",
    settings=SafaSettings,
    sample=sample,
    calls=calls,
    calls_of_none=calls_of_none,
    corners=corners,
    source="ICCV 2025, arXiv 2502.05130, as described by others: columns and rows swapped instead of averaged",
    mark=("#aa4499", "<"),
)
