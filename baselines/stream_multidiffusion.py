"""StreamMultiDiffusion's panoramas (Lee et al., 2024, arXiv 2403.09055; code: ironjr/StreamMultiDiffusion@bf57829).

MultiDiffusion, made fit for samplers of few steps that add fresh noise: what windows foresee is averaged first, with
weights that fall linearly to a window's edges (half a window apart they add up to 1), and then the canvas is noised
once to the next level,

    x0(canvas) = sum_i w · x0(window_i) / sum_i w,    x' = sqrt(alpha_bar') · x0 + noise of the canvas

With noise for each window, averaging would take some of it away again. As x0 is linear in the noise prediction, and all
windows lie in one canvas, averaging the predictions is the same; that is how it is done here, and one step of the
sampler follows, whichever it is.

The released code takes five steps of a latent consistency model with windows half a window apart (`stride=32` for
windows of 64) and no guidance. The defaults here are those that all methods are compared at; the model decides which
sampler makes sense. Its prompts for regions and its streaming are not part of this method.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from baselines import multidiffusion
from syncdiffusion.method import Method
from syncdiffusion.method_settings import WindowedSettings

if TYPE_CHECKING:
    from torch import Tensor

    from syncdiffusion.joint.task import Task


@dataclass(frozen=True)
class StreamMultiDiffusionSettings(WindowedSettings):
    """Settings of one panorama with StreamMultiDiffusion's averaging."""


def sample(task: Task, settings: StreamMultiDiffusionSettings) -> Tensor:
    """Denoised canvases [n, c, h, w]; UsageError for a canvas that the windows cannot cover."""
    from syncdiffusion.geometry.weights import tent
    from syncdiffusion.joint.fusion import fused_prediction
    from syncdiffusion.joint.loop import denoise

    windows = task.windows(settings.stride, settings.loop_closure)
    return denoise(task, windows, predict=fused_prediction(task, tent(windows.size)))


METHOD = Method(
    name="stream_multidiffusion",
    title="StreamMultiDiffusion",
    settings=StreamMultiDiffusionSettings,
    sample=sample,
    calls=multidiffusion.calls,
    source="Lee et al., 2024, arXiv 2403.09055: windows averaged with triangular weights before the canvas is noised",
    mark=("#44aa99", "h"),
)
