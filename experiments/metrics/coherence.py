"""Distances between the parts of one panorama: what Intra-LPIPS, Intra-Style-L and Layout-LPIPS are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from experiments.metrics.crops import grid_crops
from experiments.metrics.features import grid_parameters
from experiments.metrics.metric import Measurement

if TYPE_CHECKING:
    from torch import Tensor

    from experiments.metrics.config import MetricsConfig
    from experiments.metrics.measure import ImageFile
    from syncdiffusion.perceptual.distances import PerceptualLoss

TWO_CROPS = "a picture that holds two squares of metrics.crop"


@dataclass(frozen=True)
class PairNetwork:
    """A perceptual distance. network: provenance, known before `load` gives the distance itself."""

    network: str
    load: Callable[[], PerceptualLoss]
    fingerprint: str = ""


def pair_measurement(
    name: str, version: int, network: str, prepare: Callable[[Tensor], Tensor] | None = None
) -> Measurement:
    """Distances between all pairs of a panorama's grid crops, (k (k - 1) / 2,); `prepare` is of `pair_distances`.

    One file at a time: its crops fill a batch, and the features of many would fill the memory.
    """

    def compute(files: Sequence[ImageFile], pairs: PairNetwork, config: MetricsConfig) -> Sequence[np.ndarray]:
        grids = (grid_crops(file.pixels, config.crop) for file in files)
        return [pair_distances(pairs.load(), crops, config.batch, prepare) for crops in grids]

    return Measurement(name, version, network, grid_parameters, compute)


def pair_distances(
    loss: PerceptualLoss,
    crops: Sequence[np.ndarray],
    batch: int,
    prepare: Callable[[Tensor], Tensor] | None = None,
) -> np.ndarray:
    """Distances of all pairs i < j of k crops, (k (k - 1) / 2,) float64, in that order.

    crops: (size, size, 3) uint8, all of one size. The network sees each crop once, `batch` at a
    time; the pairs are differences of features. Six crops give the paper's 15 pairs.
    prepare: what is done to the crops first, (k, 3, size, size) float32 in [0, 1] -> the same.
    """
    import torch

    with torch.inference_mode():
        layers = features_of(loss, crops, batch, prepare)
        rows = [loss.distance(_rows(layers, i, i + 1), _rows(layers, i + 1, len(crops))) for i in range(len(crops) - 1)]
        return torch.cat([row.double().cpu() for row in rows]).numpy() if rows else np.empty(0)


def features_of(
    loss: PerceptualLoss, crops: Sequence[np.ndarray], batch: int, prepare: Callable[[Tensor], Tensor] | None = None
) -> list[Tensor]:
    """The loss's features of k crops, a tensor of k rows per layer; arguments as in `pair_distances`."""
    import torch

    device = next(loss.trunk.parameters()).device
    images = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255
    images = images if prepare is None else prepare(images)
    parts = [loss.features(part.to(device)) for part in images.split(batch)]
    return [torch.cat(layer) for layer in zip(*parts, strict=True)]


def _rows(layers: list[Tensor], start: int, stop: int) -> list[Tensor]:
    return [layer[start:stop] for layer in layers]
