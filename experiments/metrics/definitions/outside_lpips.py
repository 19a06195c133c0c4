"""Outside-LPIPS: how different the parts of one panorama are outside of its layout's regions. Low: coherent.

This project's own metric, for panoramas with a layout (`syncdiffusion.conditioning.layout`). A region is meant to
differ from the rest, so Intra-LPIPS says nothing of a layout's coherence. Here the crops are Intra-LPIPS's, the
network and the layers too, but each layer's mean over places is taken where both crops of a pair are background alone:
places of a layer whose square of the crop (its share of the width and height) no region touches. What a network sees at
a place reaches beyond that square, so a region's surroundings have a part in it. A pair that has no such place in some
layer counts for nothing. Without a layout every place counts, and the number is Intra-LPIPS.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.metrics.coherence import PairNetwork, features_of
from experiments.metrics.crops import grid_crops
from experiments.metrics.metric import Measurement, Metric, PanoramaMetric
from experiments.metrics.regions import background_pixels, cells_digest

if TYPE_CHECKING:
    from torch import Tensor

    from experiments.metrics.config import MetricsConfig
    from experiments.metrics.measure import ImageFile

NOTE = (
    "Outside-LPIPS is this project's own metric: Intra-LPIPS of what lies outside the regions of a layout. Without a "
    "layout it is Intra-LPIPS."
)


def masked_distances(
    loss: Any, crops: Sequence[np.ndarray], backgrounds: Sequence[np.ndarray], batch: int
) -> np.ndarray:
    """LPIPS of all pairs i < j of crops where both are background in every layer, float64.

    crops: (size, size, 3) uint8. backgrounds: (size, size) booleans.
    """
    import torch

    with torch.inference_mode():
        layers = features_of(loss, crops, batch)
        free = [background_places(np.stack(backgrounds), layer) for layer in layers]
        found = []
        for i, j in combinations(range(len(crops)), 2):
            total = 0.0
            for layer, places in zip(layers, free, strict=True):
                both = places[i] & places[j]
                if not both.any():
                    break
                total += float((layer[i] - layer[j]).square().sum(dim=0)[both].double().mean())
            else:
                found.append(total)
        return np.array(found)


def background_places(backgrounds: np.ndarray, layer: Tensor) -> Tensor:
    """Places of a layer (n, c, h, w) whose square of the crop is background alone; booleans (n, h, w)."""
    import torch
    from torch.nn.functional import adaptive_max_pool2d

    touched = torch.from_numpy(~backgrounds[:, None]).float()
    return (adaptive_max_pool2d(touched, layer.shape[-2:]) == 0)[:, 0].to(layer.device)


def _compute(files: Sequence[ImageFile], pairs: PairNetwork, config: MetricsConfig) -> Sequence[np.ndarray]:
    found = []
    for file in files:
        free = background_pixels(file.item, file.pixels.shape[:2])
        crops = grid_crops(file.pixels, config.crop), grid_crops(free, config.crop)
        found.append(masked_distances(pairs.load(), *crops, config.batch))
    return found


def _parameters(item: Any, config: MetricsConfig) -> dict[str, Any]:
    return {"crop": config.crop, "layout": cells_digest(item)}


METRIC = PanoramaMetric(
    name="outside_lpips",
    place=55,
    measurement=Measurement("outside_lpips", 1, "lpips", _parameters, _compute),
    numbers={Metric("outside_lpips", "Outside-LPIPS", "lower", per_panorama=True, note=NOTE, panel=15): np.mean},
    on_request=True,
    takes="two squares of metrics.crop that regions of a layout do not fill",
)
