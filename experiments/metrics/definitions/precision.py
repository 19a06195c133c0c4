"""Precision: the share of images that lie in the manifold of the reference's Inception features.

Kynkäänniemi et al., NeurIPS 2019: from 0 to 1, higher: images look like reference ones. It depends on the number of
reference images (it mostly falls), and rises with `metrics.manifold_neighbours`; a method that makes one good picture
again and again has a perfect one, so read it beside recall. The paper looks through VGG-16, this through FID's
Inception.
"""

from __future__ import annotations

import numpy as np

from experiments.metrics.config import MetricsConfig
from experiments.metrics.estimates import Difference, Estimate, ImageSet, stratified_mean
from experiments.metrics.features import INCEPTION, two_of_each
from experiments.metrics.manifold import covered
from experiments.metrics.metric import Metric, SetMetric
from experiments.results.inference import sign_flip_p


def _covered(images: ImageSet, reference: ImageSet, config: MetricsConfig) -> np.ndarray:
    return covered(images.features, reference.features, config.manifold_neighbours).astype(np.float64)


def _estimate(images: ImageSet, reference: ImageSet, config: MetricsConfig) -> Estimate:
    return stratified_mean(_covered(images, reference, config), images.prompts)


def _compare(a: ImageSet, b: ImageSet, reference: ImageSet, config: MetricsConfig) -> Difference:
    differences = _covered(a, reference, config) - _covered(b, reference, config)
    mean = stratified_mean(differences, a.prompts)
    return Difference(mean.value, mean.stderr, sign_flip_p(differences), len(differences))


METRIC = SetMetric(
    name="precision",
    place=26,
    measurement=INCEPTION,
    column=Metric("precision", "Precision", "higher", per_panorama=False, flips=True),
    enough=lambda x, y, config: two_of_each(x, y, config) and len(y) > config.manifold_neighbours,
    estimate=_estimate,
    compare=_compare,
    numbers=_covered,
)
