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


def write_whole(path: Path, content: bytes | str, setting: str = "run_dir") -> None:
    """Write a file whole or not at all; `setting` (or option, such as --out) is the one that chose its folder.

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
        raise unwritable(path, error, setting) from error
    except BaseException:
        discard(temporary)
        raise


class Unwritable(UsageError):
    """A file that cannot be written.

    reason: the system's.
    setting: the one that chose the folder; or a command's option, such as --out.
    """

    def __init__(self, path: Path, reason: str, setting: str) -> None:
        super().__init__(path, reason, setting)  # all of them, so that the error can be pickled
        self.path, self.reason, self.setting = path, reason, setting

    def __str__(self) -> str:
        told = f"{self.setting}: cannot write {self.path} ({self.reason}); make room there or give another"
        if self.setting.startswith("-"):
            return f"{told} {self.setting} FOLDER"
        return f"{told} {self.setting}=FOLDER; what is done stays"  # a run goes on from there, a command begins anew


def unwritable(path: Path, error: OSError, setting: str) -> Unwritable:
    return Unwritable(path, str(error.strerror), setting)


def discard(path: Path) -> None:
    try:
        path.unlink()
    except OSError:
        pass  # it was never there, or its folder cannot be written


def write_json(path: Path, value: Any, setting: str = "run_dir") -> None:
    write_whole(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n", setting)


def png_bytes(image: np.ndarray) -> bytes:
    """PNG of an H×W×3 uint8 image."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()
