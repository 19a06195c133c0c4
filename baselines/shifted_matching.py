"""Shifted profile matching: coherence at about a third of MultiDiffusion's network calls. This project's own method.

Three parts, each cheap:

1. Few windows. MultiDiffusion covers a cell with as many windows as fit; here neighbours share `overlap` of a window.
2. They move. With a stride of d cells, step i has a window floor((i · phi mod 1) · d) right of the middle and others
   every d, those at the ends held within the canvas; phi is the golden ratio's 0.618, so that later borders fall into
   the widest gaps of earlier ones, in any number of steps. Rows of windows on a higher canvas move likewise by
   sqrt(2). What a network makes at its border is an artefact of its padding, so windows are averaged with weights that
   fall to their sides over `fade` of a window (`geometry.weights.faded`).
3. The anchor's profile. Of the canvas's foreseen latents x0, averaged with the same weights, m_u and d_u are mean and
   deviation of each channel and row of cells over the window's width of columns around column u, within the canvas; m
   and d are those of the columns where the window nearest the middle lies.

       goal_u = m + (x0_u - m_u) · d / d_u
       x0_u <- x0_u + strength · decay^i · (goal_u - x0_u),    x_u <- x_u + sqrt(alpha_bar_t) · the same

   with the noise prediction held constant, as in `profile_matching`, which matches window by window.

Why so, as seen on the embedded miniature: disjoint windows that move (SpotDiffusion) leave bands of another colour at
their first borders, with this matching too; a small overlap and weights that fall leave none. The anchor must be what
one window foresees: of columns where two meet, the profile is a compromise that neither would have made, which is why
the first step has a window in the middle. That window's own foreseen latents, not averaged, have its border's artefacts
in their deviation, and matched to them all columns gain contrast.

How strong: more is more coherent and repeats the layout more, for every method along much the same curve. At 0.25 this
one lies where profile matching does in both, on prompts that no table has (results/mini/ablation_fastest).

The places depend on the step alone, so that nothing is drawn but the noise that all methods share, and any width and
height from a window on can be covered. Both ends are open: this makes no ring.

Where it fails: rows of the canvas are what is matched. A picture whose rows mean nothing (seen from above, a pattern, a
tilted horizon) is made alike along them all the same, and one that should change from left to right (a sunrise at one
end alone) is kept from it. Where windows lie above each other, rows of the canvas still are rows of the picture, which
is left as different from top to bottom as the windows make it; `profile_matching` gives every window the centre
window's sky and ground, at whatever height it lies.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from baselines.profile_matching import RATIOS
from syncdiffusion.cost import NetworkCalls, Square
from syncdiffusion.geometry.sizes import check_pixels
from syncdiffusion.method import Corners, Method
from syncdiffusion.method_settings import (
    JointSettings,
    StartSettings,
    decay_setting,
    first_n_setting,
    window_batch_setting,
)
from syncdiffusion.settings import setting

if TYPE_CHECKING:
    from torch import Tensor

    from syncdiffusion.geometry.windows import Windows
    from syncdiffusion.joint.task import Step, Task

ALONG, DOWN = (math.sqrt(5) - 1) / 2, math.sqrt(2) - 1  # by what share of a stride windows move from step to step


@dataclass(frozen=True)
class ShiftedMatchingSettings(StartSettings, JointSettings):
    """Settings of one panorama by shifted profile matching; any height and width from the model's square on."""

    overlap: float = setting(0.125, "share of a window that neighbouring windows have in common", least=0, below=1)
    shifted: bool = setting(True, "windows lie elsewhere at every step")
    fade: float = setting(
        0.25, "share of a window over which its weight falls to each side; 0 counts all alike", least=0, most=0.5
    )
    strength: float = setting(
        0.25, "step i takes strength · decay^i of the way to the anchor's profile", least=0, most=1
    )
    decay: float = decay_setting()
    first_n: int | None = first_n_setting()
    window_batch: int | str = window_batch_setting()


