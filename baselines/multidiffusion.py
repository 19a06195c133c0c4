"""MultiDiffusion (Bar-Tal et al., ICML 2023): denoise overlapping windows, average them, nothing more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from syncdiffusion.cost import NetworkCalls, Square, joint_calls
from syncdiffusion.method import Method, overlapping_corners
from syncdiffusion.method_settings import WindowedSettings

if TYPE_CHECKING:
    from torch import Tensor

    from syncdiffusion.joint.task import Task


@dataclass(frozen=True)
class MultiDiffusionSettings(WindowedSettings):
    """Settings of one MultiDiffusion panorama.

    The official code's stride is 8 latent cells; the SyncDiffusion paper compares both methods at the
    same stride, hence the default here.
    """


def sample(task: Task, settings: MultiDiffusionSettings) -> Tensor:
    """Denoised canvases [n, c, h, w]; UsageError for a canvas that the windows cannot cover."""
    from syncdiffusion.joint.loop import denoise

    return denoise(task, task.windows(settings.stride, settings.loop_closure))


def calls(settings: Any, square: Square) -> NetworkCalls:
    """Network calls of one panorama."""
    count = len(overlapping_corners(settings, square))
    return joint_calls(count, len(settings.passes), settings.height, settings.width, square)


METHOD = Method(
    name="multidiffusion",
    title="MultiDiffusion",
    settings=MultiDiffusionSettings,
    sample=sample,
    calls=calls,
    source="Bar-Tal et al., ICML 2023, arXiv 2302.08113: overlapping windows, averaged after every step",
    mark=("#d55e00", "s"),
)
