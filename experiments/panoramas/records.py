"""The record beside a PNG, and whether the PNG is the one that it speaks of."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict, cast


class ModelFacts(TypedDict):
    """What identifies the model that made a panorama."""

    name: str
    id: str
    revision: str | None
    fingerprint: str
    precision: str
    compiled: bool
    adapters: NotRequired[dict[str, Any]]  # what was loaded onto it; see Adapters.record


class Record(TypedDict):
    """What stands in the JSON file beside a panorama. `seconds` and `peak_memory_bytes` are what making it took.

    panoramas_at_once: how many were made together with it, itself included: `seconds` are then its equal share,
        `peak_memory_bytes` those of all. prompt_id: what a file of prompts calls its prompt.
    """

    key: str
    label: str
    method: str
    settings: dict[str, Any]
    prompt: str
    seed: int
    seconds: float | None
    peak_memory_bytes: int | None
    device: str
    model: ModelFacts
    panoramas_at_once: NotRequired[int]
    prompt_id: NotRequired[str]
    imported: NotRequired[dict[str, Any]]
    width: NotRequired[int]
    height: NotRequired[int]
    png_sha256: NotRequired[str]
    execution: NotRequired[dict[str, Any]]
    made: NotRequired[str]
    worker: NotRequired[dict[str, Any]]
    versions: NotRequired[dict[str, str | None]]
    git: NotRequired[dict[str, Any]]


# Without these a record is damaged: scoring and the dry run could do nothing with it.
NEEDED: Mapping[str, type | tuple[type, ...]] = {
    "key": str,
    "method": str,
    "settings": dict,
    "seconds": (int, float),
    "peak_memory_bytes": int,
    "device": str,
    "model": dict,
    "png_sha256": str,
}
NEEDED_OF_MODEL: Mapping[str, type | tuple[type, ...]] = {
    "id": str,
    "revision": (str, type(None)),
    "fingerprint": str,
    "precision": str,
}


class FileVersion(NamedTuple):
    """What changes when a file is replaced or written to. Hard links of one file have the same."""

    device: int
    inode: int
    size: int  # bytes
    modified: int  # nanoseconds of the file system's clock

    @classmethod
    def of(cls, stat: os.stat_result) -> FileVersion:
        return cls(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)


class Checksums:
    """SHA-256 of files, kept for as long as this object lives: only a file that is new or has changed is read."""

    def __init__(self) -> None:
        self._known: dict[FileVersion, str] = {}

    def of(self, path: Path) -> str:
        """Raises OSError where the file cannot be read."""
        with path.open("rb") as file:  # opened first: NFS asks its server only then
            version = FileVersion.of(os.fstat(file.fileno()))
            if version not in self._known:
                self._known[version] = hashlib.file_digest(file, "sha256").hexdigest()
        return self._known[version]

    def of_data(self, path: Path, data: bytes) -> str:
        """The checksum of `data`, which was just read from `path`: no need to reckon it where the file is known."""
        version = FileVersion.of(path.stat())
        known = self._known.get(version)
        return hashlib.sha256(data).hexdigest() if known is None or version.size != len(data) else known

    def written(self, path: Path, checksum: str) -> None:
        """`path` was just written, and holds what has this checksum."""
        self._known[FileVersion.of(path.stat())] = checksum


def read_whole(png: Path, checksums: Checksums | None = None) -> Record | None:
    """The record beside a PNG; None where either is missing or damaged."""
    record = read_record(png)
    try:
        if record is None or record.get("png_sha256") != (checksums or Checksums()).of(png):
            return None
    except OSError:
        return None
    return record


def read_record(png: Path) -> Record | None:
    """The record beside a PNG, whatever that is; None where it is missing or damaged."""
    try:
        return as_record(json.loads(png.with_suffix(".json").read_text()))
    except (OSError, ValueError, RecursionError):  # ValueError: neither text nor JSON
        return None


def made(png: Path, key: str, checksums: Checksums | None = None) -> Record | None:
    """The record of a panorama that is whole and was made with just the settings of `key`, else None."""
    record = read_whole(png, checksums)
    return record if record is not None and record["key"] == key else None


def as_record(content: object) -> Record | None:
    """`content` where it has everything that is read from records, else None."""
    costs = ("seconds", "peak_memory_bytes")
    untold = {
        name for name in costs if isinstance(content, dict) and "imported" in content and content.get(name) is None
    }
    needed = {name: kind for name, kind in NEEDED.items() if name not in untold}
    if not has(content, needed) or not has(content["model"], NEEDED_OF_MODEL):
        return None
    if "seconds" not in untold and not (math.isfinite(content["seconds"]) and content["seconds"] >= 0):
        return None
    return cast(Record, content)


def has(content: Any, needed: Mapping[str, type | tuple[type, ...]]) -> bool:
    """Whether `content` is a mapping with a value of the right type for each name. True and False are no numbers."""
    if not isinstance(content, dict):
        return False
    return all(
        name in content and isinstance(content[name], kind) and not isinstance(content[name], bool)
        for name, kind in needed.items()
    )
