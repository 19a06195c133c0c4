"""What the UNet is told: the prompt, and what guidance leads away from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from syncdiffusion.backbones.backbone import Backbone
    from syncdiffusion.geometry.windows import Windows


@dataclass(frozen=True)
class Conditioning:
    """One row for each latent that the UNet sees, and the guidance scale.

    text, empty: embeddings of the prompts and of the negative prompts, [rows, tokens, d] each.
    """

    text: Tensor
    empty: Tensor
    guidance_scale: float

    def rows(self, which: Tensor) -> Conditioning:
        """The same for the rows in `which`, repeats allowed."""
        return Conditioning(self.text[which], self.empty[which], self.guidance_scale)

    def for_windows(self, windows: Windows) -> Conditioning:
        """Of n canvases: that of their n · N windows, canvas by canvas. Every window of a canvas is told the same."""
        count = len(windows)
        return Conditioning(
            self.text.repeat_interleave(count, 0), self.empty.repeat_interleave(count, 0), self.guidance_scale
        )


def encode(backbone: Backbone, prompts: Sequence[str], negative_prompt: str, guidance_scale: float) -> Conditioning:
    """Embeddings of the prompts, and of one negative prompt for all."""
    text = backbone.encode_prompts(prompts)
    empty = backbone.encode_prompts([negative_prompt]).expand_as(text)
    return Conditioning(text, empty, guidance_scale)
