"""FID of all disjoint squares of each panorama, in place of one at random: six times as many features of a 1:6 one.

Squares of one panorama are no independent images: n counts panoramas, and labels are swapped panorama by panorama. The
number falls with the number of squares, so it compares with no FID of single crops.
"""

from __future__ import annotations

from experiments.metrics.config import MetricsConfig
from experiments.metrics.definitions.fid import fid, fid_difference
from experiments.metrics.estimates import Difference, Estimate, ImageSet
from experiments.metrics.features import INCEPTION_GRID, alike, rows_of, two_of_each
from experiments.metrics.metric import Metric, SetMetric

NOTE = "FID of all squares takes every disjoint square of a panorama, not one at random; n counts panoramas."


def _compare(a: ImageSet, b: ImageSet, reference: ImageSet, config: MetricsConfig) -> Difference:
    crops = a.features.shape[1]
    return fid_difference(rows_of(a), rows_of(b), rows_of(reference), crops=crops)


METRIC = SetMetric(
    name="fid_crops",
    place=11,
    measurement=INCEPTION_GRID,
    column=Metric("fid_crops", "FID, all squares", "lower", per_panorama=False, depends_on_n=True, note=NOTE),
    enough=lambda x, y, config: two_of_each(x, y, config) and alike(x),
    estimate=lambda x, y, config: Estimate(fid(rows_of(x), rows_of(y)), None),
    compare=_compare,
    on_request=True,
)
