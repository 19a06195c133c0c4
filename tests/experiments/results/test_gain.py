"""Shares of a gain: against Fieller's condition itself, the bootstrap, and simulations whose truth is known."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from experiments.results.gain import gains_kept, share_interval
from experiments.results.study import Results
from tests.experiments.report.test_tables import study


def pairs(n: int, seed: int, share: float = 0.5, gain: float = 0.1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, none and full with common noise."""
    random = np.random.default_rng(seed)
    common = 0.5 + 0.05 * random.standard_normal(n)
    own = 0.04 * random.standard_normal((3, n))
    return common + own[0] - share * gain, common + own[1], common + own[2] - gain


def test_the_ends_are_where_the_t_test_turns() -> None:
    row, none, full = pairs(24, 0)
    found = share_interval(row, none, full)
    assert found.mean == pytest.approx((none - row).mean() / (none - full).mean(), rel=1e-12) and found.n == 24
    for end in (found.low, found.high):
        p = stats.ttest_1samp((none - row) - end * (none - full), 0).pvalue
        assert p == pytest.approx(0.05, rel=1e-6)
    assert found.low < found.mean < found.high


def test_it_agrees_with_the_paired_bootstrap() -> None:
    row, none, full = pairs(60, 1)
    drawn = np.random.default_rng(0).integers(0, 60, (20_000, 60))
    shares = (none - row)[drawn].mean(axis=1) / (none - full)[drawn].mean(axis=1)
    found = share_interval(row, none, full)
    # percentiles of a bootstrap are narrower by about sqrt(59 / 60) and by normal against t
    np.testing.assert_allclose((found.low, found.high), np.percentile(shares, [2.5, 97.5]), atol=0.03)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_it_covers_as_often_as_it_says(share) -> None:
    """2000 samples of 24 pairs: 0.95 with a standard error of 0.005."""
    found = [share_interval(*pairs(24, seed, share)) for seed in range(2000)]
    assert np.mean([each.low <= share <= each.high for each in found]) == pytest.approx(0.95, abs=0.015)


def test_without_a_gain_there_is_no_interval() -> None:
    found = share_interval(*pairs(24, 3, gain=0.001))
    assert np.isnan([found.low, found.high]).all()
    nothing = share_interval(np.empty(0), np.empty(0), np.empty(0))
    assert nothing.n == 0 and np.isnan(nothing.mean)


def results(values: dict[str, list[float]], **changes) -> Results:
    rows = [
        {"method": label, "prompt": "p", "seed": seed, "intra_lpips": value}
        for label, each in values.items()
        for seed, value in enumerate(each)
    ]
    empty = pd.DataFrame()
    return Results(study(**changes), pd.DataFrame(rows), empty, empty)


def test_all_of_the_gain_has_the_row_compared_with_or_the_best() -> None:
    values = {"syncdiffusion": [0.2, 0.31, 0.3], "multidiffusion": [0.4, 0.5, 0.52], "mine": [0.15, 0.2, 0.3, 0.9]}
    (found,) = gains_kept(results(values), "intra_lpips")
    assert (found.label, found.none, found.full) == ("mine", "multidiffusion", "syncdiffusion")
    assert found.share.mean == pytest.approx((0.25 + 0.3 + 0.22) / (0.2 + 0.19 + 0.22)) and found.share.n == 3
    values["mine"] = values["mine"][:3]
    (found,) = gains_kept(results(values, compare_with="multidiffusion"), "intra_lpips")
    assert (found.label, found.full) == ("syncdiffusion", "mine")
    assert gains_kept(results(values), "layout_lpips") == []
    del values["multidiffusion"]
    assert gains_kept(results(values), "intra_lpips") == []
    worse = {"syncdiffusion": [0.6, 0.7], "multidiffusion": [0.4, 0.5], "mine": [0.4, 0.6]}
    assert gains_kept(results(worse), "intra_lpips") == []


def test_panoramas_of_a_single_square_have_no_gain() -> None:
    """As of 192 px and windows of 128: every Intra-LPIPS is missing."""
    values = {"syncdiffusion": [np.nan, np.nan], "multidiffusion": [np.nan, np.nan]}
    assert gains_kept(results(values), "intra_lpips") == []
    assert gains_kept(results(values, compare_with="multidiffusion"), "intra_lpips") == []
    half = {"syncdiffusion": [np.nan, np.nan], "multidiffusion": [0.4, 0.5], "mine": [0.2, 0.3]}
    assert gains_kept(results(half), "intra_lpips") == []
