"""How much each cell of a window counts where windows are averaged, [size, size], above 0; for `Windows.fuse`.

All are symmetric about the middle of the window, which lies between its two middle cells: a cell's distance to it is
|index - (size - 1) / 2|. What they are for lies in the methods that use them.
"""

from __future__ import annotations

import torch
from torch import Tensor


def from_middle(size: int) -> Tensor:
    """Each index's distance to the middle in halves of a window, [size]: 0 in the middle, just below 1 at the edges."""
    return (torch.arange(size, dtype=torch.float32) - (size - 1) / 2).abs() / (size / 2)


def gaussian(size: int, variance: float) -> Tensor:
    """exp(-d^2 / (2 · variance)), with d the distance to the middle in window widths; 1 in the middle."""
    along = torch.exp(-((from_middle(size) / 2) ** 2) / (2 * variance))
    return along[:, None] * along


def tent(size: int) -> Tensor:
    """Falls linearly to the edges, in both directions; windows half a window apart add up to 1 along a direction."""
    along = 1 - from_middle(size)
    return along[:, None] * along


def cone(size: int) -> Tensor:
    """Falls linearly with the Euclidean distance to the middle; 0 just beyond the corners."""
    along = from_middle(size)
    return 1 - torch.hypot(along[:, None], along) / 2**0.5


def faded(size: int, share: float) -> Tensor:
    """1 but at the sides, to which it falls linearly over `share` of a window, in both directions; 0 is 1 everywhere.

    share: 0 to 0.5. A cell k cells from the nearer side, 0 the outermost, has min(1, (k + 1/2) / (share · size)).
    """
    if share == 0:
        return torch.ones(size, size)
    to_side = size / 2 * (1 - from_middle(size))
    along = (to_side / (share * size)).clamp(max=1)
    return along[:, None] * along
