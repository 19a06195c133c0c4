"""Latents that have been sampled and not yet been decoded, in a file beside the panorama that they become."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.common.files import write_whole

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Latents:
    """A denoised canvas [1, c, h, w], and what sampling it took."""

    latents: Tensor
    seconds: float
    peak_memory_bytes: int


def keep_latents(path: Path, key: str, sampled: Latents) -> None:
    """Write them, to the last bit, with the key of their panorama.

    Raises:
        Unwritable: the file.
    """
    from safetensors.torch import save

    told = {"key": key, "seconds": str(sampled.seconds), "peak_memory_bytes": str(sampled.peak_memory_bytes)}
    write_whole(path, save({"latents": sampled.latents.cpu().contiguous()}, told))


def kept_latents(path: Path, key: str) -> Latents | None:
    """What `keep_latents` wrote for the panorama of `key`; None where there is nothing, or something else."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            told = file.metadata() or {}
            if told.get("key") != key:
                return None
            return Latents(file.get_tensor("latents"), float(told["seconds"]), int(told["peak_memory_bytes"]))
    except (OSError, SafetensorError, KeyError, ValueError):
        return None
