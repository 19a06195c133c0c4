"""StochSync (ICLR 2025, arXiv 2501.15445; code: KAIST-Visual-AI-Group/StochSync@253e8e8), on a flat ring.

Maximum stochastic synchronization: windows lie side by side, never over each other, so nothing is averaged. They agree
because the whole panorama is denoised to the end many times over, each time from less noise and with the windows half a
window further on, so that what was a border is now in the middle of a window. Round k = 0 ... rounds - 1:

    x = sqrt(alpha_bar) · z + sqrt(1 - alpha_bar) · fresh noise,    z <- x denoised to the end, window by window

where alpha_bar belongs to a share of the schedule that falls from `highest` evenly toward `lowest`, which one round
more would take; the first `noise_rounds` rounds start from noise alone. The last `refined` rounds start at twice the
share and change windows from the middle on: after step i of N, cells whose mask, a triangle from 0 at a window's sides
to 1 in its middle, is below 1 - i / N, are put back to what was there, z with the same noise at that step's level (the
released code draws another for that).

The paper projects views of a sphere to a picture; here all is done in latents, where windows are plain cuts and nothing
is resampled, decoded or encoded. The released code's rounds, shares and mask are the defaults; it solves with 25 steps
of DPM-Solver++ (50 of DDIM in the refined rounds) and adds a negative prompt of its own, here `steps` counts the steps
of the whole schedule, of the task's sampler. The ends of the panorama meet, and it is decoded as the ring
that it is. A panorama takes rounds · steps · 0.6 steps, more or less; see `calls`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from baselines.spotdiffusion import corners
from syncdiffusion.cost import NetworkCalls, Square, joint_calls
from syncdiffusion.geometry.sizes import check_one_row
from syncdiffusion.method import Method
from syncdiffusion.method_settings import JointSettings, whole_steps, window_batch_setting
from syncdiffusion.settings import setting

if TYPE_CHECKING:
    from torch import Tensor

    from syncdiffusion.geometry.windows import Windows
    from syncdiffusion.joint.task import Step, Task


Keep = Callable[["Step", "Tensor", float], "Tensor"]  # (step, canvas, share of the round that is done) -> canvas


@dataclass(frozen=True)
class StochSyncSettings(JointSettings):
    """Settings of one StochSync panorama, one window high; its width is a multiple of the model's square."""

    rounds: int = setting(25, "how often the panorama is denoised to the end", least=1)
    highest: float = setting(0.9, "share of the schedule that the first round takes", above=0, most=1)
    lowest: float = setting(0.27, "share of the schedule that a round after the last would take", above=0, most=1)
    noise_rounds: int = setting(2, "rounds, the first ones, that start from noise alone", least=1)
    refined: int = setting(2, "rounds, the last ones, that change the middle of windows first", least=0)
    window_batch: int | str = window_batch_setting()

    def is_refined(self, index: int) -> bool:
        """Whether round `index` changes the middle of windows first."""
        return index >= max(self.noise_rounds, self.rounds - self.refined)

    def length(self, index: int) -> int:
        """How many steps round `index` takes, the last ones of the schedule."""
        if index < self.noise_rounds:
            return self.steps
        share = self.highest + (self.lowest - self.highest) * index / self.rounds
        share = min(1.0, 2 * share) if self.is_refined(index) else share
        return max(1, whole_steps(share, self.steps))


def sample(task: Task, settings: StochSyncSettings) -> Tensor:
    """Denoised canvases [n, c, h, w]; UsageError for a canvas that squares do not tile in one row.

    `on_step` is told of the steps of all rounds, numbered through.
    """
    from syncdiffusion.joint.loop import denoise
    from syncdiffusion.joint.noise import draw_normal, noised
    from syncdiffusion.joint.task import Step

    check_one_row(settings.height, task.backbone.window * task.backbone.factor)
    tiles = task.windows(stride=task.backbone.window)
    generators, quiet = task.generators("rounds"), task.quiet()
    number, total = 0, sum(map(settings.length, range(settings.rounds)))
    clean = task.noise
    for index in range(settings.rounds):
        windows = tiles.shifted([index % 2 * (tiles.size // 2)] * len(generators))
        schedule = task.steps[settings.steps - settings.length(index) :]
        # The first round starts as all methods do.
        noise = task.noise if index == 0 else draw_normal(generators, task.noise.shape[1:]).to(task.noise)
        start = noise if index < settings.noise_rounds else noised(clean, noise, task.signal(schedule[0]))
        keep = sides_first_kept(task, windows, clean, noise) if settings.is_refined(index) else None

        def canvas(step: Step, x: Tensor, keep: Keep | None = keep, count: int = len(schedule)) -> Tensor:
            nonlocal number
            x = task.told(Step(number, total, step.timestep), x)
            number += 1
            return x if keep is None else keep(step, x, (step.index - step.count + count) / count)

        clean = denoise(quiet, windows, start=start, schedule=schedule, canvas=canvas)
    return clean


def sides_first_kept(task: Task, windows: Windows, clean: Tensor, noise: Tensor) -> Keep:
    """Puts `clean` [n, c, h, w] back, noised with `noise` to the level after a step, where the mask is low."""
    import torch

    from syncdiffusion.geometry.weights import from_middle
    from syncdiffusion.joint.noise import noised

    triangle = 1 - from_middle(windows.size)
    views = triangle.to(clean).expand(len(clean), len(windows), 1, windows.size, windows.size)
    mask = windows.fuse(views)

    def keep(step: Step, x: Tensor, done: float) -> Tensor:
        return torch.where(mask < 1 - done, noised(clean, noise, task.signal_after(step)), x)

    return keep


def calls(settings: StochSyncSettings, square: Square) -> NetworkCalls:
    """Network calls of one panorama, all rounds."""
    steps = sum(map(settings.length, range(settings.rounds)))
    return joint_calls(len(corners(settings, square)), steps, settings.height, settings.width, square)


METHOD = Method(
    name="stochsync",
    title="StochSync",
    settings=StochSyncSettings,
    sample=sample,
    calls=calls,
    corners=corners,
    source="ICLR 2025, arXiv 2501.15445, on a flat ring: denoised to the end many times, windows moved in between",
    mark=("#dd77aa", "8"),
    moving=True,
    closed=lambda settings: True,
    version=2,  # 1 reached `lowest` in the last round
)
