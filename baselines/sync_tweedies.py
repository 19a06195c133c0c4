"""SyncTweedies (NeurIPS 2024, arXiv 2403.14370; code: KAIST-Visual-AI-Group/SyncTweedies@dc443ad), wide images.

Every window keeps latents of its own. What the windows foresee (Tweedie's formula) is averaged, and each goes on with
its part of that average and with the noise that it implies:

    x0_i <- crop_i(mean of all windows' x0_j),    eps_i = (x_i - sqrt(alpha_bar) · x0_i) / sqrt(1 - alpha_bar)
    x'_i = sqrt(alpha_bar') · x0_i + sqrt(1 - alpha_bar') · eps_i

That is the paper's case 2. Windows that start from one canvas of noise and lie square in it never come to differ, and
then this is MultiDiffusion: DDIM is linear. What tells them apart is

1. attention, in the first `attend` share of the steps: in self-attention a window sees its left and right neighbour as
   well; in the first `middle` share of them the result is averaged with attention to the middle window alone, weight
   `reference`;
2. `shared_start=false`: windows start from noise of their own.

Defaults are the released code's: neighbours in all steps, the middle window in 0.2 of them (`ref_attention_end`),
weights 1:1, and a stride of 8; the stride's default here is the one that all methods are compared at. In the released
code the first and last window of an open canvas are neighbours (`around=true` here). It puts words of praise before
the prompt; here the prompt is the prompt. It decodes every window and averages pixels; here the mean of the latents is
decoded whole, as for all methods. Its option to stop averaging before the last step fails, and is left out.

All windows of a panorama go through the UNet in one pass, so there is no `window_batch`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from baselines import multidiffusion
from syncdiffusion.geometry.sizes import check_one_row
from syncdiffusion.method import Method, one_row_corners
from syncdiffusion.method_settings import StartSettings, first_steps, loop_closure_setting, refuse_jumps, stride_setting
from syncdiffusion.settings import setting

if TYPE_CHECKING:
    from torch import Tensor

    from syncdiffusion.geometry.windows import Windows
    from syncdiffusion.joint.task import Step, Task


@dataclass(frozen=True)
class SyncTweediesSettings(StartSettings):
    """Settings of one SyncTweedies panorama, one window high."""

    stride: int = stride_setting()
    loop_closure: str = loop_closure_setting()
    attend: float = setting(1.0, "share of the steps, the first ones, in which windows see neighbours", least=0, most=1)
    middle: float = setting(0.2, "share of them, the first ones, that see the middle window too", least=0, most=1)
    reference: float = setting(1.0, "weight of attention to the middle window; the neighbours' is 1", least=0)
    around: bool = setting(False, "the first and the last window see each other, also on an open canvas")
    shared_start: bool = setting(True, "windows start from one canvas of noise; false: each from its own")

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_jumps(self)


def sample(task: Task, settings: SyncTweediesSettings) -> Tensor:
    """Denoised canvases [n, c, h, w].

    Raises:
        UsageError: a canvas that the windows cannot cover in one row, a panorama beyond the memory.
    """
    from syncdiffusion.joint.attention import attending, neighbours, whole_panoramas
    from syncdiffusion.joint.loop import denoise
    from syncdiffusion.joint.noise import draw_normal

    windows = task.windows(settings.stride, settings.loop_closure)
    check_one_row(settings.height, task.backbone.window * task.backbone.factor)
    whole = whole_panoramas(task, windows)
    around = settings.around or settings.loop_closure != "off"
    with_middle, alone = (neighbours(windows, around, weight) for weight in (settings.reference, 0.0))
    own = windows.crop(task.noise)
    if not settings.shared_start:
        own = task.begin(draw_normal(task.generators("windows"), own.shape[1:]).to(own), windows)

    def before(step: Step, views: Tensor) -> Tensor:
        return own

    def predict(step: Step, placed: Windows, views: Tensor) -> Tensor:
        seeing = first_steps(settings.attend, step.count)
        if step.index >= seeing:
            return whole.predict_noise(step, placed, views)
        rule = with_middle if step.index < first_steps(settings.middle, seeing) else alone
        with attending(task.backbone.unet, placed, rule):
            return whole.predict_noise(step, placed, views)

    def advance(step: Step, views: Tensor, noise: Tensor) -> Tensor:
        nonlocal own
        x0 = windows.crop(windows.fuse(task.foresee(step, views, noise)))
        signal = task.signal(step)
        own = task.advance(step, views, (views - signal.sqrt() * x0) / (1 - signal).sqrt())
        return own

    return denoise(task, windows, before=before, predict=predict, advance=advance)


METHOD = Method(
    name="sync_tweedies",
    title="SyncTweedies",
    settings=SyncTweediesSettings,
    sample=sample,
    calls=multidiffusion.calls,
    corners=one_row_corners,
    source="NeurIPS 2024, arXiv 2403.14370: foreseen windows averaged, attention to neighbours and the middle window",
    mark=("#999933", "D"),
    own_latents=True,
    version=2,  # 1 had no neighbours once the middle window was left out
)
