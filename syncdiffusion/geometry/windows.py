"""Where the windows lie on a latent canvas; cutting them out and averaging them back.

All lengths here are latent cells. Windows are numbered row by row, as in MultiDiffusion (Bar-Tal et
al., ICML 2023) and in SyncDiffusion's released code; windows of a loop closure follow after those.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from syncdiffusion.geometry.sizes import window_corners


@dataclass(frozen=True)
class Windows:
    """Square windows on canvases.

    height, width: of a canvas.
    size: side of a window.
    corners: (top, left) of each; a window whose left + size exceeds the width wraps around.
    shifts: how far all windows lie further to the right, for each canvas of a batch; empty where none do.
    """

    height: int
    width: int
    size: int
    corners: tuple[tuple[int, int], ...]
    shifts: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.corners)

    def shifted(self, shifts: Sequence[int]) -> Windows:
        """The same windows, those of canvas i moved to the right by shifts[i] cells, around the edge."""
        return replace(self, shifts=tuple(int(shift) % self.width for shift in shifts))

    def enlarged(self, factor: int) -> Windows:
        """The same windows on a canvas of which each cell has become factor x factor of them."""
        corners = tuple((top * factor, left * factor) for top, left in self.corners)
        shifts = tuple(shift * factor for shift in self.shifts)
        return Windows(self.height * factor, self.width * factor, self.size * factor, corners, shifts)

    def _cells(self, device: torch.device) -> Tensor:
        """Index of every window's cells in the flattened canvas, [1, N · size²], or [n, N · size²] with shifts."""
        corners = torch.tensor(self.corners, device=device)
        along = torch.arange(self.size, device=device)
        rows = corners[:, :1] + along
        shifts = torch.tensor(self.shifts or (0,), device=device)
        columns = (corners[:, 1:] + along + shifts[:, None, None]) % self.width
        return (rows[:, :, None] * self.width + columns[:, :, None, :]).flatten(1)

    def crop(self, canvas: Tensor) -> Tensor:
        """All windows of each canvas: [n, c, height, width] -> [n, N, c, size, size]."""
        n, c = canvas.shape[:2]
        cells = self._cells(canvas.device)[:, None].expand(n, c, -1)
        views = canvas.flatten(2).gather(2, cells).view(n, c, len(self), self.size, self.size)
        return views.transpose(1, 2).contiguous()

    def fuse(self, windows: Tensor, weights: Tensor | None = None) -> Tensor:
        """Mean over the windows that cover each cell: [n, N, c, size, size] -> [n, c, height, width].

        Args:
            weights: of the mean, not negative, and at each cell above 0 in some window, [size, size] or
                [N, size, size]; None counts all windows alike.
        """
        n, _, c = windows.shape[:3]
        area = self.height * self.width
        cells = self._cells(windows.device).expand(n, -1)
        # All canvases side by side, so that one sum serves them all.
        cells = (cells + area * torch.arange(n, device=windows.device)[:, None]).flatten()
        weight = windows.new_ones(len(self), self.size, self.size)
        if weights is not None:
            weight = weight * weights.to(windows)
            windows = windows * weight[:, None]
        values = windows.permute(2, 0, 1, 3, 4).reshape(c, -1)
        total = values.new_zeros(c, n * area).index_add_(1, cells, values)
        share = values.new_zeros(n * area).index_add_(0, cells, weight.flatten().repeat(n))
        return (total / share).view(c, n, self.height, self.width).transpose(0, 1).contiguous()


def place_windows(height: int, width: int, size: int, stride: int, loop_closure: str = "off") -> Windows:
    """Windows of side `size` every `stride` cells, covering the canvas to its last cell; see `sizes.window_corners`.

    Raises:
        UsageError: the windows cannot cover the canvas, or cannot be wrapped around it.
    """
    return Windows(height, width, size, window_corners(height, width, size, stride, loop_closure))
