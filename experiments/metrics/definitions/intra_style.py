"""Intra-Style-L: distance of Gram matrices between the crops of Intra-LPIPS, summed as released, and as a mean."""

import numpy as np

from experiments.metrics.coherence import TWO_CROPS, pair_measurement
from experiments.metrics.metric import Metric, PanoramaMetric

ELSEWHERE = {"published_as": "intra_style", "ambiguous": "sum or mean over pairs not stated"}
MEAN = Metric("intra_style_mean", "Intra-Style-L (mean)", "lower", True, panel=20, coherence=True, **ELSEWHERE)
SUM = Metric("intra_style_sum", "Intra-Style-L (sum)", "lower", True, multiple_of=MEAN.name, **ELSEWHERE)

METRIC = PanoramaMetric(
    name="intra_style",
    place=60,
    measurement=pair_measurement("intra_style", 1, "style"),
    numbers={SUM: np.sum, MEAN: np.mean},
    takes=TWO_CROPS,
)
