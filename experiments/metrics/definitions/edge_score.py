"""Edge score: how much more the first and last column of a ring differ than neighbouring columns elsewhere.

This project's own metric, not the paper's. The seam score at the one place where a panorama's ends meet, which a mean
over all borders of windows would hide: steps of 8 bits by which these two columns differ more than neighbouring columns
do, on average, at the other borders of latent cells. A ring without a seam has 0. Flat panoramas have none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from baselines import METHODS
from experiments.metrics.definitions.seam_score import seam_score
from experiments.metrics.metric import Measurement, Metric, PanoramaMetric

if TYPE_CHECKING:
    from experiments.metrics.config import MetricsConfig
    from experiments.metrics.measure import ImageFile, PanoramaImage

NOTE = (
    "Edge score is this project's own metric, not the paper's: by how many steps of 8 bits the first and last column "
    "of a panorama that closes to a ring differ more than neighbouring columns at other borders of latent cells."
)


def _parameters(item: PanoramaImage, config: MetricsConfig) -> dict[str, Any]:
    method = METHODS.get(item.made.get("method", ""))
    closed = method is not None and method.closed(item.made["settings"])
    return {"closed": closed, "factor": item.made.get("factor")}


def _compute(files: Sequence[ImageFile], network: None, config: MetricsConfig) -> Sequence[np.ndarray]:
    """The score (1,) of each, (0,) of flat panoramas."""
    found = []
    for file in files:
        told = _parameters(file.item, config)
        scores = [seam_score(file.pixels, [0], told["factor"], closed=True)] if told["closed"] else []
        found.append(np.array(scores, dtype=np.float64))
    return found


METRIC = PanoramaMetric(
    name="edge_score",
    place=81,
    measurement=Measurement("edge_score", 1, None, _parameters, _compute),
    numbers={Metric("edge_score", "Edge score", "lower", per_panorama=True, note=NOTE): np.mean},
    on_request=True,
)
