"""DiffCollage (Zhang et al., CVPR 2023, arXiv 2303.17076): a canvas as a factor graph of windows and overlaps.

Windows lie half a window apart, and the canvas's distribution is taken for a Markov chain of half windows. Then
log p(canvas) is the sum of the windows' log p minus that of the overlaps', which were counted twice, and so are the
scores and the noise predictions:

    chain   noise = sum over n windows of noise(window) - sum over n - 1 overlaps of noise(overlap)
    ring    the same with n overlaps, the last of them around the edge; n half windows are the canvas's width

each put in its place with zeros around it. The overlap's noise is the network's own for an input half as wide. If it
were the mean of what two windows say of it, the sum would be MultiDiffusion's average.

The authors' code (sbyebss/DiffCollage@80a7d11) leaves the ring's last overlap out and averages its ends instead; here
is the published formula. It samples by 40 stochastic Heun steps of EDM; here it is the sampler that all methods have.
Text-to-image with guidance is this project's: both terms have it, and a model trained on squares alone does not
know inputs half as wide.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from syncdiffusion.cost import NetworkCalls, Square, joint_calls
from syncdiffusion.errors import UsageError
from syncdiffusion.geometry.sizes import check_one_row, check_pixels
from syncdiffusion.method import Corners, Method
from syncdiffusion.method_settings import StartSettings, window_batch_setting
from syncdiffusion.settings import setting

if TYPE_CHECKING:
    from torch import Tensor

    from syncdiffusion.joint.task import Step, Task


@dataclass(frozen=True)
class DiffCollageSettings(StartSettings):
    """Settings of one DiffCollage panorama: one window high, a whole number of half windows wide."""

    ring: bool = setting(False, "the right edge goes on at the left")
    window_batch: int | str = window_batch_setting()


def sample(task: Task, settings: DiffCollageSettings) -> Tensor:
    """Denoised canvases [n, c, h, w]; UsageError for a canvas that is not one window high and half windows wide."""
    from syncdiffusion.geometry.windows import Windows
    from syncdiffusion.joint.loop import denoise

    size, factor = task.backbone.window, task.backbone.factor
    places = corners(settings, Square(size, factor))
    height, width = settings.height // factor, settings.width // factor
    windows, half = Windows(height, width, size, places), size // 2
    shared = replace(windows, corners=tuple((top, left + half) for top, left in places))
    shared = shared if settings.ring else replace(shared, corners=shared.corners[:-1])

    def predict(step: Step, placed: Windows, views: Tensor) -> Tensor:
        of_windows = task.predict_noise(step, placed, views)
        if not shared.corners:
            return of_windows
        # The right half of each window but, in a chain, the last.
        overlaps = views[:, : len(shared), ..., half:].contiguous()
        return placed.crop(compose(of_windows, task.predict_noise(step, shared, overlaps), width))

    return denoise(task, windows, predict=predict)


def compose(windows: Tensor, overlaps: Tensor, width: int) -> Tensor:
    """The noise, or score, of a canvas from its parts'.

    Args:
        windows: [n, N, c, s, s], half a window apart from the left edge on.
        overlaps: of each with the next, [n, N - 1, c, s, s / 2] in a chain, N of them in a ring.
        width: of the canvas in cells.

    Returns:
        [n, c, s, width].
    """
    import torch

    half = overlaps.shape[-1]
    canvas = windows.new_zeros(len(windows), *windows.shape[2:4], width)
    for j in range(windows.shape[1]):
        canvas[..., torch.arange(j * half, (j + 2) * half) % width] += windows[:, j]
    for j in range(overlaps.shape[1]):
        canvas[..., torch.arange((j + 1) * half, (j + 2) * half) % width] -= overlaps[:, j]
    return canvas


def corners(settings: DiffCollageSettings, square: Square) -> Corners:
    """The windows, from left to right; UsageError for a canvas that is not one window high and half windows wide."""
    half = square.window // 2
    if 2 * half != square.window:
        raise UsageError(f"diffcollage: halves windows, and this model's have {square.window} cells; use another model")
    width = check_pixels("width", settings.width, square.factor, square.window, half)
    check_one_row(settings.height, square.pixels)
    if settings.ring and width < 3 * half:
        raise UsageError(f"width={settings.width}: a ring has three windows; use {3 * half * square.factor} or more")
    return tuple((0, left) for left in range(0, width if settings.ring else width - half, half))


def calls(settings: DiffCollageSettings, square: Square) -> NetworkCalls:
    """Network calls of one panorama; an overlap is half a window."""
    count = len(corners(settings, square))
    count_of_overlaps = count if settings.ring else count - 1
    canvas = joint_calls(count, len(settings.passes), settings.height, settings.width, square)
    return canvas + NetworkCalls(unet=count_of_overlaps / 2 * len(settings.passes))


METHOD = Method(
    name="diffcollage",
    title="DiffCollage",
    settings=DiffCollageSettings,
    sample=sample,
    calls=calls,
    corners=corners,
    source="Zhang et al., CVPR 2023, arXiv 2303.17076: windows' scores minus their overlaps'",
    mark=("#4b0092", "^"),
    closed=lambda settings: bool(settings.get("ring")),
)
