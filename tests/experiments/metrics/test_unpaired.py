"""Differences of set metrics between methods that share no noise: their value, error and p."""

from itertools import combinations, product

import numpy as np
import pytest
from scipy import stats

from experiments.metrics.definitions.kid import kid
from experiments.metrics.estimates import Estimate, ImageSet, unpaired_difference


def test_kid_of_unpaired_sets_is_as_by_hand():
    """By Student of SciPy, 20 images less two for each of two prompts; equal sets differ by nothing."""
    prompts = ("p",) * 5 + ("q",) * 5
    rng = np.random.default_rng(0)
    x, y, z = (ImageSet(rng.standard_normal((10, 3)) + shift, prompts) for shift in (0, 0.1, 1))

    def estimate(each):
        return kid(each.features, x.features, each.prompts, x.prompts)

    same = unpaired_difference(y, y, estimate)
    assert (same.value, same.p, same.n) == (0, 1, 20)
    far, ours, theirs = unpaired_difference(z, y, estimate), estimate(z), estimate(y)
    assert far.value == ours.value - theirs.value
    error = (ours.stderr**2 + theirs.stderr**2) ** 0.5
    assert far.p == pytest.approx(2 * stats.t.sf(abs(far.value) / error, 20 - 2 * 2), rel=1e-9) and 0 < far.p < 0.5


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
