"""What the UNet is told of windows at one step, and how the noise of a window comes of its predictions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from syncdiffusion.conditioning.text import Conditioning

if TYPE_CHECKING:
    from syncdiffusion.backbones.backbone import Backbone


@dataclass(frozen=True)
class Parts:
    """Several predictions for a window, each for a part of it.

    owner: the window of each of E predictions, [E], ascending.
    masks: whose cells are whose, booleans [E, 1, s, s]; every cell of a window belongs to one of its predictions.
    shown: where a prediction sees the window's own latents, booleans [E, 1, s, s]; elsewhere it sees `instead`
        [E, c, s, s]. None: everywhere.
    """

    owner: Tensor
    masks: Tensor
    shown: Tensor | None = None
    instead: Tensor | None = None

    def of(self, which: Tensor) -> tuple[Parts, Tensor]:
        """The same for the windows in `which`, repeats allowed; and the numbers of the predictions that are left."""
        found = [torch.nonzero(self.owner == window).flatten() for window in which]
        kept = torch.cat(found)
        counts = torch.tensor([len(each) for each in found], device=kept.device)
        owner = torch.arange(len(found), device=kept.device).repeat_interleave(counts)
        shown, instead = (None if each is None else each[kept] for each in (self.shown, self.instead))
        return Parts(owner, self.masks[kept], shown, instead), kept


@dataclass(frozen=True)
class WindowConditioning:
    """What the UNet is told of R windows at one step. Without parts, a row for each window."""

    told: Conditioning
    parts: Parts | None = None

    def of(self, which: Tensor) -> WindowConditioning:
        """The same for the windows in `which`, repeats allowed."""
        if self.parts is None:
            return WindowConditioning(self.told.rows(which))
        parts, kept = self.parts.of(which)
        return WindowConditioning(self.told.rows(kept), parts)

    def seen(self, latents: Tensor) -> Tensor:
        """What each prediction sees of windows [R, c, s, s]; as many rows as `told` has. Differentiable."""
        if self.parts is None:
            return latents
        own = latents[self.parts.owner]
        shown, instead = self.parts.shown, self.parts.instead
        return own if shown is None or instead is None else torch.where(shown, own, instead)

    def joined(self, noise: Tensor) -> Tensor:
        """The noise of the windows [R, c, s, s], of a prediction for each row of `told`. Differentiable."""
        if self.parts is None:
            return noise
        windows = noise.new_zeros(int(self.parts.owner[-1]) + 1, *noise.shape[1:])
        return windows.index_add(0, self.parts.owner, self.parts.masks * noise)

    def predict(self, model: Backbone, latents: Tensor, t: Tensor | float) -> Tensor:
        """The guided noise prediction of windows [R, c, s, s], in one go. Differentiable in them."""
        return self.joined(model.predict_noise(self.seen(latents), t, self.told))
