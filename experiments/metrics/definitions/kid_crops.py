"""KID of all disjoint squares of each panorama, in place of one at random.

The kernel of two panoramas is the mean of KID's kernel over their squares. So a panorama is one draw: two squares of
one panorama are no pair of draws, which would make the estimate biased, and the standard error is that of new
panoramas. It estimates nearly what KID estimates, whose squares begin anywhere, with less noise.
"""

from __future__ import annotations

from experiments.metrics.config import MetricsConfig
from experiments.metrics.discrepancies import cubic, of_crops, squared_mmd, squared_mmd_difference
from experiments.metrics.estimates import Difference, Estimate, ImageSet
from experiments.metrics.features import INCEPTION_GRID, alike, two_of_every_prompt
from experiments.metrics.metric import Metric, SetMetric

NOTE = "KID of all squares takes every disjoint square of a panorama, not one at random; a panorama is one draw."


def _estimate(x: ImageSet, y: ImageSet, config: MetricsConfig) -> Estimate:
    return squared_mmd(x.features, y.features, of_crops(cubic), x.prompts, y.prompts)


def _compare(a: ImageSet, b: ImageSet, y: ImageSet, config: MetricsConfig) -> Difference:
    return squared_mmd_difference(a.features, b.features, y.features, of_crops(cubic), a.prompts, y.prompts)


METRIC = SetMetric(
    name="kid_crops",
    place=21,
    measurement=INCEPTION_GRID,
    column=Metric("kid_crops", "KID, all squares", "lower", per_panorama=False, note=NOTE),
    enough=lambda x, y, config: two_of_every_prompt(x, y, config) and alike(x) and alike(y),
    estimate=_estimate,
    compare=_compare,
)
