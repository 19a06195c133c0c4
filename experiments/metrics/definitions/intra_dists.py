"""Intra-DISTS: DISTS (Ding et al., 2020) between the squares of Intra-LPIPS, mean over pairs. Low: coherent.

From 0 to 1. DISTS forgives that one texture lies elsewhere in the other picture, which LPIPS does not: it tells colour
and texture apart from layout. It is torchmetrics' own; only where it is named in `metrics.metrics`, for it takes five
times as long.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from experiments.metrics.coherence import TWO_CROPS
from experiments.metrics.crops import grid_crops
from experiments.metrics.features import grid_parameters
from experiments.metrics.metric import Measurement, Metric, PanoramaMetric

if TYPE_CHECKING:
    from experiments.metrics.config import MetricsConfig
    from experiments.metrics.dists import DistsNetwork
    from experiments.metrics.measure import ImageFile

NOTE = "Intra-DISTS is DISTS between the squares of Intra-LPIPS: it forgives that a texture lies elsewhere."


def _compute(files: Sequence[ImageFile], network: DistsNetwork, config: MetricsConfig) -> Sequence[np.ndarray]:
    """Of all pairs i < j of each file's squares."""
    found = []
    for file in files:
        pairs = list(combinations(grid_crops(file.pixels, config.crop), 2))
        parts = [network.distances(pairs[i : i + config.batch]) for i in range(0, len(pairs), config.batch)]
        found.append(np.concatenate([np.empty(0), *parts]))
    return found


METRIC = PanoramaMetric(
    name="intra_dists",
    place=52,
    measurement=Measurement("intra_dists", 1, "dists", grid_parameters, _compute),
    numbers={Metric("intra_dists", "Intra-DISTS", "lower", per_panorama=True, note=NOTE): np.mean},
    on_request=True,
    takes=TWO_CROPS,
)
