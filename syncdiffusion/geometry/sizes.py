"""Which canvas sizes windows can cover, and where they lie. Plain arithmetic, so that a bad size is refused before
torch is imported."""

from syncdiffusion.errors import UsageError

LOOP_CLOSURES = ("off", "released", "full")


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


def check_one_row(height: int, pixels: int) -> None:
    """UsageError for a canvas of more than one row of windows; both in pixels, `pixels` a window's side."""
    if height != pixels:
        raise UsageError(f"height={height}: this method's windows lie in one row; use {pixels}, a window's height")


def window_corners(
    height: int, width: int, size: int, stride: int, loop_closure: str = "off"
) -> tuple[tuple[int, int], ...]:
    """(top, left) of every window of side `size`, `stride` apart, in latent cells; one may wrap around the right edge.

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
        if height != size or size % stride:
            raise UsageError(
                f"loop_closure={loop_closure}: needs a canvas one window high ({size} cells) and a stride that divides "
                f"{size}; got {height}x{width}, stride={stride}"
            )
        extra = size // stride - (2 if loop_closure == "released" else 1)
        if loop_closure == "released" and extra < 1:
            raise UsageError(
                f"loop_closure=released: with stride={stride} the released code wraps no window of {size} cells; "
                f"use a stride of {size // 3} or less, or loop_closure=full"
            )
        corners += [(0, width - size + (i + 1) * stride) for i in range(extra)]
    return tuple(corners)


def choose_anchors(anchor: int | str | None, windows: int) -> tuple[int, ...]:
    """The anchors' numbers: the one that `choose_anchor` knows for None, several of "3+10+17".

    Raises:
        UsageError: no such window, one named twice, or no numbers.
    """
    if not isinstance(anchor, str):
        return (choose_anchor(anchor, windows),)
    words = anchor.split("+")
    if not all(word.strip().isdecimal() for word in words):
        raise UsageError(f"anchor={anchor}: give a window's number, or several as in 3+10+17, or null for the centre")
    chosen = tuple(choose_anchor(int(word), windows) for word in words)
    if len(set(chosen)) < len(chosen):
        raise UsageError(f"anchor={anchor}: a window is named twice; name each once")
    return chosen


def choose_anchor(anchor: int | None, windows: int) -> int:
    """The anchor's number; for None the one that half of them come before, as in the released code.

    That is the centre of an odd number of rows and columns. With an even number of rows it lies at the left edge.

    Raises:
        UsageError: no such window.
    """
    chosen = windows // 2 if anchor is None else anchor
    if not 0 <= chosen < windows:
        raise UsageError(f"anchor={anchor}: use 0 to {windows - 1}, the windows' numbers, or null")
    return chosen
