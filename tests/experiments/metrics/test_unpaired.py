"""Differences of set metrics between methods that share no noise: their value, error and p."""

from itertools import combinations, product

import numpy as np
import pytest
from scipy import stats

from experiments.metrics.definitions.kid import kid
from experiments.metrics.estimates import Estimate, ImageSet, unpaired_difference, unpaired_means
from experiments.results.inference import stratified_error


def test_kid_of_unpaired_sets_is_as_by_hand():
    """By Student of SciPy with the degrees of freedom of Welch and Satterthwaite; equal sets differ by nothing."""
    rng = np.random.default_rng(0)
    x, y, z = (
        ImageSet(rng.standard_normal((2 * n, 3)) + shift, ("p",) * n + ("q",) * n)
        for shift, n in ((0, 5), (0.1, 5), (1, 12))
    )

    def estimate(each):
        return kid(each.features, x.features, each.prompts, x.prompts)

    same = unpaired_difference(y, y, estimate)
    assert (same.value, same.p, same.n) == (0, 1, 20)
    far, ours, theirs = unpaired_difference(z, y, estimate), estimate(z), estimate(y)
    assert far.value == ours.value - theirs.value
    error = (ours.stderr**2 + theirs.stderr**2) ** 0.5
    freedom = error**4 / (ours.stderr**4 / (24 - 2) + theirs.stderr**4 / (10 - 2))
    assert far.p == pytest.approx(2 * stats.t.sf(abs(far.value) / error, freedom), rel=1e-9) and 0 < far.p < 0.5
    assert far.freedom == pytest.approx(freedom)


def test_the_mix_of_prompts_is_no_difference_between_methods():
    """Images of p have numbers around 300, of q around 10, by both methods; one has more of p, the other more of q."""
    rng = np.random.default_rng(2)

    def images(p: int, q: int):
        values = np.concatenate([rng.normal(300, 9, p), rng.normal(10, 3, q)])
        return ImageSet(values[:, None], ("p",) * p + ("q",) * q)

    below = 0
    for _ in range(200):
        a, b = images(12, 4), images(4, 12)
        found = unpaired_means(a, b, lambda each: each.features[:, 0])
        below += found.p < 0.05
    assert below / 200 < 0.05 + 4 * (0.05 * 0.95 / 200) ** 0.5 and found.n == 32
    means = [[s.features[np.array(s.prompts) == name, 0].mean() for name in "pq"] for s in (a, b)]
    assert found.value == pytest.approx(np.mean(np.subtract(*means)))
    error, freedom = stratified_error(
        [tuple(s.features[np.array(s.prompts) == name, 0] for s in (a, b)) for name in "pq"]
    )
    assert (found.stderr, found.freedom) == pytest.approx((error, freedom))


@pytest.mark.parametrize("shift", [0.3, -0.9])
def test_a_metric_without_an_error_is_tested_by_every_deal_of_the_labels(shift):
    """Against all C(6, 3) · C(4, 2) = 120 deals within prompts; four binomial errors of 500 random ones allowed."""
    rng = np.random.default_rng(1)
    values, prompts = rng.standard_normal((2, 5)), ("p", "p", "p", "q", "q")
    values[0] += shift
    ours, theirs = (ImageSet(each[:, None], prompts) for each in values)

    def estimate(each):
        return Estimate(float(each.features.mean()), None)

    of_p, of_q = values[:, :3].ravel(), values[:, 3:].ravel()
    deals = []
    for p, q in product(combinations(range(6), 3), combinations(range(4), 2)):
        mine = [*of_p[list(p)], *of_q[list(q)]]
        deals.append(np.mean(mine) - np.mean([*np.delete(of_p, p), *np.delete(of_q, q)]))
    found = unpaired_difference(ours, theirs, estimate)
    exact = np.mean(np.abs(deals) >= abs(found.value) * (1 - 1e-9))
    assert found.value == pytest.approx(values[0].mean() - values[1].mean()) and found.stderr is None
    assert 0.02 < exact < 0.98 and abs(found.p - exact) < 4 * (exact * (1 - exact) / 500) ** 0.5 + 1 / 500
