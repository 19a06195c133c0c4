"""What a network saw in an image, kept on disk and found again by its content."""

from __future__ import annotations

import hashlib
import io
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.common.files import write_whole
from syncdiffusion.errors import UsageError

logger = logging.getLogger(__name__)

CHECKSUM = 32  # bytes of a SHA-256


@dataclass
class FeatureCache:
    """One small file for each (image, measurement), named by a digest of its key: all that decides the values, as text.

    A file is a SHA-256 over key and content, then the values as .npy, so that a damaged file, or one under another's
    name, is as good as none. Any number of processes, runs and experiments may share the folder: files appear whole,
    and two processes that write one entry write the same values.

    setting: the one that chose the folder.
    """

    folder: Path
    setting: str = "run_dir"
    writable: bool = True  # false from the first failed write on

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
        """Keep `values`. A folder that cannot be written is told once on the log and costs no score."""
        if not self.writable:
            return
        buffer = io.BytesIO()
        np.save(buffer, values, allow_pickle=False)
        content = buffer.getvalue()
        try:
            write_whole(self._path(key), checksum(key, content) + content, self.setting)
        except UsageError as error:
            self.writable = False
            logger.warning("features are not kept: %s", error)

    def _path(self, key: str) -> Path:
        name = hashlib.sha256(key.encode()).hexdigest()
        return self.folder / name[:2] / name


def checksum(key: str, content: bytes) -> bytes:
    return hashlib.sha256(key.encode() + content).digest()
