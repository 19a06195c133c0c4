"""Means, paired differences and tests with their uncertainty: pure functions of NumPy arrays.

What is random here: the seeds. The prompts are fixed, so every interval speaks of new seeds of the same prompts, not of
prompts that nobody tried. The intervals are plain t intervals over all panoramas (or pairs): where prompts differ, the
spread between them is counted as if it were chance, which makes an interval too wide, never too narrow, as long as the
prompts have equally many seeds. (The variance of a stratified mean is the mean of the variances within the prompts,
over n; the variance over all values adds the variance of the prompts' means.) The sign-flip test needs no such
allowance: it compares a pair with itself, whatever its prompt.

Where methods did not start from one noise there are no pairs: `unpaired_comparison` takes their values as independent,
prompt by prompt.

Numbers of a whole set are never bootstrapped over images: FID and KID are no means over images. Two methods are
compared by swapping their labels within pairs of the same prompt and noise (experiments/metrics, where the features
are). Their spread over seeds is also seen in replicates, the same number on disjoint blocks of equally many seeds
against the same reference images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

SHUFFLED = 9_999  # of the test without pairs
RESAMPLES = 99_999  # of the sign-flip test, where there are more sign patterns than that (n > 16)


@dataclass(frozen=True)
class Interval:
    """A mean with its confidence interval; low and high are NaN where n < 2, the mean where n = 0."""

    mean: float
    low: float
    high: float
    n: int

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Comparison:
    """n pairs (a, b): the mean of a - b with its confidence interval, and whether it may be chance.

    p: two-sided sign-flip permutation test of the mean difference; NaN where n < 2 or no test was asked for.
    share: of the pairs, those in which a is better than b; a pair that is equal counts half. NaN where n = 0.
    """

    n: int
    difference: float
    low: float
    high: float
    p: float
    share: float


def mean_interval(values: Sequence[float] | np.ndarray, confidence: float = 0.95) -> Interval:
    """Mean and Student's t interval of independent values; NaN among them are left out."""
    values = np.asarray(values, dtype=np.float64)
    values = values[~np.isnan(values)]
    n = values.size
    if n == 0:
        return Interval(np.nan, np.nan, np.nan, 0)
    mean = float(values.mean())
    if n == 1:
        return Interval(mean, np.nan, np.nan, 1)
    from scipy.stats import t

    half = float(t.ppf((1 + confidence) / 2, n - 1) * values.std(ddof=1) / np.sqrt(n))
    return Interval(mean, mean - half, mean + half, n)


def t_half_width(stderr: float, freedom: int, confidence: float = 0.95) -> float:
    """Half of Student's interval of a value with this standard error; NaN where that is NaN or nothing is free."""
    from scipy.stats import t

    return float(t.ppf((1 + confidence) / 2, freedom) * stderr) if freedom > 0 else np.nan


def t_p(value: float, stderr: float, freedom: int) -> float:
    """Two-sided p of Student's test that a value with this standard error is zero; NaN where nothing tells."""
    from scipy.stats import t

    return float(2 * t.sf(abs(value) / stderr, freedom)) if freedom > 0 and stderr > 0 else np.nan


def paired_comparison(
    a: np.ndarray, b: np.ndarray, better: str = "lower", confidence: float = 0.95, test: bool = True
) -> Comparison:
    """a - b pair by pair.

    Args:
        a, b: (n,) values of two methods on the same (prompt, noise), or on the same replicate. A pair with a NaN in it
            is left out.
        better: "lower" or "higher", for the share of pairs in which a is better.
        test: also the permutation test. Replicates are too few for one: it cannot fall below 2 / 2^n.

    Raises:
        ValueError: a and b of unequal length, or a direction that is neither.
    """
    if better not in ("lower", "higher"):
        raise ValueError(f"better={better}: lower or higher")
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"pairs of shapes {a.shape} and {b.shape}: (n,) and (n,) wanted")
    differences = a - b
    differences = differences[~np.isnan(differences)]
    mean = mean_interval(differences, confidence)
    gains = -differences if better == "lower" else differences
    share = float(np.mean((np.sign(gains) + 1) / 2)) if mean.n else np.nan
    p = sign_flip_p(differences) if test else np.nan
    return Comparison(mean.n, mean.mean, mean.low, mean.high, p, share)


def unpaired_comparison(
    a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray], better: str = "lower", confidence: float = 0.95
) -> Comparison:
    """a - b where nothing makes pairs: means of independent values, prompt by prompt.

    Prompts are blocks: within each that both have, the mean of a less that of b; every prompt weighs the same, however
    many values it has. So what prompts do to both does not blur the difference.

    Args:
        a, b: prompt -> its values, (n_p,); NaN among them are left out.

    Returns:
        n: values of both together. low, high: Welch's interval, with Satterthwaite's degrees of freedom over all
        prompts; NaN where a prompt has one value of a method and no other tells the spread. p: of SHUFFLED random ways
        to deal the labels anew within each prompt, those whose difference is as large. share: the chance that a value
        of a is better than one of b of the same prompt (the mean of Mann and Whitney's over the prompts).
    """
    if better not in ("lower", "higher"):
        raise ValueError(f"better={better}: lower or higher")
    both = {name: tuple(known(side[name]) for side in (a, b)) for name in a if name in b}
    both = {name: pair for name, pair in both.items() if min(map(len, pair))}
    if not both:
        return Comparison(0, np.nan, np.nan, np.nan, np.nan, np.nan)
    difference = float(np.mean([x.mean() - y.mean() for x, y in both.values()]))
    half = t_half_width(*stratified_error(list(both.values())), confidence)
    gains = [np.sign(y[None] - x[:, None]) * (1 if better == "lower" else -1) for x, y in both.values()]
    share = float(np.mean([(gain.mean() + 1) / 2 for gain in gains]))
    n = sum(len(x) + len(y) for x, y in both.values())
    return Comparison(n, difference, difference - half, difference + half, shuffle_p(list(both.values())), share)


