"""The mean colour of an image: the plainest thing to pull toward."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from syncdiffusion.errors import UsageError


class MeanColour:
    """Squared difference of mean red, green and blue (sRGB values as they are, in [0, 1]), summed over the three."""

    name, network = "colour", "none"

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = device

    def features(self, images: Tensor) -> list[Tensor]:
        """(n, 3, h, w) in [0, 1] -> (n, 3)."""
        return [images.mean(dim=(2, 3))]

    def distance(self, a: list[Tensor], b: list[Tensor]) -> Tensor:
        """In [0, 3]."""
        return (a[0] - b[0]).square().sum(dim=1)

    def features_of(self, words: str, prompts: Sequence[str]) -> list[Tensor]:
        """A colour by name or as #rrggbb (what Pillow's ImageColor reads); one row for all."""
        from PIL import ImageColor

        try:
            red, green, blue = ImageColor.getrgb(words)[:3]
        except ValueError:
            raise UsageError(f"toward={words}: no colour; give a name such as orange, or #rrggbb") from None
        return [torch.tensor([[red, green, blue]], device=self.device) / 255]
