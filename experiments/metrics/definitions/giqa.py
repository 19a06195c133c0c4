"""Mean-GIQA: how near the Inception features of each image lie to reference images (Gu et al., ECCV 2020)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from experiments.metrics.config import MetricsConfig
from experiments.metrics.estimates import Difference, Estimate, ImageSet, checked_features, stratified_mean
from experiments.metrics.features import INCEPTION, two_of_each
from experiments.metrics.metric import Metric, SetMetric
from experiments.results.inference import sign_flip_p


def giqa_scores(generated: np.ndarray, reference: np.ndarray, neighbours: int = 8) -> np.ndarray:
    """KNN-GIQA of each generated image, (n, d) and (m, d) features -> (n,) scores, higher is better.

    The sum, over its `neighbours` nearest reference features, of 1 / L1 distance. A reference at distance zero is the
    very same picture; it would make the score infinite and says nothing of the others, so it is passed over and the
    next nearest counts.

    Raises:
        ValueError: fewer references than neighbours, fewer than two rows, unequal d, or a value that is no finite
            number.
    """
    from scipy.spatial.distance import cdist

    x, y = checked_features(generated, reference)
    distances = np.concatenate([cdist(x[i : i + 256], y, "cityblock") for i in range(0, len(x), 256)])
    distances[distances == 0] = np.inf
    nearest = np.sort(distances, axis=1)[:, :neighbours]
    if nearest.shape[1] < neighbours or np.isinf(nearest).any():
        raise ValueError(f"{len(y)} reference rows for {neighbours} neighbours at non-zero distance")
    return (1 / nearest).sum(axis=1)


def giqa_difference(
    a: np.ndarray, b: np.ndarray, reference: np.ndarray, prompts: Sequence[str], neighbours: int = 8
) -> Difference:
    """Mean-GIQA of a less that of b, (n, d) each, where row i of both is of the same prompt and noise.

    The reference images are held fixed: a mean of n differences, so its test is the sign-flip test of those.

    Raises:
        ValueError: as `giqa_scores`.
    """
    differences = giqa_scores(a, reference, neighbours) - giqa_scores(b, reference, neighbours)
    mean = stratified_mean(differences, prompts)
    return Difference(mean.value, mean.stderr, sign_flip_p(differences), len(differences))


def _enough(generated: ImageSet, reference: ImageSet, config: MetricsConfig) -> bool:
    """Whether every image has `giqa_neighbours` references that are not the very same picture."""
    if not two_of_each(generated, reference, config):
        return False
    copies = Counter(row.tobytes() for row in reference.features)
    most = max(copies[row.tobytes()] for row in generated.features)
    return len(reference) - most >= config.giqa_neighbours


def _scores(generated: ImageSet, reference: ImageSet, config: MetricsConfig) -> np.ndarray:
    return giqa_scores(generated.features, reference.features, config.giqa_neighbours)


def _estimate(generated: ImageSet, reference: ImageSet, config: MetricsConfig) -> Estimate:
    return stratified_mean(_scores(generated, reference, config), generated.prompts)


def _compare(a: ImageSet, b: ImageSet, reference: ImageSet, config: MetricsConfig) -> Difference:
    sets = (each.features for each in (a, b, reference))
    return giqa_difference(*sets, a.prompts, config.giqa_neighbours)


METRIC = SetMetric(
    name="giqa",
    place=30,
    measurement=INCEPTION,
    column=Metric("giqa", "Mean-GIQA", "higher", per_panorama=False, flips=True),
    enough=_enough,
    estimate=_estimate,
    compare=_compare,
    numbers=_scores,
)