def known(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    return values[~np.isnan(values)]


def stratified_error(groups: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float]:
    """Standard error of the mean over groups of (mean of x - mean of y), and its degrees of freedom (Satterthwaite).

    A side of a single value is taken to spread as that side of the others does on the mean; NaN, 0 where none tells.
    What is so taken hangs on those others, so of one side the errors of both variances add up, the most that they can.
    """
    sides = list(zip(*groups, strict=True))
    pooled = []
    for side in sides:
        free = sum(len(each) - 1 for each in side)
        pooled.append(sum(((each - each.mean()) ** 2).sum() for each in side) / free if free else np.nan)
    total, below, freedom = 0.0, 0.0, 0
    for side, common in zip(sides, pooled, strict=True):
        told = [(each.var(ddof=1) / len(each), len(each) - 1) for each in side if len(each) > 1]
        free, taken = sum(count for _, count in told), common * sum(len(each) < 2 for each in side)
        if not free:
            return np.nan, 0.0
        total += sum(part for part, _ in told) + (taken if taken else 0.0)
        below += (np.sqrt(sum(part**2 / count for part, count in told)) + taken / np.sqrt(free)) ** 2
        freedom += free
    if total == 0:
        return 0.0, float(freedom)
    return float(np.sqrt(total)) / len(groups), float(total**2 / below) if below else float(freedom)


def shuffle_p(groups: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """Two-sided p of the hypothesis that within each group all values might as well have the other label.

    Statistic: the mean over groups of the difference of means. SHUFFLED random deals of a generator with a fixed seed,
    the observed one counted among them, so p is never 0. NaN where no deal differs from another.
    """
    if all(len(x) + len(y) < 3 for x, y in groups) and len(groups) < 2:
        return np.nan
    rng = np.random.default_rng(0)
    observed, found = 0.0, np.zeros(SHUFFLED)
    for x, y in groups:
        values = np.concatenate([x, y])
        weights = np.concatenate([np.full(len(x), 1 / len(x)), np.full(len(y), -1 / len(y))])
        observed += weights @ values
        dealt = rng.permuted(np.tile(values, (SHUFFLED, 1)), axis=1)
        found += dealt @ weights
    as_large = np.abs(found) >= abs(observed) - 1e-9 * max(abs(observed), float(np.abs(found).max()))
    return float((as_large.sum() + 1) / (SHUFFLED + 1))


def sign_flip_p(differences: np.ndarray) -> float:
    """Two-sided p of the hypothesis that each difference might as well have had the other sign (Fisher, 1935).

    Statistic: the mean. Exact over all 2^n sign patterns up to n = 16; beyond that RESAMPLES random ones of a
    generator with a fixed seed, with the observed pattern counted among them, so p is never 0. NaN where n < 2.
    """
    if len(differences) < 2:
        return np.nan
    from scipy.stats import permutation_test

    found = permutation_test(
        (differences,),
        lambda values, axis: values.mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=10_000,  # rows of signs at once: memory
        rng=np.random.default_rng(0),
    )
    return float(found.pvalue)


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Adjusted p-values of one family of tests (Holm, 1979), in the given order; a NaN is no test and stays one."""
    p = np.asarray(p_values, dtype=np.float64)
    adjusted, there = np.full_like(p, np.nan), np.flatnonzero(~np.isnan(p))
    order = there[np.argsort(p[there], kind="stable")]
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return adjusted


def paired_values(
    panoramas: pd.DataFrame, a: str, b: str, metric: str, prompt: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The metric of two labels on the (prompt, seed) that both have; of one prompt alone where it is given."""
    chosen = panoramas if prompt is None else panoramas[panoramas["prompt"] == prompt]
    return _matched(chosen, a, b, ["prompt", "seed"], metric)


def values_by_prompt(panoramas: pd.DataFrame, label: str, metric: str, prompt: str | None) -> dict[str, np.ndarray]:
    """Prompt -> the metric's values of a label; of one prompt alone where it is given."""
    mine = panoramas[panoramas["method"] == label]
    mine = mine if prompt is None else mine[mine["prompt"] == prompt]
    return {str(name): rows[metric].to_numpy(np.float64) for name, rows in mine.groupby("prompt", sort=False)}


def paired_replicates(replicates: pd.DataFrame, a: str, b: str, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """A set-level metric of two labels on the replicates that both have, of as many images each: FID falls with n."""
    return _matched(replicates[replicates["metric"] == metric], a, b, ["replicate", "n"], "value")


def _matched(frame: pd.DataFrame, a: str, b: str, keys: list[str], column: str) -> tuple[np.ndarray, np.ndarray]:
    left, right = (frame.loc[frame["method"] == label, [*keys, column]] for label in (a, b))
    both = left.merge(right, on=keys, suffixes=("_a", "_b"), validate="one_to_one").sort_values(keys)
    return both[f"{column}_a"].to_numpy(np.float64), both[f"{column}_b"].to_numpy(np.float64)
