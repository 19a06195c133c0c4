"""Square crops of a panorama: one at random for the set metrics, a grid for the intra metrics."""

import hashlib
import io
from pathlib import Path

import numpy as np
from PIL import Image

from syncdiffusion.errors import UsageError

UInt8 = np.ndarray  # (height, width, 3) uint8 RGB


def load_image(path: Path) -> UInt8:
    """An image file as (height, width, 3) uint8 RGB.

    Raises:
        UsageError: missing or unreadable.
    """
    return decode_image(read_image(path), path)


def read_image(path: Path) -> bytes:
    """The bytes of an image file. UsageError where it is missing."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


def decode_image(data: bytes, path: Path) -> UInt8:
    """The picture in the bytes that were read from `path`: 8 bits a channel, 16-bit grey rounded to them.

    Raises:
        UsageError: damaged, no picture, or one of more pixels than Pillow opens.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.mode.startswith("I"):  # 16-bit grey, which convert("RGB") would clip at 255
                grey = np.rint(np.asarray(image).astype(np.float64) / 257).clip(0, 255).astype(np.uint8)
                return np.repeat(grey[..., None], 3, axis=2)
            return np.asarray(image.convert("RGB"))
    except Image.DecompressionBombError as error:
        reason = "more pixels than Pillow opens"
        raise UsageError(f"image {path} cannot be read ({reason}); score smaller images") from error
    except Exception as error:  # of a damaged file Pillow raises what its decoder met: SyntaxError, struct.error, ...
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> UsageError:
    reason = getattr(error, "strerror", None) or "damaged"
    return UsageError(f"image {path} cannot be read ({reason}); generate it again")


def random_crop(image: UInt8, size: int, prompt: str, seed: int, salt: int = 0) -> UInt8:
    """One square crop whose place depends on (prompt, seed, salt) alone.

    So the crop does not change with the order of files or with what else is scored, and the
    panoramas that different methods made from one (prompt, seed) are cropped at the same place.
    Every offset from 0 to the last one, width - size, can be drawn.
    """
    height, width = image.shape[:2]
    _check(height, width, size)
    digest = hashlib.sha256(f"{salt}\n{seed}\n{prompt}".encode()).digest()
    generator = np.random.default_rng(int.from_bytes(digest, "big"))
    left = int(generator.integers(0, width - size, endpoint=True))
    top = int(generator.integers(0, height - size, endpoint=True))
    return image[top : top + size, left : left + size]


def grid_crops(image: UInt8, size: int) -> list[UInt8]:
    """Non-overlapping squares from the top left, row by row: six of a 1:6 panorama.

    A rest narrower than `size` at the right or bottom belongs to no crop.
    """
    height, width = image.shape[:2]
    _check(height, width, size)
    return [
        image[top : top + size, left : left + size]
        for top in range(0, height - size + 1, size)
        for left in range(0, width - size + 1, size)
    ]


def _check(height: int, width: int, size: int) -> None:
    if not 0 < size <= min(height, width):
        raise UsageError(f"metrics.crop={size}: images of {height}x{width} allow crops of 1 to {min(height, width)}")
