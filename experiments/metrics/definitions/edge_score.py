"""Edge score: how much more a panorama's first and last column differ than neighbouring columns elsewhere.

This project's own metric, not the paper's. The seam score at the one place where a panorama's ends meet, which a mean
over all borders of windows would hide: steps of 8 bits by which these two columns differ more than neighbouring columns
do, on average, at the other borders of latent cells, or at all others where the size of cells is not known. A ring
without a seam has 0; an open panorama shows what a ring spares its viewer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.metrics.definitions.seam_score import seam_score
from experiments.metrics.metric import Measurement, Metric, PanoramaMetric
from experiments.panoramas.store import MADE_ELSEWHERE

if TYPE_CHECKING:
    from experiments.metrics.config import MetricsConfig
    from experiments.metrics.measure import ImageFile, PanoramaImage

NOTE = (
    "Edge score is this project's own metric, not the paper's: by how many steps of 8 bits the first and last column "
    "of a panorama, neighbours in a ring, differ more than neighbouring columns at other borders of latent cells."
)


def _cell(item: PanoramaImage) -> int | None:
    """Pixels of a latent cell; None of a picture that another tool made."""
    return None if item.made.get("method") == MADE_ELSEWHERE else item.made.get("factor")


def _parameters(item: PanoramaImage, config: MetricsConfig) -> dict[str, Any]:
    return {"factor": _cell(item)}


def _compute(files: Sequence[ImageFile], network: None, config: MetricsConfig) -> Sequence[np.ndarray]:
    """The score (1,) of each."""
    return [
        np.array([seam_score(file.pixels, [0], _cell(file.item) or 1, closed=True)], dtype=np.float64) for file in files
    ]


METRIC = PanoramaMetric(
    name="edge_score",
    place=81,
    measurement=Measurement("edge_score", 2, None, _parameters, _compute),
    numbers={Metric("edge_score", "Edge score", "lower", per_panorama=True, note=NOTE): np.mean},
    on_request=True,
)
