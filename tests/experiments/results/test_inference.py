"""Intervals and tests against SciPy's own, hand-made enumerations and published examples."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from experiments.results import inference as statistics
from experiments.results.inference import (
    holm,
    mean_interval,
    paired_comparison,
    paired_replicates,
    paired_values,
    sign_flip_p,
    stratified_error,
    t_half_width,
    unpaired_comparison,
)

RANDOM = np.random.default_rng(7)


def test_mean_interval_is_scipys_one_sample_interval():
    values = RANDOM.normal(3, 2, 11)
    found = mean_interval(values)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    np.testing.assert_allclose((found.mean, found.low, found.high), (values.mean(), *expected), rtol=1e-12)
    assert found.n == 11 and found.half_width == pytest.approx((expected.high - expected.low) / 2, rel=1e-12)
    narrower = mean_interval(values, confidence=0.5)
    assert narrower.half_width < found.half_width


def test_mean_interval_by_the_table_of_students_t():
    """1, 2, 3, 4, 5: mean 3, deviation sqrt(2.5), t of 4 degrees of freedom at 97.5 % is 2.776 in every table."""
    found = mean_interval([1, 2, 3, 4, 5])
    assert found.mean == 3 and found.half_width == pytest.approx(2.776 * np.sqrt(2.5 / 5), rel=2e-4)


def test_mean_interval_of_few_values():
    none, one = mean_interval([np.nan]), mean_interval([4.0, np.nan])
    assert none.n == 0 and np.isnan([none.mean, none.low, none.high]).all()
    assert (one.n, one.mean) == (1, 4.0) and np.isnan([one.low, one.high]).all()


def test_mean_interval_covers_as_often_as_it_says():
    """2000 samples of 6: the share of intervals that hold the true mean is 0.95 ± 0.005 (one standard error)."""
    values = np.random.default_rng(0).normal(1, 1, (2000, 6))
    inside = [each.low <= 1 <= each.high for each in map(mean_interval, values)]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.015)


def test_interval_over_all_pairs_is_not_narrower_where_prompts_differ():
    """Six prompts of very different means: the plain interval covers the mean over these prompts at least as often."""
    random = np.random.default_rng(1)
    prompts = np.array([0, 0, 1, 2, 4, 8.0])
    values = (prompts[:, None] + random.normal(0, 1, (1000, 6, 4))).reshape(1000, -1)
    inside = [each.low <= prompts.mean() <= each.high for each in map(mean_interval, values)]
    assert np.mean(inside) > 0.95


def test_paired_comparison_is_scipys_paired_interval():
    a, b = RANDOM.normal(0, 1, 12), RANDOM.normal(0.5, 1, 12)
    found = paired_comparison(a, b)
    expected = stats.ttest_rel(a, b).confidence_interval(0.95)
    np.testing.assert_allclose((found.low, found.high), expected, rtol=1e-12)
    assert found.difference == pytest.approx((a - b).mean()) and found.n == 12


def test_permutation_test_of_four_pairs_by_hand():
    """Differences 1, 2, 3, -4: of the 16 sums ±1±2±3±4 those at least 2 from zero are 14, all but the two zeros."""
    sums = [sum(signs) for signs in itertools.product((1, -1), (2, -2), (3, -3), (4, -4))]
    assert sum(abs(each) >= 2 for each in sums) == 14
    found = paired_comparison(np.array([1, 2, 3, 0]), np.array([0, 0, 0, 4]))
    assert found.p == 14 / 16 and found.difference == 0.5
    assert sign_flip_p(np.array([1, 2, 3, 4.0])) == 2 / 16


def test_permutation_test_is_exact_up_to_sixteen_pairs():
    differences = RANDOM.normal(0.3, 1, 10)
    signs = np.array(list(itertools.product((1, -1), repeat=10)))
    means = np.abs(signs @ differences)
    expected = np.mean(means >= abs(differences.sum()) * (1 - 1e-12))
    assert sign_flip_p(differences) == pytest.approx(expected, abs=1e-15)
    assert statistics.RESAMPLES >= 2**16


def test_permutation_test_of_many_pairs_is_random_but_fixed():
    """40 pairs: near the t test's p (both estimate one number; 99 999 resamples leave 0.0007 at p = 0.05), never 0."""
    differences = np.random.default_rng(3).normal(0.3, 1, 40)
    p = sign_flip_p(differences)
    assert p == sign_flip_p(differences)
    assert p == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, abs=0.01)
    assert 0 < sign_flip_p(np.full(40, 1.0)) <= 2 / statistics.RESAMPLES


