"""How many network calls a panorama takes, known before anything is computed. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import astuple, dataclass


@dataclass(frozen=True)
class NetworkCalls:
    """Calls of networks in windows: one is one square window through one network, once.

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

    def __add__(self, other: NetworkCalls) -> NetworkCalls:
        return NetworkCalls(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __mul__(self, count: float) -> NetworkCalls:
        return NetworkCalls(*(count * a for a in astuple(self)))


@dataclass(frozen=True)
class Square:
    """The square image that a model was trained on, as far as sizes go.

    window: its side in latent cells (64 for Stable Diffusion); factor: pixels per latent cell (8).
    """

    window: int
    factor: int

    @property
    def pixels(self) -> int:
        """Its side in pixels."""
        return self.window * self.factor


def joint_calls(windows: int, steps: int, height: int, width: int, square: Square) -> NetworkCalls:
    """Denoising `windows` windows for `steps` steps and decoding the canvas of height x width pixels."""
    return NetworkCalls(unet=windows * steps, decoder=height * width / square.pixels**2)
