"""CoFi (2026, arXiv 2606.00837; code: bw-park/CoFi@c32d112): a coarse panorama first, and then a fine one.

Windows overlap by half; b are weights that fall linearly across the overlap and add up to 1. Three phases:

1. Consensus, all T steps. Windows keep latents of their own. What they foresee is averaged and cut out again, and then
   drawn to the mean over all windows, place by place in a window; then it is noised afresh to the next level, with
   noise of the canvas. The predicted noise is not used as the direction to go on in:

       x0_i <- crop_i( sum_i b · x0_i / sum_i b ),    x0_i <- (1 - l) · x0_i + l · mean_j x0_j,
       l = consensus · (1 - step / (T - 1)),    x'_i = sqrt(alpha_bar') · x0_i + sqrt(1 - alpha_bar') · crop_i(fresh)

2. Back in time. The windows' average with b is noised to the level at which the step number floor(restart · T) starts.
3. Fusion, from that step on. Noise predictions are averaged with b, and the canvas takes steps of DDIM with eta = 1.

Defaults are the released code's: consensus 0.2, restart 0.3, so that there are 1.7 T steps in all. It makes canvases of
4608 px, with a negative prompt, "a jittery unclear photo with random artifacts"; here these are the settings that all
methods are compared at. There the ramp ends at 0 and 1 exactly; here it begins half a cell away from them, as no weight
may be 0. It goes back in time in hundreds of small steps of noise; one is the same in distribution.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from baselines.blended_latent import corners, hop_of
from syncdiffusion.cost import NetworkCalls, Square, joint_calls
from syncdiffusion.method import Method
from syncdiffusion.method_settings import JointSettings, whole_steps, window_batch_setting
from syncdiffusion.settings import setting

if TYPE_CHECKING:
    from torch import Tensor

    from syncdiffusion.joint.task import Task


@dataclass(frozen=True)
class CofiSettings(JointSettings):
    """Settings of one CoFi panorama."""

    sampler: str = setting(
        "ddim", "DDIM's levels; the steps from one to the next are CoFi's own", choices=("ddim",), added=("ddim",),
        shared=True,
    )  # fmt: skip
    overlap: float = setting(0.5, "share of a window that it has in common with the next", above=0, below=1)
    consensus: float = setting(0.2, "how far windows are drawn to their mean at first", least=0, most=1)
    restart: float = setting(0.3, "share of the schedule that the last phase leaves out", least=0, below=1)
    window_batch: int | str = window_batch_setting()


def sample(task: Task, settings: CofiSettings) -> Tensor:
    """Denoised canvases [n, c, h, w]; UsageError for a canvas that the windows cannot cover.

    `on_step` is told of the steps of both phases, numbered through.
    """
    from syncdiffusion.geometry.weights import tent
    from syncdiffusion.joint.fusion import fused_prediction
    from syncdiffusion.joint.loop import denoise
    from syncdiffusion.joint.noise import draw_normal, noised
    from syncdiffusion.joint.task import Step

    windows = task.windows(hop_of(settings, task.backbone.window))
    ramps, generators = tent(windows.size), task.generators("cofi")
    again = task.steps[skipped(settings) :]
    quiet, number, total = task.quiet(), 0, len(task.steps) + len(again)
    own = windows.crop(task.noise)

    def fresh() -> Tensor:
        return draw_normal(generators, task.noise.shape[1:]).to(task.noise)

    def told(step: Step, canvas: Tensor) -> Tensor:
        nonlocal number
        canvas = task.told(Step(number, total, step.timestep), canvas)
        number += 1
        return canvas

    def keep(step: Step, views: Tensor) -> Tensor:
        return own

    def agree(step: Step, views: Tensor, noise: Tensor) -> Tensor:
        nonlocal own
        x0 = windows.crop(windows.fuse(task.foresee(step, views, noise), ramps))
        share = settings.consensus * (1 - step.index / max(1, step.count - 1))
        x0 = x0 + share * (x0.mean(dim=1, keepdim=True) - x0)
        own = noised(x0, windows.crop(fresh()), task.signal_after(step))
        return own

    def renew(step: Step, views: Tensor, noise: Tensor) -> Tensor:
        """DDIM with eta = 1 (Song et al., ICLR 2021, Eq. 12 and 16)."""
        now, then = task.signal(step), task.signal_after(step)
        variance = (1 - then) / (1 - now) * (1 - now / then)
        x0 = task.foresee(step, views, noise)
        return then.sqrt() * x0 + (1 - then - variance).sqrt() * noise + variance.sqrt() * windows.crop(fresh())

    coarse = denoise(
        quiet, windows, before=keep, advance=agree, fuse=lambda step, placed, views: placed.fuse(views, ramps),
        canvas=told,
    )  # fmt: skip
    start = noised(coarse, fresh(), task.signal(again[0]))
    fused = fused_prediction(task, ramps)
    return denoise(quiet, windows, start=start, schedule=again, predict=fused, advance=renew, canvas=told)


def skipped(settings: CofiSettings) -> int:
    """How many steps the last phase leaves out."""
    return min(whole_steps(settings.restart, settings.steps), settings.steps - 1)


def calls(settings: CofiSettings, square: Square) -> NetworkCalls:
    """Network calls of one panorama, both phases."""
    steps = 2 * settings.steps - skipped(settings)
    return joint_calls(len(corners(settings, square)), steps, settings.height, settings.width, square)


METHOD = Method(
    name="cofi",
    title="CoFi",
    settings=CofiSettings,
    sample=sample,
    calls=calls,
    corners=corners,
    source="2026, arXiv 2606.00837: windows that agree on a coarse panorama, noised again and denoised as one",
    mark=("#000000", "H"),
    own_latents=True,
)
