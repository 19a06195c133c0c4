"""MultiDiffusion (Bar-Tal et al., ICML 2023): denoise overlapping windows, average them, nothing more."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from syncdiffusion.backbones.backbone import Backbone
from syncdiffusion.cost import Evaluations, plain
from syncdiffusion.joint.loop import (
    OnStep,
    check_sampling,
    condition,
    decode_canvas,
    initial_noise,
    sample_windows,
    window_count,
    windows_for,
)
from syncdiffusion.memory import AUTO


@dataclass(frozen=True)
class MultiDiffusionSettings:
    """Settings of one MultiDiffusion panorama.

    The official code's stride is 8 latent cells; the SyncDiffusion paper compares both methods at the
    same stride, hence the default here. Fields as in SyncDiffusionSettings.
    """

    height: int = 512
    width: int = 3072
    steps: int = 50
    guidance_scale: float = 7.5
    negative_prompt: str = ""
    stride: int = 16
    loop_closure: str = "off"
    window_batch: int | str = AUTO

    def __post_init__(self) -> None:
        check_sampling(self)


def sample_latents(
    backbone: Backbone,
    prompts: Sequence[str],
    seeds: Sequence[int],
    settings: MultiDiffusionSettings,
    on_step: OnStep | None = None,
) -> Tensor:
    """Denoised canvases [n, 4, h, w]."""
    windows = windows_for(backbone, settings.height, settings.width, settings.stride, settings.loop_closure)
    return sample_windows(
        backbone,
        initial_noise(prompts, seeds, (backbone.channels, windows.height, windows.width)),
        windows,
        condition(backbone, prompts, settings.negative_prompt, settings.guidance_scale),
        settings.steps,
        settings.window_batch,
        on_step=on_step,
    )


def generate(
    backbone: Backbone,
    prompts: Sequence[str],
    seeds: Sequence[int],
    settings: MultiDiffusionSettings,
    on_step: OnStep | None = None,
) -> Tensor:
    """MultiDiffusion panoramas [n, 3, height, width] in [0, 1] on the CPU; arguments as in syncdiffusion.sync."""
    return decode_canvas(backbone, sample_latents(backbone, prompts, seeds, settings, on_step))


def evaluations(settings: MultiDiffusionSettings, window: int, factor: int) -> Evaluations:
    """Network evaluations of one panorama; see syncdiffusion.sync."""
    count = window_count(settings, window, factor)
    return plain(count, settings.steps, settings.height, settings.width, window * factor)