def test_permutation_test_rejects_as_often_as_it_says():
    """400 samples of 8 where nothing differs: p <= 0.05 in at most 5 % of them (standard error 1 %)."""
    values = np.random.default_rng(5).normal(0, 1, (400, 8))
    assert np.mean([sign_flip_p(row) <= 0.05 for row in values]) < 0.08


def test_share_counts_the_pairs_in_which_a_is_better():
    a, b = np.array([1, 2, 3, 5.0]), np.array([2, 3, 4, 5.0])
    assert paired_comparison(a, b, "lower").share == 3.5 / 4
    assert paired_comparison(a, b, "higher").share == 0.5 / 4


def test_pairs_with_nan_are_left_out():
    a, b = np.array([1, np.nan, 3, 4.0]), np.array([0, 0, np.nan, 1.0])
    found = paired_comparison(a, b)
    assert (found.n, found.difference) == (2, 2.0)
    nothing, one = paired_comparison(a[1:2], b[1:2]), paired_comparison(a[:1], b[:1])
    assert nothing.n == 0 and np.isnan([nothing.difference, nothing.p, nothing.share]).all()
    assert (one.n, one.difference, one.share) == (1, 1.0, 0.0) and np.isnan([one.low, one.p]).all()
    assert np.isnan(paired_comparison(a, b, test=False).p)


def test_equal_pairs_are_no_difference():
    found = paired_comparison(np.ones(5), np.ones(5))
    assert (found.difference, found.low, found.high, found.p, found.share) == (0, 0, 0, 1, 0.5)


@pytest.mark.parametrize("arguments", [([1.0], [1.0, 2.0]), ([1.0], [1.0], "best"), ([[1.0]], [[1.0]])])
def test_paired_comparison_refuses(arguments):
    with pytest.raises(ValueError):
        paired_comparison(*map(lambda each: np.array(each) if isinstance(each, list) else each, arguments))


@pytest.mark.parametrize(
    ("p", "adjusted"),
    [
        ([0.50, 0.003, 0.32, 0.054, 0.0003], [0.64, 0.012, 0.64, 0.162, 0.0015]),  # the example of pingouin's manual
        ([0.319, 0.201, 0.4, 0.374, 0.113], [0.957, 0.804, 0.957, 0.957, 0.565]),  # stdlib.io, padjust
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # by hand: 4 x .005, 3 x .01, 2 x .03, max(.06, .04)
    ],
)
def test_holm_on_worked_examples(p, adjusted):
    np.testing.assert_allclose(holm(p), adjusted, rtol=1e-12)


def test_holm_is_the_closed_bonferroni_test():
    """Holm's procedure is the closure of Bonferroni's: p_j is the largest |S| min(p in S) over the sets S with j."""
    p = np.random.default_rng(2).uniform(0, 0.6, 7)
    sets = [s for size in range(1, 8) for s in itertools.combinations(range(7), size)]
    closed = [max(min(1, len(s) * min(p[list(s)])) for s in sets if j in s) for j in range(7)]
    np.testing.assert_allclose(holm(p), closed, rtol=1e-12)


def test_holm_leaves_out_what_was_not_tested():
    np.testing.assert_array_equal(holm([np.nan, 0.02, np.nan, 0.01]), [np.nan, 0.02, np.nan, 0.02])
    assert holm([]).size == 0 and np.isnan(holm([np.nan])).all()


def frame(columns, *rows):
    return pd.DataFrame(rows, columns=columns.split())


def test_pairs_share_prompt_and_seed():
    panoramas = frame(
        "method prompt seed lpips",
        ("a", "hills", 1, 0.1),
        ("a", "hills", 0, 0.2),
        ("a", "city", 0, 0.3),
        ("a", "city", 5, 0.9),
        ("b", "city", 0, 3.0),
        ("b", "hills", 0, 2.0),
        ("b", "hills", 1, 1.0),
        ("b", "hills", 7, 9.0),
    )
    a, b = paired_values(panoramas, "a", "b", "lpips")
    assert (a * 10).tolist() == pytest.approx(b.tolist()) and sorted(b) == [1, 2, 3]
    assert paired_values(panoramas, "a", "b", "lpips", "city")[1].tolist() == [3.0]
    assert paired_values(panoramas, "a", "absent", "lpips")[0].size == 0
    with pytest.raises(pd.errors.MergeError):  # a panorama that stands there twice is no pair
        paired_values(pd.concat([panoramas, panoramas]), "a", "b", "lpips")


