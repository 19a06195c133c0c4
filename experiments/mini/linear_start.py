"""An encoder that begins as the best linear one: principal components of blocks of 8x8 pixels.

An untrained encoder takes thousands of steps to find what a linear one knows from a few hundred pictures: of these
scenes four components keep 25.4 dB, eight 28.0 dB, sixteen 30.8 dB. AutoencoderTiny's encoder can hold a linear map
exactly. Its three strided convolutions gather 2x2 cells each, so that a cell at an eighth holds its 192 values, seen
through the components; rectifiers pass pixels, which are not negative, and a component as a pair of its positive and
negative part; and a residual block whose last convolution is zero passes what it gets. It stays as it is; only the
decoder is trained.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

BLOCK = 8


def principal_components(images: Sequence[np.ndarray], count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Components of the pictures' blocks of 8x8 pixels, values in [0, 1].

    Args:
        images: uint8 [h, w, 3] each, h and w multiples of 8.
        count: number of components.

    Returns:
        the mean [192], the components [count, 192] by falling deviation, and their deviations [count]; the 192 values
        of a block are ordered row, column, colour.
    """
    blocks = np.concatenate([_blocks(image) for image in images])
    mean = blocks.mean(0)
    values, vectors = np.linalg.eigh(np.cov((blocks - mean).T))
    order = np.argsort(values)[::-1][:count]
    deviations = np.sqrt(np.maximum(values[order], 1e-12))
    return tuple(torch.from_numpy(a.astype(np.float32)) for a in (mean, vectors[:, order].T.copy(), deviations))


def _blocks(image: np.ndarray) -> np.ndarray:
    height, width, colours = image.shape
    cells = image.reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK, colours).swapaxes(1, 2)
    return cells.reshape(-1, BLOCK * BLOCK * colours).astype(np.float64) / 255.0


@torch.no_grad()
def set_linear_encoder(encoder: nn.Module, mean: Tensor, components: Tensor, deviations: Tensor) -> None:
    """Makes AutoencoderTiny's encoder compute these components of each block, scaled.

    The latents' deviations are the cube roots of the components', the first one's being 1: coarse channels stand out
    of a diffusion's noise longer than fine ones, though not as much longer as in the picture.

    Args:
        encoder: `AutoencoderTiny.encoder`, of factor 8 and at least max(48, 2 · channels) wide.
        mean, components, deviations: as `principal_components` gives them, as many as there are latent channels.
    """
    convolutions = [layer for layer in encoder.layers if isinstance(layer, nn.Conv2d)]
    first, *strided, last = convolutions
    width, count = first.out_channels, last.out_channels
    if len(strided) != 3 or width < max(48, 2 * count) or len(components) != count:
        raise ValueError(f"{len(strided)} strides, width {width}, {count} latents, {len(components)} components")
    for layer in encoder.layers:
        if not isinstance(layer, nn.Conv2d):  # a residual block
            final = [part for part in layer.conv if isinstance(part, nn.Conv2d)][-1]
            final.weight.zero_()
            final.bias.zero_()
    first.weight[:3] = 0
    first.bias[:3] = 0
    first.weight[range(3), range(3), 1, 1] = 1
    # After the first stride channel 3 · (2 y + x) + colour holds pixel (y, x) of 2x2, after the second likewise of 4x4.
    for number, layer in enumerate(strided[:2]):
        held = 3 * 4**number
        layer.weight[: 4 * held] = 0
        for channel, (row, column) in ((c, divmod(c // held, 2)) for c in range(4 * held)):
            layer.weight[channel, channel % held, 1 + row, 1 + column] = 1
    final = strided[2]
    final.weight[: 2 * count] = 0
    places = _places()
    for cell in range(4):
        row, column = divmod(cell, 2)
        # The 48 values of one quarter of the block, in the order in which the channels hold them.
        part = components[:, places[cell]]
        final.weight[:count, :48, 1 + row, 1 + column] = part
        final.weight[count : 2 * count, :48, 1 + row, 1 + column] = -part
    scale = (deviations / deviations[0]) ** (1 / 3) / deviations
    if not hasattr(encoder.layers[-2], "conv"):
        scale = scale / 2  # no residual block, hence no rectifier: both of a pair are there, whatever the sign
    last.weight.zero_()
    last.weight[range(count), range(count), 1, 1] = scale
    last.weight[range(count), range(count, 2 * count), 1, 1] = -scale
    last.bias.copy_(-(components @ mean) * (deviations / deviations[0]) ** (1 / 3) / deviations)


def _places() -> list[list[int]]:
    """For each quarter of a block, where in its 192 values (row, column, colour) each of the 48 channels stands."""
    found: list[list[int]] = []
    for quarter in range(4):
        top, left = (4 * part for part in divmod(quarter, 2))
        rows = []
        for channel in range(48):
            outer, inner = divmod(channel, 12)  # which 2x2 cell of the quarter, which value in it
            (y1, x1), (pixel, colour) = divmod(outer, 2), divmod(inner, 3)
            y0, x0 = divmod(pixel, 2)
            y, x = top + 2 * y1 + y0, left + 2 * x1 + x0
            rows.append((y * BLOCK + x) * 3 + colour)
        found.append(rows)
    return found
