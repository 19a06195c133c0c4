"""Files that are written whole or not at all, and the one line for a file that cannot be written."""

from __future__ import annotations

import io
import json
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

from syncdiffusion.errors import UsageError

if TYPE_CHECKING:
    import numpy as np


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file whole or not at all; its folder is made.

    Raises:
        Unwritable: the folder is read-only, the disk full, a file stands where a folder must be, ...
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(temporary, path)
    except OSError as error:
        discard(temporary)
        raise unwritable(path, error) from error
    except BaseException:
        discard(temporary)
        raise


class Unwritable(UsageError):
    """A file that cannot be written; `reason` is the system's.

    Which setting or option chose the folder only a command knows: it adds that, and what would do.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)  # both of them, so that the error can be pickled
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"cannot write {self.path} ({self.reason})"


def unwritable(path: Path, error: OSError) -> Unwritable:
    return Unwritable(path, str(error.strerror))


def discard(path: Path) -> None:
    try:
        path.unlink()
    except OSError:
        pass  # it was never there, or its folder cannot be written


def write_json(path: Path, value: Any) -> None:
    """As `write_whole`, of plain JSON values."""
    write_whole(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def png_bytes(image: np.ndarray) -> bytes:
    """PNG of an H×W×3 uint8 image."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()
