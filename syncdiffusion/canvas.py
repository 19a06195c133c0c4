"""Which canvas sizes windows can cover. Plain arithmetic, so that a bad size is refused before torch is imported."""

from syncdiffusion.errors import UsageError


def nearest_covered(length: float, size: int, stride: int) -> int:
    """The length nearest to `length` that windows of side `size` every `stride` cells cover to the last cell."""
    return size + max(0, round((length - size) / stride)) * stride


def check_stride(stride: int, size: int) -> None:
    """UsageError for a stride that leaves gaps between windows of side `size`, or none at all."""
    if not 1 <= stride <= size:
        raise UsageError(f"stride={stride}: use 1 to {size} latent cells, the window's side")


def check_pixels(name: str, pixels: int, factor: int, size: int, stride: int) -> int:
    """Latent cells of a canvas length given in pixels.

    Args:
        name: the setting, for the message.
        factor: pixels per latent cell.
        size, stride: of the windows, in latent cells.

    Raises:
        UsageError: windows cannot cover that length; names the nearest one in pixels that they can.
    """
    nearest = nearest_covered(pixels / factor, size, stride)
    if pixels / factor != nearest:
        raise UsageError(
            f"{name}={pixels}: windows of {size * factor} px every {stride * factor} px cannot cover it; "
            f"nearest that they can: {nearest * factor}"
        )
    return nearest
