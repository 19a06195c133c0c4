"""Recall: the share of reference images that lie in the manifold of the images' Inception features.

Kynkäänniemi et al., NeurIPS 2019: from 0 to 1, higher: the images vary as the reference does. It depends on the number
of images, whose balls shrink as they become many (it mostly falls), so compare at equal n; it rises with
`metrics.manifold_neighbours`. The reference is taken as it is: no standard error.
"""

from __future__ import annotations

from experiments.metrics.estimates import Estimate
from experiments.metrics.features import INCEPTION, two_of_each
from experiments.metrics.manifold import covered, recall_difference
from experiments.metrics.metric import Metric, SetMetric

METRIC = SetMetric(
    name="recall",
    place=27,
    measurement=INCEPTION,
    column=Metric("recall", "Recall", "higher", per_panorama=False, depends_on_n=True),
    enough=lambda x, y, config: two_of_each(x, y, config) and len(x) > config.manifold_neighbours,
    estimate=lambda x, y, config: Estimate(
        float(covered(y.features, x.features, config.manifold_neighbours).mean()), None
    ),
    compare=lambda a, b, y, config: recall_difference(a.features, b.features, y.features, config.manifold_neighbours),
)