def sample(task: Task, settings: ShiftedMatchingSettings) -> Tensor:
    """Denoised canvases [n, c, h, w]; UsageError for a canvas that is smaller than a window."""
    from syncdiffusion.geometry.weights import faded
    from syncdiffusion.geometry.windows import Windows
    from syncdiffusion.joint.loop import denoise

    square = Square(task.backbone.window, task.backbone.factor)
    size, weights = square.window, faded(square.window, settings.fade)
    height, width = cells(settings, square)

    def windows(step: Step) -> Windows:
        return Windows(height, width, size, corners(settings, square, step.index))

    def match(step: Step, views: Tensor, noise: Tensor) -> Tensor:
        share = settings.strength * settings.decay**step.index
        if share == 0 or (settings.first_n is not None and step.index >= settings.first_n):
            return views
        placed = windows(step)
        x0 = placed.fuse(task.foresee(step, views, noise), weights)
        nearest = min((left for _, left in placed.corners), key=lambda left: abs(left - (width - size) // 2))
        move = toward_profile(x0, x0[..., nearest : nearest + size], share)
        return views + task.signal(step).sqrt() * placed.crop(move)

    def fuse(step: Step, placed: Windows, views: Tensor) -> Tensor:
        return placed.fuse(views, weights)

    return denoise(task, windows, after=match, fuse=fuse)


def toward_profile(x0: Tensor, anchor: Tensor, share: float) -> Tensor:
    """What `share` (0 to 1) of the way to the anchor's profile adds to foreseen canvases.

    Args:
        x0: the canvases [n, c, h, w].
        anchor: what has the profile, [n, c, h, s] with s <= w; s columns of x0 count as one column's profile.

    Returns:
        [n, c, h, w].
    """
    import torch
    from torch.nn.functional import avg_pool2d

    width, reach = x0.shape[-1], anchor.shape[-1]
    values, theirs = x0.float(), anchor.float()
    level = values.mean(dim=-1, keepdim=True)  # taken out, for a square's mean less the mean's square is else rounding
    begins = [min(max(column - reach // 2, 0), width - reach) for column in range(width)]
    mean = avg_pool2d(values - level, (1, reach), stride=1)[..., begins]
    square = avg_pool2d((values - level).square(), (1, reach), stride=1)[..., begins]
    deviation, mean = (square - mean.square()).clamp(min=1e-12).sqrt(), mean + level
    wanted, goal = torch.std_mean(theirs, dim=-1, correction=0, keepdim=True)
    ratio = (wanted / deviation).clamp(*RATIOS)
    return (share * (goal + (values - mean) * ratio - values)).to(x0.dtype)


def cells(settings: Any, square: Square) -> tuple[int, int]:
    """Height and width of the canvas in latent cells; UsageError for parts of cells and for less than a window."""
    height, width = (
        check_pixels(name, getattr(settings, name), square.factor, square.window, 1) for name in ("height", "width")
    )
    return height, width


def corners(settings: ShiftedMatchingSettings, square: Square, step: int = 0) -> Corners:
    """(top, left) of the windows of a step, row by row; UsageError as `cells`."""
    stride = max(1, int(round(square.window * (1 - settings.overlap), 6)))  # 0.9 · 10 is 8.999...
    moved = step if settings.shifted else 0
    height, width = cells(settings, square)
    tops = places(height, square.window, stride, int(moved * DOWN % 1 * stride))
    lefts = places(width, square.window, stride, int(moved * ALONG % 1 * stride))
    return tuple((top, left) for top in tops for left in lefts)


def places(length: int, size: int, stride: int, shift: int) -> list[int]:
    """Where windows of `size` begin that cover `length`: one in the middle and every `stride`, moved by `shift`.

    Those that would stand out at either end are held within.
    """
    last = length - size
    first = (last // 2 + shift) % stride - stride
    return sorted({min(max(at, 0), last) for at in range(first, last + stride, stride)})


def calls(settings: ShiftedMatchingSettings, square: Square) -> NetworkCalls:
    """Network calls of one panorama; steps differ by a window in a row."""
    windows = sum(len(corners(settings, square, step)) for step in settings.passes)
    return NetworkCalls(unet=windows, decoder=settings.height * settings.width / square.pixels**2)


METHOD = Method(
    name="shifted_matching",
    title="Shifted profile matching",
    settings=ShiftedMatchingSettings,
    sample=sample,
    calls=calls,
    corners=corners,
    source="this project: few windows that move at every step, and rows matched along the whole foreseen canvas",
    mark=("#cc3311", "*"),
    moving=True,
    closed=lambda settings: False,
)
