"""What the UNet is told: the prompt, what guidance leads away from, and pictures that ControlNets read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from syncdiffusion.backbones.backbone import Backbone


@dataclass(frozen=True)
class Control:
    """What a ControlNet adds to the UNet (Zhang et al., ICCV 2023): its network, pictures and strength.

    images: [rows, 3, S, S] in [0, 1], one for each latent that the UNet sees.
    """

    network: Any  # diffusers' ControlNetModel
    images: Tensor
    scale: float


@dataclass(frozen=True)
class Conditioning:
    """One row for each latent that the UNet sees, and the guidance scale.

    text, empty: embeddings of the prompts and of the negative prompts, [rows, tokens, d] each, as
        `Backbone.encode_prompts` gives them.
    size: height and width in pixels that Stable Diffusion XL is told; None for its window's.
    """

    text: Tensor
    empty: Tensor
    guidance_scale: float
    controls: tuple[Control, ...] = ()
    size: tuple[int, int] | None = None

    def rows(self, which: Tensor) -> Conditioning:
        """The same for the rows in `which`, repeats allowed."""
        controls = tuple(replace(each, images=each.images[which]) for each in self.controls)
        return replace(self, text=self.text[which], empty=self.empty[which], controls=controls)


def encode(
    backbone: Backbone,
    prompts: Sequence[str],
    negative_prompt: str,
    guidance_scale: float,
    size: tuple[int, int] | None = None,
) -> Conditioning:
    """Embeddings of the prompts, and of one negative prompt for all; `size` as in Conditioning."""
    text = backbone.encode_prompts(prompts)
    empty = backbone.encode_negative(negative_prompt).expand_as(text)
    return Conditioning(text, empty, guidance_scale, size=size)
