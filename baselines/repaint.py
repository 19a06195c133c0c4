"""RePaint (Lugmayr et al., CVPR 2022, arXiv 2201.09865) as extrapolation, window after window.

The canvas is filled as in `blended_latent`: the first window is an ordinary sample, each later one has `overlap` of
itself known from what is there already. RePaint needs no model trained for it. A window goes down the noise levels by
DDPM; before each step but its first the known cells are replaced by the known latents, freshly noised to that step's
level, and to bring the rest into harmony with them the way is gone back up again and again (`joint.resampling`). With a
mask other methods do so, too.

The levels are the sampler's steps. The authors' code (andreas128/RePaint@8e2a055) has 250 of them, in pixels; here they
are latents of however many steps all methods have, and where there are no more than `jump_length` there is no jump. It
does not put the known pixels back at the end; here they are, so that what was there never changes. Its masks keep a
half or a frame; windows that slide along a canvas by `overlap` are this project's use of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from baselines.blended_latent import corners, extrapolated
from syncdiffusion.cost import NetworkCalls, Square, joint_calls
from syncdiffusion.joint.resampling import levels, passes
from syncdiffusion.method import Method
from syncdiffusion.method_settings import SAMPLERS, SamplingSettings
from syncdiffusion.settings import setting

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from syncdiffusion.geometry.windows import Windows
    from syncdiffusion.joint.task import Step, Task


@dataclass(frozen=True)
class RepaintSettings(SamplingSettings):
    """Settings of one panorama by RePaint; it is DDPM unless another sampler is asked for by name."""

    sampler: str = setting("ddpm", "how a step goes from noise to less noise; the paper's is ddpm", choices=SAMPLERS)
    overlap: float = setting(0.5, "share of a window that is known already", above=0, below=1)
    jump_length: int = setting(10, "levels that a window climbs when it goes back", least=1)
    jump_n_sample: int = setting(10, "how often each stretch of levels is gone down; 1 never goes back", least=1)


def sample(task: Task, settings: RepaintSettings) -> Tensor:
    """Denoised canvases [n, c, h, w]; `on_step` is told of every window rather than of every denoising step.

    Raises:
        UsageError: a canvas that the windows cannot cover, an overlap of less than a cell.
    """
    generators = task.generators("repaint")

    def fill(window: Windows, known: Tensor, mask: Tensor) -> Tensor:
        # The first window has nothing to be in harmony with.
        way = levels(len(task.steps), settings.jump_length, settings.jump_n_sample if mask.any() else 1)
        return repaint(task, window.crop(task.noise)[:, 0], known, mask, way, generators)

    return extrapolated(task, settings, fill)


def repaint(
    task: Task,
    start: Tensor,
    known: Tensor,
    mask: Tensor,
    way: Sequence[int],
    generators: Sequence[torch.Generator],
) -> Tensor:
    """Denoise one window of each panorama around what is known of it.

    Args:
        start: pure noise [n, c, s, s].
        known: clean latents [n, c, s, s], used where `mask` [s, s] is True.
        way: the levels that it visits, as `levels` has them.
        generators: one CPU generator per panorama, for noise on known cells and on the way up.

    Returns:
        clean latents [n, c, s, s], equal to `known` under the mask.
    """
    import torch

    from syncdiffusion.geometry.windows import place_windows
    from syncdiffusion.joint.loop import denoise
    from syncdiffusion.joint.noise import draw_normal, noised

    of_level, order = task.steps[::-1], passes(way)
    at = -1

    def fresh() -> Tensor:
        return draw_normal(generators, tuple(known.shape[1:])).to(known)

    def put_known(step: Step, views: Tensor) -> Tensor:
        nonlocal at
        at += 1
        if at == 0 or not mask.any():
            return views
        return torch.where(mask, noised(known, fresh(), task.signal(step))[:, None], views)

    def climb(step: Step, x: Tensor) -> Tensor:
        for level in order[at][1]:
            x = noised(x, fresh(), task.signal(of_level[level]) / task.signal(of_level[level - 1]))
        return x

    size = start.shape[-1]
    found = denoise(
        task.quiet(), place_windows(size, size, size, size), start=start,
        schedule=[of_level[level] for level, _ in order], before=put_known, canvas=climb,
    )  # fmt: skip
    return torch.where(mask, known, found)


def calls(settings: RepaintSettings, square: Square) -> NetworkCalls:
    """Network calls of one panorama. The first window goes straight down."""
    count, way = len(corners(settings, square)), levels(settings.steps, settings.jump_length, settings.jump_n_sample)
    later = joint_calls(count - 1, len(passes(way)), settings.height, settings.width, square)
    return later + NetworkCalls(unet=settings.steps)


METHOD = Method(
    name="repaint",
    title="RePaint",
    settings=RepaintSettings,
    sample=sample,
    calls=calls,
    corners=corners,
    source="Lugmayr et al., CVPR 2022, arXiv 2201.09865, as extrapolation: resampled window after window",
    mark=("#b8860b", "s"),
)
