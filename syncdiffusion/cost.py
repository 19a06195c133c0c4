"""How many network evaluations a panorama takes, known before anything is computed."""

from __future__ import annotations

from dataclasses import astuple, dataclass


@dataclass(frozen=True)
class Evaluations:
    """Network evaluations in windows: one is one square window through one network, once.

    unet: noise predictions with guidance, so two passes of the UNet each; unet_backward: those whose gradient is taken.
    decoder, decoder_backward: the same of the decoder; a canvas counts by its area.
    loss, loss_backward: the same of the perceptual network.
    """

    unet: float = 0
    unet_backward: float = 0
    decoder: float = 0
    decoder_backward: float = 0
    loss: float = 0
    loss_backward: float = 0

    def __add__(self, other: Evaluations) -> Evaluations:
        return Evaluations(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __mul__(self, count: int) -> Evaluations:
        return Evaluations(*(count * a for a in astuple(self)))


def plain(windows: int, steps: int, height: int, width: int, window: int) -> Evaluations:
    """Denoising `windows` windows for `steps` steps and decoding the canvas; lengths in pixels, `window` a square's."""
    return Evaluations(unet=windows * steps, decoder=height * width / window**2)
