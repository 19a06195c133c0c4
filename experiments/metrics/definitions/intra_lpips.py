"""Intra-LPIPS: LPIPS-VGG between the non-overlapping square crops of a panorama, mean over pairs. Low: coherent."""

import numpy as np

from experiments.metrics.coherence import TWO_CROPS, pair_measurement
from experiments.metrics.metric import Metric, PanoramaMetric

METRIC = PanoramaMetric(
    name="intra_lpips",
    place=50,
    measurement=pair_measurement("intra_lpips", 1, "lpips"),
    numbers={Metric("intra_lpips", "Intra-LPIPS", "lower", per_panorama=True, panel=10, coherence=True): np.mean},
    takes=TWO_CROPS,
)
