"""A decoder that begins as a linear one.

AutoencoderTiny's decoder, without its rectifiers and residual branches, is a chain of convolutions between nearest
enlargements. That linear chain learns in minutes what the whole network needs hours for, and the network can hold it
exactly: features go in pairs of their positive and negative part, which rectifiers pass, and a residual block whose
last convolution is zero passes what it gets. Training goes on from there.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate


class LinearDecoder(nn.Module):
    """The chain: latents to features, three enlargements by two with a convolution each, features to pixels.

    channels: of the latents.
    width: features at full resolution, of which half as many at the coarser ones.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        half = width // 2
        self.first = nn.Conv2d(channels, half, 3, padding=1)
        sizes = (half, half, half, width)
        pairs = zip(sizes[:-1], sizes[1:], strict=True)
        self.enlarged = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in pairs)
        self.last = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        """[n, c, h, w] -> images [n, 3, 8 h, 8 w], meant for [-1, 1]."""
        features = self.first(torch.tanh(latents / 3) * 3)
        for convolution in self.enlarged:
            features = convolution(interpolate(features, scale_factor=2.0, mode="nearest"))
        return self.last(features) * 2 - 1


@torch.no_grad()
def set_linear_decoder(decoder: nn.Module, linear: LinearDecoder) -> None:
    """Makes AutoencoderTiny's decoder compute the same.

    Args:
        decoder: `AutoencoderTiny.decoder`, of the linear one's width and latent channels, without residual blocks at
            full resolution, whose rectifiers would cut the features.
    """
    convolutions = [layer for layer in decoder.layers if isinstance(layer, nn.Conv2d)]
    first, *enlarged, last = convolutions
    if len(enlarged) != 3 or not all(isinstance(layer, nn.Conv2d) for layer in list(decoder.layers)[-2:]):
        raise ValueError("a decoder of factor 8 without blocks at full resolution is wanted")
    for layer in decoder.layers:
        if hasattr(layer, "conv"):  # a residual block
            final = [part for part in layer.conv if isinstance(part, nn.Conv2d)][-1]
            final.weight.zero_()
            final.bias.zero_()
    first.weight.copy_(torch.cat([linear.first.weight, -linear.first.weight]))
    first.bias.copy_(torch.cat([linear.first.bias, -linear.first.bias]))
    for target, source in zip(enlarged, linear.enlarged, strict=True):
        weight = torch.cat([source.weight, -source.weight], 1)
        # The last one's features go straight into the last convolution, and need no pairs.
        target.weight.copy_(weight if target is enlarged[-1] else torch.cat([weight, -weight]))
    last.load_state_dict(linear.last.state_dict())
