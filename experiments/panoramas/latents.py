"""Latents that have been sampled and not yet been decoded, in a file beside the panorama that they become."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.common.files import write_whole
from experiments.common.resources import Cost

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Latents:
    """The denoised canvases of panoramas that were made together [n, c, h, w], and what sampling them took."""

    latents: Tensor
    cost: Cost


def keep_latents(path: Path, key: str, sampled: Latents) -> None:
    """Write them, to the last bit, with the key of their panoramas.

    Raises:
        Unwritable: the file.
    """
    from safetensors.torch import save

    told = {"key": key, **{name: str(value) for name, value in asdict(sampled.cost).items()}}
    write_whole(path, save({"latents": sampled.latents.cpu().contiguous()}, told))


def kept_latents(path: Path, key: str) -> Latents | None:
    """What `keep_latents` wrote for the panoramas of `key`; None where there is nothing, or something else."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            told = file.metadata() or {}
            if told.get("key") != key:
                return None
            cost = Cost(float(told["seconds"]), int(told["peak_memory_bytes"]))
            return Latents(file.get_tensor("latents"), cost)
    except (OSError, SafetensorError, KeyError, ValueError):
        return None
