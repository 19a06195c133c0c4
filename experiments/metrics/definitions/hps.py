"""HPSv2: what people would prefer, 100 x cosine of crop and prompt by a CLIP trained on their choices. High: good.

Wu et al., 2023: CLIP ViT-H/14 fine-tuned on pairs of pictures between which people chose. Its checkpoint is a file of
open_clip's, `metrics.hps_file` (HPS_v2_compressed.pt or HPS_v2.1_compressed.pt of the authors); their package is not
needed. It was trained on whole square pictures, and sees the random crop. Only where it is named in `metrics.metrics`.
"""

from __future__ import annotations

import numpy as np

from experiments.metrics.definitions.clip_score import scores_of
from experiments.metrics.features import crop_parameters
from experiments.metrics.metric import Measurement, Metric, PanoramaMetric

METRIC = PanoramaMetric(
    name="hps",
    place=47,
    measurement=Measurement("hps", 1, "hps", crop_parameters, scores_of),
    numbers={Metric("hps", "HPSv2", "higher", per_panorama=True): np.mean},
    on_request=True,
)
