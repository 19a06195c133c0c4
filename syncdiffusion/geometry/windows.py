"""Where the overlapping windows lie on a latent canvas; cutting them out and averaging them back.

All lengths here are latent cells. Windows are numbered row by row, as in MultiDiffusion (Bar-Tal et
al., ICML 2023) and in SyncDiffusion's released code; windows of a loop closure follow after those.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from syncdiffusion.geometry.sizes import window_corners


@dataclass(frozen=True)
class Windows:
    """Square windows on a canvas.

    height, width: the canvas.
    size: side of a window.
    corners: (top, left) of each; a window whose left + size exceeds the width wraps around.
    """

    height: int
    width: int
    size: int
    corners: tuple[tuple[int, int], ...]

    def __len__(self) -> int:
        return len(self.corners)

    def _cells(self, device: torch.device) -> Tensor:
        """Index of every window's cells in the flattened canvas, [N, size * size]."""
        corners = torch.tensor(self.corners, device=device)
        along = torch.arange(self.size, device=device)
        rows = corners[:, :1] + along
        columns = (corners[:, 1:] + along) % self.width
        return (rows[:, :, None] * self.width + columns[:, None, :]).flatten(1)

    def crop(self, canvas: Tensor) -> Tensor:
        """All windows of each canvas: [n, c, height, width] -> [n, N, c, size, size]."""
        n, c = canvas.shape[:2]
        cells = canvas.flatten(2)[:, :, self._cells(canvas.device)]
        return cells.transpose(1, 2).reshape(n, len(self), c, self.size, self.size)

    def fuse(self, windows: Tensor) -> Tensor:
        """Mean over the windows that cover each cell: [n, N, c, size, size] -> [n, c, height, width]."""
        n, _, c = windows.shape[:3]
        cells = self._cells(windows.device).flatten()
        values = windows.transpose(1, 2).reshape(n, c, -1)
        total = torch.zeros(n, c, self.height * self.width, dtype=windows.dtype, device=windows.device)
        total.index_add_(2, cells, values)
        count = torch.bincount(cells, minlength=self.height * self.width)
        return (total / count).reshape(n, c, self.height, self.width)


def place_windows(height: int, width: int, size: int, stride: int, loop_closure: str = "off") -> Windows:
    """Windows of side `size` every `stride` cells, covering the canvas to its last cell; see `canvas.window_corners`.

    Raises:
        UsageError: the windows cannot cover the canvas, or cannot be wrapped around it.
    """
    return Windows(height, width, size, window_corners(height, width, size, stride, loop_closure))
