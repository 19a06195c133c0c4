"""SyncSDE (CVPR 2025, arXiv 2503.21555; code: hjl1013/SyncSDE@a8ba145), wide images.

Nothing is averaged. Every window keeps latents of its own, and after each step all but the first are drawn to their
left neighbour where the two overlap (columns 0 to size - stride - 1 of a window, stride to size - 1 of the neighbour):

    x'_j  <-  x'_j - gamma · kappa · t / t_max · (x_j - x_(j-1))
    gamma = sqrt(alpha_bar' / alpha_bar) - sqrt((1 - alpha_bar') / (1 - alpha_bar))

with both windows as they were before the step. What a window has beyond its neighbour is left alone. At the end, later
windows are laid over earlier ones.

Defaults are the released code's: kappa = 5 (it calls 1 / kappa lambda) and stride 16. t_max is the first timestep here.
The released code seeds the global generator with a constant, whatever the seed; here noise is the task's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from baselines import multidiffusion
from syncdiffusion.geometry.sizes import check_one_row
from syncdiffusion.method import Method, one_row_corners
from syncdiffusion.method_settings import (
    JointSettings,
    StartSettings,
    refuse_jumps,
    stride_setting,
    window_batch_setting,
)
from syncdiffusion.settings import setting

if TYPE_CHECKING:
    from torch import Tensor

    from syncdiffusion.geometry.windows import Windows
    from syncdiffusion.joint.task import Step, Task


@dataclass(frozen=True)
class SyncSdeSettings(StartSettings, JointSettings):
    """Settings of one SyncSDE panorama, one window high."""

    stride: int = stride_setting()
    kappa: float = setting(5.0, "how strongly a window is drawn to its left neighbour; 0 is not at all", least=0)
    window_batch: int | str = window_batch_setting()

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_jumps(self)


def sample(task: Task, settings: SyncSdeSettings) -> Tensor:
    """Denoised canvases [n, c, h, w]; UsageError for a canvas that the windows cannot cover in one row."""
    import torch

    from syncdiffusion.joint.loop import denoise

    windows = task.windows(settings.stride)
    check_one_row(settings.height, task.backbone.window * task.backbone.factor)
    own = windows.crop(task.noise)
    overlap, t_max = windows.size - settings.stride, task.steps[0].timestep
    on_top = torch.ones(len(windows), windows.size, windows.size)
    on_top[:-1, :, settings.stride :] = 0  # there the next window lies over this one

    def before(step: Step, views: Tensor) -> Tensor:
        return own

    def advance(step: Step, views: Tensor, noise: Tensor) -> Tensor:
        nonlocal own
        own = task.advance(step, views, noise).clone()
        now, then = task.signal(step), task.signal_after(step)
        gamma = (then / now).sqrt() - ((1 - then) / (1 - now)).sqrt()
        apart = views[:, 1:, ..., :overlap] - views[:, :-1, ..., settings.stride :]
        own[:, 1:, ..., :overlap] -= gamma * settings.kappa * step.timestep / t_max * apart
        return own

    def fuse(step: Step, placed: Windows, views: Tensor) -> Tensor:
        return placed.fuse(views, on_top)

    return denoise(task, windows, before=before, advance=advance, fuse=fuse)


METHOD = Method(
    name="sync_sde",
    title="SyncSDE",
    settings=SyncSdeSettings,
    sample=sample,
    calls=multidiffusion.calls,
    corners=one_row_corners,
    source="CVPR 2025, arXiv 2503.21555: windows drawn to their left neighbours, laid over each other at the end",
    mark=("#661100", ">"),
    own_latents=True,
)
