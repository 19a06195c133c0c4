"""Profile matching: coherence at MultiDiffusion's own price. This project's approximation of SyncDiffusion.

SyncDiffusion foresees an image of every window, measures its perceptual distance to the anchor's and goes down that
distance's gradient: a decoder, a perceptual network, and three networks backward, per window and step. Profile matching
compares the foreseen latents themselves, by their vertical profile: mean m_j and standard deviation d_j of each channel
along each row of cells, [4, s] each. That is colour, light and roughness by height, sky above ground, and says nothing
of where along a row things stand. At step i, with the noise prediction that the DDIM step needs anyway,

    goal_j = m_anchor + (x0_j - m_j) · d_anchor / d_j
    x0_j <- x0_j + strength · decay^i · (goal_j - x0_j),    x_j <- x_j + sqrt(alpha_bar_t) · the same

where the noise prediction is held constant, so that the window moves as its foreseen latents do. Strength 1 matches the
profiles at once, and no strength overshoots. It is adaptive instance normalisation (Huang and Belongie, ICCV 2017), row
by row and in the sampler.

What else could be matched is the setting `match`; `experiment=ablation_profile` compares the choices. Rows with their
deviations pull furthest. Whole channels do not know above from below; aligned blocks hold each other up, because
windows that share a cell want it to be like different places of the anchor.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from syncdiffusion.cost import Evaluations, plain
from syncdiffusion.errors import UsageError
from syncdiffusion.joint.loop import (
    OnStep,
    Step,
    check_sampling,
    choose_anchor,
    condition,
    decode_canvas,
    initial_noise,
    sample_windows,
    window_count,
    windows_for,
)
from syncdiffusion.memory import AUTO

if TYPE_CHECKING:
    from syncdiffusion.backbones.backbone import Backbone


MATCHES = {"rows": -1, "row_means": -1, "channels": (-2, -1), "blocks": None}  # -> dimensions of the statistics
BLOCK = 4  # latent cells; a quarter of the miniature's window, a sixteenth of Stable Diffusion's
RATIOS = (0.5, 2.0)  # of deviations: a row that is nearly even must not have its noise blown up


@dataclass(frozen=True)
class ProfileMatchingSettings:
    """Settings of one panorama by profile matching.

    strength, decay: step i takes strength · decay^i of the way to the anchor's profile, 0 to 1.
    match: "rows", the profile: mean and deviation of each row of cells; "row_means" without the deviations;
        "channels", mean and deviation of the whole channel; "blocks", means over aligned blocks of BLOCK x BLOCK cells.
    first_n: match in the first n steps only; None for all, 0 for none.
    anchor: index of the anchor window; None for the centre one, N // 2.
    Other fields as in SyncDiffusionSettings.
    """

    height: int = 512
    width: int = 3072
    steps: int = 50
    guidance_scale: float = 7.5
    negative_prompt: str = ""
    stride: int = 16
    loop_closure: str = "off"
    window_batch: int | str = AUTO
    strength: float = 0.2
    decay: float = 0.95
    match: str = "rows"
    first_n: int | None = None
    anchor: int | None = None

    def __post_init__(self) -> None:
        check_sampling(self)
        if not 0 <= self.strength <= 1:
            raise UsageError(f"strength={self.strength}: use 0 to 1")
        if self.match not in MATCHES:
            raise UsageError(f"match={self.match}: use one of {', '.join(MATCHES)}")


def toward_anchor(x0: Tensor, anchor: int, share: float, match: str = "rows") -> Tensor:
    """What `share` (0 to 1) of the way to the anchor's statistics adds to foreseen latents x0 [n, N, 4, s, s].

    Args:
        match: one of MATCHES, see ProfileMatchingSettings.

    Returns:
        the same shape; 0 for the anchor itself.
    """
    own = slice(anchor, anchor + 1)
    if match == "blocks":
        mean = block_means(x0)
        return share * (mean[:, own] - mean)
    deviation, mean = torch.std_mean(x0, dim=MATCHES[match], keepdim=True)
    moved = mean[:, own] - mean
    if match != "row_means":
        ratio = (deviation[:, own] / deviation.clamp(min=1e-6)).clamp(*RATIOS)
        moved = moved + (ratio - 1) * (x0 - mean)
    return share * moved.expand_as(x0)


def block_means(x0: Tensor) -> Tensor:
    """Each cell's mean over its block of BLOCK x BLOCK cells; [n, N, 4, s, s], the last blocks may be smaller."""
    rows = [part.mean(dim=-2, keepdim=True).expand_as(part) for part in x0.split(BLOCK, dim=-2)]
    columns = torch.cat(rows, dim=-2).split(BLOCK, dim=-1)
    return torch.cat([part.mean(dim=-1, keepdim=True).expand_as(part) for part in columns], dim=-1)


def sample_latents(
    backbone: "Backbone",
    prompts: Sequence[str],
    seeds: Sequence[int],
    settings: ProfileMatchingSettings,
    on_step: OnStep | None = None,
) -> Tensor:
    """Denoised canvases [n, 4, h, w]; arguments as in syncdiffusion.sync."""
    windows = windows_for(backbone, settings.height, settings.width, settings.stride, settings.loop_closure)
    anchor = choose_anchor(settings.anchor, windows)
    scheduler = backbone.steps(settings.steps)

    def match(step: Step, views: Tensor, noise: Tensor) -> Tensor:
        if settings.first_n is not None and step.index >= settings.first_n:
            return views
        x0 = scheduler.step(noise, step.timestep, views).pred_original_sample
        signal = scheduler.alphas_cumprod[step.timestep].sqrt()
        share = settings.strength * settings.decay**step.index
        return views + signal * toward_anchor(x0, anchor, share, settings.match)

    return sample_windows(
        backbone,
        initial_noise(prompts, seeds, (backbone.channels, windows.height, windows.width)),
        windows,
        condition(backbone, prompts, settings.negative_prompt, settings.guidance_scale),
        settings.steps,
        settings.window_batch,
        correct=match,
        on_step=on_step,
    )


def generate(
    backbone: "Backbone",
    prompts: Sequence[str],
    seeds: Sequence[int],
    settings: ProfileMatchingSettings,
    on_step: OnStep | None = None,
) -> Tensor:
    """Panoramas [n, 3, height, width] in [0, 1] on the CPU; arguments as in syncdiffusion.sync."""
    return decode_canvas(backbone, sample_latents(backbone, prompts, seeds, settings, on_step))


def evaluations(settings: ProfileMatchingSettings, window: int, factor: int) -> Evaluations:
    """Network evaluations of one panorama, those of MultiDiffusion; see syncdiffusion.sync."""
    count = window_count(settings, window, factor)
    return plain(count, settings.steps, settings.height, settings.width, window * factor)
