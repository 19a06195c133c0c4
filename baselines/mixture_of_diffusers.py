"""Mixture of Diffusers (Jiménez, 2023, arXiv 2302.02412; code: albarji/mixture-of-diffusers@af42292).

Overlapping windows as in MultiDiffusion, but their noise predictions are averaged, with weights that fall off toward a
window's edges, and the canvas takes one step with the average:

    eps(canvas) = sum_i w · eps(window_i) / sum_i w,    w = exp(-(dx^2 + dy^2) / (2 · variance))

dx and dy count from the window's middle in window widths; the released code's variance is 0.01. So where one window
ends, another has long taken over.

The released code overlaps tiles by half (`stride=32` for windows of 64); the default here is the stride that all
methods are compared at. Its middle lies half a cell lower than its window's, here the weights are symmetric. Its
prompts and guidance for single tiles are not part of this method.
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

    from syncdiffusion.joint.task import Task


@dataclass(frozen=True)
class MixtureOfDiffusersSettings(WindowedSettings):
    """Settings of one panorama by Mixture of Diffusers."""

    # Below the bound, float32 has no weight for a window's corner.
    variance: float = setting(0.01, "of the Gaussian weights, in squared window widths", least=0.003)


def sample(task: Task, settings: MixtureOfDiffusersSettings) -> Tensor:
    """Denoised canvases [n, c, h, w]; UsageError for a canvas that the windows cannot cover."""
    from syncdiffusion.geometry.weights import gaussian
    from syncdiffusion.joint.fusion import fused_prediction
    from syncdiffusion.joint.loop import denoise

    windows = task.windows(settings.stride, settings.loop_closure)
    return denoise(task, windows, predict=fused_prediction(task, gaussian(windows.size, settings.variance)))


METHOD = Method(
    name="mixture_of_diffusers",
    title="Mixture of Diffusers",
    settings=MixtureOfDiffusersSettings,
    sample=sample,
    calls=multidiffusion.calls,
    source="Jiménez, 2023, arXiv 2302.02412: noise predictions averaged with Gaussian weights",
    mark=("#882255", "o"),
)
