"""KNN-GIQA against a literal loop; its test and its standard error against SciPy's and simulation."""

import numpy as np
import pytest
from scipy import stats

from experiments.metrics.config import MetricsConfig
from experiments.metrics.definitions.giqa import METRIC, giqa_difference, giqa_scores
from experiments.metrics.estimates import Estimate, ImageSet, mean_estimate, stratified_mean


def features(n: int, d: int, seed: int, mean: float = 0.0, scale: float = 1.0) -> np.ndarray:
    return mean + scale * np.random.default_rng(seed).standard_normal((n, d))


def test_giqa_equals_a_literal_loop_and_passes_over_the_very_same_picture() -> None:
    x, y = features(10, 6, 15), features(12, 6, 16)
    x[0] = y[3]
    expected = []
    for row in x:
        distances = sorted(np.abs(row - other).sum() for other in y)
        expected.append(sum(1 / distance for distance in [v for v in distances if v > 0][:8]))
    np.testing.assert_allclose(giqa_scores(x, y), expected, rtol=1e-12)
    np.testing.assert_allclose(giqa_scores(x[:2], y[::-1]), expected[:2], rtol=1e-12)


def test_the_difference_is_a_mean_of_pairs_with_their_sign_flip_test() -> None:
    a, b, y = features(8, 6, 1), features(8, 6, 2, mean=0.8), features(20, 6, 3)
    differences = giqa_scores(a, y) - giqa_scores(b, y)
    found = giqa_difference(a, b, y, ("p",) * 8)
    exact = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
    assert (found.value, found.n) == (pytest.approx(differences.mean(), rel=1e-12), 8)
    assert found.p == pytest.approx(exact, abs=1e-12)
    assert found.stderr == pytest.approx(stats.sem(differences), rel=1e-12)


def test_the_standard_error_is_the_spread_over_new_seeds_of_the_same_prompts() -> None:
    """Prompts whose scores differ far more than their seeds: the plain error would be several times the spread."""
    random, prompts = np.random.default_rng(0), np.repeat(range(6), 10)
    levels = np.linspace(-6, 6, 6)[prompts]
    runs = [stratified_mean(levels + random.normal(0, 0.5 + 0.1 * prompts), tuple(prompts)) for _ in range(2000)]
    spread = np.std([run.value for run in runs])
    assert np.sqrt(np.mean([run.stderr**2 for run in runs])) / spread == pytest.approx(1, abs=0.05)
    assert stats.sem(levels) > 3 * spread


def test_stratified_mean_by_hand() -> None:
    """1, 3 | 5: variance within the first is 2, and the second is taken to have the same: (2 x 2 + 1 x 2) / 9."""
    found = stratified_mean(np.array([1.0, 3.0, 5.0]), ("p", "p", "q"))
    assert found == Estimate(3.0, pytest.approx(np.sqrt(6) / 3))
    assert stratified_mean(np.array([1.0, 5.0]), ("p", "q")) == Estimate(3.0, None)


def test_copies_of_a_panorama_among_the_references_do_not_count_as_neighbours() -> None:
    """Eight are wanted: of nine references one may be the very picture, and not two."""
    x, y = features(3, 4, 21), features(9, 4, 22)
    y[0] = x[1]
    sets = ImageSet(x, ("p",) * 3), ImageSet(y, ("p",) * 9)
    assert METRIC.enough(*sets, MetricsConfig()) and np.isfinite(METRIC.estimate(*sets, MetricsConfig()).value)
    y[5] = x[1]
    assert not METRIC.enough(*sets, MetricsConfig())


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="1 generated and 5 reference rows"):
        giqa_scores(features(1, 4, 17), features(5, 4, 18))
    with pytest.raises(ValueError, match="shapes"):
        giqa_scores(features(5, 3, 19), features(5, 4, 18))
    with pytest.raises(ValueError, match="5 reference rows for 8 neighbours"):
        giqa_scores(features(3, 4, 20), features(5, 4, 18))


def test_a_reference_that_is_no_number_is_not_passed_over() -> None:
    y = features(20, 4, 18)
    y[7] = np.nan
    with pytest.raises(ValueError, match="reference row 7"):
        giqa_scores(features(3, 4, 20), y)


def test_mean_estimate() -> None:
    assert mean_estimate(np.array([1.0, 2.0, 3.0])) == Estimate(2.0, pytest.approx(1 / np.sqrt(3)))
    assert mean_estimate(np.array([4.0])) == Estimate(4.0, None)
    with pytest.raises(ValueError, match="no values"):
        mean_estimate(np.array([]))
