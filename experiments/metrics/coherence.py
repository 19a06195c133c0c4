"""How much the parts of one panorama look alike: Intra-LPIPS and Intra-Style-L."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from syncdiffusion.perceptual import PerceptualLoss


@dataclass(frozen=True)
class PairNetwork:
    """The network of one intra metric. network: provenance, known before `load` gives the distance itself."""

    network: str
    load: Callable[[], PerceptualLoss]


def pair_distances(loss: PerceptualLoss, crops: Sequence[np.ndarray], batch: int) -> np.ndarray:
    """Distances of all pairs i < j of k crops, (k (k - 1) / 2,) float64, in that order.

    crops: (size, size, 3) uint8, all of one size. The network sees each crop once, `batch` at a
    time; the pairs are differences of features. Six crops give the paper's 15 pairs.
    """
    device = next(loss.trunk.parameters()).device
    with torch.inference_mode():
        images = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255
        parts = [loss.features(part.to(device)) for part in images.split(batch)]
        layers = [torch.cat(layer) for layer in zip(*parts, strict=True)]
        rows = [loss.distance(_rows(layers, i, i + 1), _rows(layers, i + 1, len(crops))) for i in range(len(crops) - 1)]
        return torch.cat([row.double().cpu() for row in rows]).numpy() if rows else np.empty(0)


def _rows(layers: list[Tensor], start: int, stop: int) -> list[Tensor]:
    return [layer[start:stop] for layer in layers]
