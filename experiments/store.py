"""Panoramas on disk: one PNG and one JSON record for each (method, settings, prompt, seed).

The record is written after the PNG and holds its checksum, so a panorama counts as made only when both are whole.
A record's key is a digest of everything that decides the picture: a changed setting changes the key, and the panorama
is made again. `window_batch` and the device are left out: they decide speed and memory, the picture stays the same
within float tolerance. They stand in the record.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import secrets
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from syncdiffusion.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

FORMAT = 1  # raise it when a method's result changes for the same settings: everything is then made again
NOT_IN_KEY = frozenset({"window_batch"})


@dataclass(frozen=True)
class Unit:
    """One panorama of a run."""

    label: str  # the method's name in tables, and its folder
    method: str  # the name in baselines.METHODS
    settings: Mapping[str, Any]
    prompt: str
    seed: int

    def png(self, folder: Path) -> Path:
        return folder / "panoramas" / self.label / slug(self.prompt) / f"{self.seed}.png"

    def json(self, folder: Path) -> Path:
        return self.png(folder).with_suffix(".json")


def slug(prompt: str, longest: int = 60) -> str:
    """A short ASCII folder name; a digest follows where the prompt cannot be read back from the name alone.

    >>> slug("a photo of a city skyline at night")
    'a-photo-of-a-city-skyline-at-night'
    """
    plain = unicodedata.normalize("NFKD", prompt).encode("ascii", "ignore").decode()
    name = re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")[:longest].rstrip("-")
    if name and name.replace("-", " ") == prompt:
        return name
    return f"{name}-{hashlib.sha256(prompt.encode()).hexdigest()[:8]}".lstrip("-")


def unit_key(unit: Unit, model: Mapping[str, Any]) -> str:
    """SHA-256 over what decides the picture. `model` holds the backbone's fingerprint and precision."""
    content = {
        "format": FORMAT,
        "method": unit.method,
        "settings": {key: value for key, value in unit.settings.items() if key not in NOT_IN_KEY},
        "model": {"fingerprint": model["fingerprint"], "precision": model["precision"]},
        "prompt": unit.prompt,
        "seed": unit.seed,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file whole or not at all.

    Raises:
        UsageError: the folder is read-only, the disk full, a file stands where a folder must be, ...
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(temporary, path)
    except OSError as error:
        discard(temporary)
        raise UsageError(
            f"run_dir: cannot write {path} ({error.strerror}); make room there or give another run_dir=FOLDER; "
            "what is done stays"
        ) from error
    except BaseException:
        discard(temporary)
        raise


def discard(path: Path) -> None:
    try:
        path.unlink()
    except OSError:
        pass  # it was never there, or its folder cannot be written


def write_json(path: Path, value: Any) -> None:
    write_whole(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def png_bytes(image: np.ndarray) -> bytes:
    """PNG of an H×W×3 uint8 image."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


def save_panorama(folder: Path, unit: Unit, image: np.ndarray, record: Mapping[str, Any]) -> dict[str, Any]:
    """Write the picture, then its record; returns the record."""
    data = png_bytes(image)
    height, width = image.shape[:2]
    full = {**record, "width": width, "height": height, "png_sha256": hashlib.sha256(data).hexdigest()}
    write_whole(unit.png(folder), data)
    write_json(unit.json(folder), full)
    for leftover in unit.png(folder).parent.glob(f".{unit.seed}.*.tmp"):  # of a process killed while writing
        discard(leftover)
    return full


def read_record(folder: Path, unit: Unit) -> dict[str, Any] | None:
    """The record of a panorama whose PNG is whole, else None."""
    try:
        record = json.loads(unit.json(folder).read_text())
        data = unit.png(folder).read_bytes()
    except (OSError, ValueError):
        return None
    if not isinstance(record, dict) or record.get("png_sha256") != hashlib.sha256(data).hexdigest():
        return None
    return record


def made(folder: Path, unit: Unit, key: str) -> dict[str, Any] | None:
    """The record of a panorama that is whole and was made with just these settings, else None."""
    record = read_record(folder, unit)
    return record if record is not None and record.get("key") == key else None
