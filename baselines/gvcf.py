"""GVCFDiffusion (AAAI 2025, arXiv 2412.12771; code: TitorX/GVCFDiffusion@eb9b0ed): guided fusion, aligned noise.

Guided fusion is MultiDiffusion with weights that fall off with the distance from a window's middle, a cone:

    x' = sum_i w · x'_i / sum_i w,    w(r, c) = 1 - hypot(r - middle, c - middle) / hypot(size / 2, size / 2)

Under a sampler that adds noise, averaging K windows would take away part of the noise. The paper's variance-corrected
fusion scales it up again; its sum is the weighted mean of the posterior means plus noise of full variance, which is
drawn here once for the canvas (the same distribution). Where the sampler does that, nothing is left to correct.

Style alignment (setting `align`, alpha below) starts from a canvas of noise that is turned toward one window's noise,
repeated along the canvas, so that all windows begin alike:

    x_T = sin((1 - alpha) · theta) / sin(theta) · noise + sin(alpha · theta) / sin(theta) · repeated

theta is the angle between the two. The released code leaves it off by default and tells no value.

There, the middle of a window of 64 is cell 32, so that the weight of cell (0, 0) is 0 and the canvas's first cell is
lost at every step, and left edges count less than right ones; here the weights are symmetric and above 0. Its canvases
are 3584 px wide with windows 48 cells apart (`stride=48`); the default here is the stride that all methods are compared
at. A canvas need not be a whole number of windows wide: the last repeat of the noise is cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from baselines import multidiffusion
from syncdiffusion.method import Method
from syncdiffusion.method_settings import WindowedSettings
from syncdiffusion.settings import setting

if TYPE_CHECKING:
    from torch import Tensor

    from syncdiffusion.geometry.windows import Windows
    from syncdiffusion.joint.task import Step, Task


@dataclass(frozen=True)
class GvcfSettings(WindowedSettings):
    """Settings of one panorama by guided fusion."""

    align: float = setting(
        0.0, "how far the initial noise is turned toward one window's, repeated; 0 leaves it", least=0, most=1
    )


def sample(task: Task, settings: GvcfSettings) -> Tensor:
    """Denoised canvases [n, c, h, w]; UsageError for a canvas that the windows cannot cover."""
    from syncdiffusion.geometry.weights import cone
    from syncdiffusion.joint.loop import denoise

    windows = task.windows(settings.stride, settings.loop_closure)
    weights = cone(windows.size)

    def fuse(step: Step, placed: Windows, views: Tensor) -> Tensor:
        return placed.fuse(views, weights)

    return denoise(task, windows, start=aligned_noise(task, settings.align), fuse=fuse)


def aligned_noise(task: Task, alpha: float) -> Tensor:
    """The task's start [n, c, h, w], its noise turned by the share `alpha` toward one window's noise, repeated."""
    import torch

    from syncdiffusion.joint.noise import draw_normal

    noise, size = task.pure_noise, task.backbone.window
    if alpha == 0:
        return task.noise
    height, width = noise.shape[2:]
    one = draw_normal(task.generators("align"), (noise.shape[1], size, size)).to(noise)
    repeated = one.repeat(1, 1, -(-height // size), -(-width // size))[..., :height, :width]
    cosine = torch.cosine_similarity(noise.flatten(1), repeated.flatten(1))[:, None, None, None]
    angle = torch.arccos(cosine)
    return task.begin((torch.sin((1 - alpha) * angle) * noise + torch.sin(alpha * angle) * repeated) / torch.sin(angle))


METHOD = Method(
    name="gvcf",
    title="GVCF (guided fusion)",
    settings=GvcfSettings,
    sample=sample,
    calls=multidiffusion.calls,
    source="AAAI 2025, arXiv 2412.12771: windows averaged with weights that fall off from their middle like a cone",
    mark=("#117733", "d"),
)
