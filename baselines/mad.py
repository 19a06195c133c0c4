"""Merge, Attend, Diffuse (MAD; ECCV 2024, arXiv 2408.15660; code: aimagelab/MAD@4021424).

MultiDiffusion whose UNet attends over the whole panorama. In an attention layer, the windows' tokens are averaged into
one canvas of tokens wherever windows overlap, attention runs once over that canvas, and the windows are cut out again:

    canvas = merge(tokens),    tokens <- crop( attention(canvas) )

In the first `tau` share of the steps that holds for self-attention: every place of the panorama sees every other. In
all steps it holds for cross-attention (setting `merge_cross`). After the UNet all is as in MultiDiffusion. Queries,
keys and values are linear in the tokens, so it does not matter which of them is averaged.

Defaults are the released code's: stride 16, tau = 25 of 50 steps. It ignores the setting for the blocks in which to
merge; all blocks merge here too. Its sampler of few steps and its prompts for regions are not part of this method.

All windows of a panorama go through the UNet in one pass: at 512x3072 px 21 at once, and 24,576 tokens in one attention
at the finest layer. So there is no `window_batch`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from baselines import multidiffusion
from syncdiffusion.method import Method
from syncdiffusion.method_settings import StartSettings, first_steps, loop_closure_setting, stride_setting
from syncdiffusion.settings import setting

if TYPE_CHECKING:
    from torch import Tensor

    from syncdiffusion.geometry.windows import Windows
    from syncdiffusion.joint.task import Step, Task


@dataclass(frozen=True)
class MadSettings(StartSettings):
    """Settings of one panorama by MAD; the stride is a multiple of the UNet's coarsest token (8 latent cells)."""

    stride: int = stride_setting()
    loop_closure: str = loop_closure_setting()
    tau: float = setting(0.5, "share of the steps, the first ones, whose self-attention is merged", least=0, most=1)
    merge_cross: bool = setting(True, "cross-attention is merged, in all steps")


def sample(task: Task, settings: MadSettings) -> Tensor:
    """Denoised canvases [n, c, h, w].

    Raises:
        UsageError: a canvas that the windows cannot cover, windows between two tokens, a panorama beyond the memory.
    """
    from syncdiffusion.joint.attention import attending, merged, whole_panoramas
    from syncdiffusion.joint.loop import denoise

    windows = task.windows(settings.stride, settings.loop_closure)
    whole = whole_panoramas(task, windows)

    def predict(step: Step, placed: Windows, views: Tensor) -> Tensor:
        in_self = step.index < first_steps(settings.tau, step.count)
        with attending(task.backbone.unet, placed, merged(placed, in_self, settings.merge_cross)):
            return whole.predict_noise(step, placed, views)

    return denoise(task, windows, predict=predict)


METHOD = Method(
    name="mad",
    title="MAD",
    settings=MadSettings,
    sample=sample,
    calls=multidiffusion.calls,
    source="ECCV 2024, arXiv 2408.15660: attention over the merged panorama",
    mark=("#332288", "*"),
)
