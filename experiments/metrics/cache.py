"""What a network saw in an image, kept on disk and found again by its content."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from experiments.common.files import Unwritable, write_whole
from experiments.panoramas.records import Checksums

CHECKSUM = 32  # bytes of a SHA-256


@dataclass
class FeatureCache:
    """One small file for each (image, measurement), named by a digest of its key: all that decides the values, as text.

    A file is a SHA-256 over key and content, then the values as .npy, so that a damaged file, or one under another's
    name, is as good as none. Any number of processes, runs and experiments may share the folder: files appear whole,
    and two processes that write one entry write the same values. A power failure may lose entries: they
    are sooner computed again than waited for at every write.

    checksums: of the images, as far as they are known already.
    failure: why an entry could not be written; from then on none is tried. It costs no score.
    """

    folder: Path
    checksums: Checksums = field(default_factory=Checksums)
    failure: Unwritable | None = None

    def get(self, key: str) -> np.ndarray | None:
        """The values, to the bit as they were put, or None. For keys see `measure.cache_key`."""
        try:
            data = self._path(key).read_bytes()
        except OSError:
            return None
        content = data[CHECKSUM:]
        if data[:CHECKSUM] != checksum(key, content):
            return None
        return np.load(io.BytesIO(content), allow_pickle=False)

    def put(self, key: str, values: np.ndarray) -> None:
        """Keep `values`; see `failure`."""
        if self.failure is not None:
            return
        buffer = io.BytesIO()
        np.save(buffer, values, allow_pickle=False)
        content = buffer.getvalue()
        try:
            write_whole(self._path(key), checksum(key, content) + content, lasting=False)
        except Unwritable as error:
            self.failure = error

    def _path(self, key: str) -> Path:
        name = hashlib.sha256(key.encode()).hexdigest()
        return self.folder / name[:2] / name


def checksum(key: str, content: bytes) -> bytes:
    return hashlib.sha256(key.encode() + content).digest()
