"""Where the overlapping windows lie on a latent canvas; cutting them out and averaging them back.

All lengths here are latent cells. Windows are numbered row by row, as in MultiDiffusion (Bar-Tal et
al., ICML 2023) and in SyncDiffusion's released code; windows of a loop closure follow after those.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from syncdiffusion.canvas import check_stride, nearest_covered
from syncdiffusion.errors import UsageError

LOOP_CLOSURES = ("off", "released", "full")


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
    """Windows of side `size` every `stride` cells, covering the canvas to its last cell.

    Args:
        loop_closure: "off"; "released", the `size // stride - 2` windows that the released code wraps
            around the right edge; or "full", all `size // stride - 1` of them, so that the seam is
            covered by as many windows as any other place.

    Raises:
        UsageError: the windows cannot cover the canvas, or cannot be wrapped around it.
    """
    check_stride(stride, size)
    for name, length in (("height", height), ("width", width)):
        if length < size or (length - size) % stride:
            raise UsageError(
                f"{name}={length} latent cells: windows of {size} every {stride} cannot cover it without a gap; "
                f"nearest that they can: {nearest_covered(length, size, stride)}"
            )
    if loop_closure not in LOOP_CLOSURES:
        raise UsageError(f"loop_closure={loop_closure}: use one of {', '.join(LOOP_CLOSURES)}")
    corners = [
        (top, left) for top in range(0, height - size + 1, stride) for left in range(0, width - size + 1, stride)
    ]
    if loop_closure != "off":
        if height != size or size % stride or width < 2 * size:
            raise UsageError(
                f"loop_closure={loop_closure}: needs a canvas one window high ({size} cells) and at least two wide, "
                f"and a stride that divides {size}; got {height}x{width}, stride={stride}"
            )
        extra = size // stride - (2 if loop_closure == "released" else 1)
        corners += [(0, width - size + (i + 1) * stride) for i in range(extra)]
    return Windows(height, width, size, tuple(corners))
