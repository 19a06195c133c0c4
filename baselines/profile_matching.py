"""Profile matching: coherence at MultiDiffusion's own price. This project's approximation of SyncDiffusion.

SyncDiffusion foresees an image of every window, measures its perceptual distance to the anchor's and goes down that
distance's gradient: a decoder, a perceptual network, and three networks backward, per window and step. Profile matching
compares the foreseen latents themselves, by their vertical profile: mean m_j and standard deviation d_j of each channel
along each row of cells, [c, s] each. That is colour, light and roughness by height, sky above ground, and says nothing
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

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from baselines import multidiffusion
from syncdiffusion.geometry.sizes import choose_anchor
from syncdiffusion.method import Method
from syncdiffusion.method_settings import WindowedSettings, anchor_setting, decay_setting, first_n_setting
from syncdiffusion.settings import setting

if TYPE_CHECKING:
    from torch import Tensor

    from syncdiffusion.joint.task import Step, Task

# -> dimensions of the statistics; blocks have means alone
MATCHES: dict[str, tuple[int, ...]] = {"rows": (-1,), "row_means": (-1,), "channels": (-2, -1), "blocks": ()}
BLOCK = 4  # latent cells; a quarter of the miniature's window, a sixteenth of Stable Diffusion's
RATIOS = (0.5, 2.0)  # of deviations: a row that is nearly even must not have its noise blown up


@dataclass(frozen=True)
class ProfileMatchingSettings(WindowedSettings):
    """Settings of one panorama by profile matching.

    match: "rows", the profile: mean and deviation of each row of cells; "row_means" without the deviations;
        "channels", mean and deviation of the whole channel; "blocks", means over aligned blocks of BLOCK x BLOCK cells.
    """

    strength: float = setting(
        0.2, "step i takes strength · decay^i of the way to the anchor's profile; 1 leaves bands", least=0, most=1
    )
    decay: float = decay_setting()
    match: str = setting("rows", "what is matched", choices=tuple(MATCHES))
    first_n: int | None = first_n_setting()
    anchor: int | None = anchor_setting()


def sample(task: Task, settings: ProfileMatchingSettings) -> Tensor:
    """Denoised canvases [n, c, h, w].

    Raises:
        UsageError: a canvas that the windows cannot cover, an anchor that does not exist.
    """
    from syncdiffusion.joint.loop import denoise

    windows = task.windows(settings.stride, settings.loop_closure)
    anchor = choose_anchor(settings.anchor, len(windows))

    def match(step: Step, views: Tensor, noise: Tensor) -> Tensor:
        if settings.first_n is not None and step.index >= settings.first_n:
            return views
        x0 = task.foresee(step, views, noise)
        signal = task.signal(step).sqrt()
        share = settings.strength * settings.decay**step.index
        return views + signal * toward_anchor(x0, anchor, share, settings.match)

    return denoise(task, windows, after=match)


def toward_anchor(x0: Tensor, anchor: int, share: float, match: str = "rows") -> Tensor:
    """What `share` (0 to 1) of the way to the anchor's statistics adds to foreseen latents x0 [n, N, c, s, s].

    Args:
        match: one of MATCHES, see ProfileMatchingSettings.

    Returns:
        the same shape; 0 for the anchor itself.
    """
    import torch

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
    """Each cell's mean over its block of BLOCK x BLOCK cells; [n, N, c, s, s], the last blocks may be smaller."""
    import torch

    rows = [part.mean(dim=-2, keepdim=True).expand_as(part) for part in x0.split(BLOCK, dim=-2)]
    columns = torch.cat(rows, dim=-2).split(BLOCK, dim=-1)
    return torch.cat([part.mean(dim=-1, keepdim=True).expand_as(part) for part in columns], dim=-1)


METHOD = Method(
    name="profile_matching",
    title="Profile matching",
    settings=ProfileMatchingSettings,
    sample=sample,
    calls=multidiffusion.calls,
    source="this project: foreseen latents take the anchor's mean and deviation row by row, without any gradient",
    mark=("#e69f00", "v"),
)