def test_replicates_are_matched_by_their_number():
    replicates = frame(
        "method replicate metric value n",
        ("a", 1, "kid", 0.1, 6),
        ("a", 0, "kid", 0.2, 6),
        ("b", 0, "kid", 0.5, 6),
        ("b", 1, "kid", 0.7, 6),
        ("b", 1, "fid", 70.0, 6),
        ("a", 2, "kid", 0.3, 6),
        ("b", 2, "kid", 0.9, 5),  # of fewer images: no pair
    )
    a, b = paired_replicates(replicates, "a", "b", "kid")
    assert (a.tolist(), b.tolist()) == ([0.2, 0.1], [0.5, 0.7])


def test_without_pairs_one_prompt_is_welchs_test():
    """SciPy's Welch interval; and every way to deal twelve values, of which the test draws some."""
    from itertools import combinations

    from scipy.stats import ttest_ind

    rng = np.random.default_rng(3)
    a, b = rng.normal(1, 1, 7), rng.normal(0, 3, 5)
    found = unpaired_comparison({"p": a}, {"p": b})
    theirs = ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), rel=1e-12)
    values, chosen = np.append(a, b), map(list, combinations(range(12), 7))
    deals = np.array([values[mine].mean() - np.delete(values, mine).mean() for mine in chosen])
    exact = (np.abs(deals) >= abs(a.mean() - b.mean()) - 1e-12).mean()
    assert found.p == pytest.approx(exact, abs=0.02)  # four standard errors of 9,999 draws
    assert found.n == 12 and found.difference == pytest.approx(a.mean() - b.mean())
    assert found.share == pytest.approx(np.mean(a[:, None] < b[None]))


def test_without_pairs_prompts_are_blocks():
    """What a prompt does to both methods takes no part: neither in the difference, nor its error, nor its test."""
    rng = np.random.default_rng(4)
    a = {"p": rng.normal(0, 1, 6), "q": rng.normal(0, 1, 6)}
    b = {"p": rng.normal(0.5, 1, 6), "q": rng.normal(0.5, 1, 6), "r": rng.normal(9, 1, 6)}
    plain = unpaired_comparison(a, b)
    far = {"p": 0.0, "q": 100.0, "r": -50.0}
    moved = unpaired_comparison({k: v + far[k] for k, v in a.items()}, {k: v + far[k] for k, v in b.items()})
    assert (moved.n, moved.difference, moved.low, moved.high, moved.p, moved.share) == pytest.approx(
        (plain.n, plain.difference, plain.low, plain.high, plain.p, plain.share), abs=1e-9
    )
    assert plain.n == 24  # r has no partner
    with_nan = unpaired_comparison({**a, "p": np.append(a["p"], np.nan)}, b)
    assert with_nan == plain


def test_without_pairs_the_interval_covers():
    """Of 400 samples of unequal numbers and spreads, about 95 % of intervals hold the truth (four standard errors)."""
    rng = np.random.default_rng(5)
    inside = 0
    for _ in range(400):
        groups = [(rng.normal(2, 1, 3), rng.normal(0, 2, 4)) for _ in range(3)]
        error, freedom = stratified_error(groups)
        inside += abs(np.mean([x.mean() - y.mean() for x, y in groups]) - 2) <= t_half_width(error, freedom)
    assert inside / 400 == pytest.approx(0.95, abs=0.044)


def test_prompts_of_one_value_do_not_make_the_interval_sure():
    """Nine prompts of one value and one of two: what tells the spread is two values a side. At least 95 % hold the
    truth, less four standard errors of 400 samples; with what is taken for the nine counted as told it is 82 %."""
    rng = np.random.default_rng(6)
    inside = 0
    for _ in range(400):
        groups = [(rng.normal(2, 1, n), rng.normal(0, 1, n)) for n in (*[1] * 9, 2)]
        error, freedom = stratified_error(groups)
        inside += abs(np.mean([x.mean() - y.mean() for x, y in groups]) - 2) <= t_half_width(error, freedom)
        assert freedom <= 2.001
    assert inside / 400 > 0.95 - 0.044


def test_without_pairs_too_little_is_no_test():
    nothing = unpaired_comparison({"p": np.ones(2)}, {"q": np.ones(2)})
    assert nothing.n == 0 and np.isnan(nothing.difference)
    single = unpaired_comparison({"p": np.ones(1)}, {"p": np.zeros(1)})
    assert (single.n, single.difference) == (2, 1) and np.isnan(single.p) and np.isnan(single.low)
    with pytest.raises(ValueError, match="lower or higher"):
        unpaired_comparison({}, {}, "best")
