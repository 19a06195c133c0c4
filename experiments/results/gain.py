"""What share of a gain a row keeps: of the way from one method to another, pair by pair, with its interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from experiments.metrics.catalogue import METRICS
from experiments.results.inference import Interval
from experiments.results.study import Results

NOTHING_GAINED = "multidiffusion"  # the method whose windows are not pulled together


@dataclass(frozen=True)
class GainKept:
    """share: 0 for a row that is like `none`, 1 for one like `full`; low and high are NaN where the gain itself may be
    none."""

    label: str
    none: str
    full: str
    metric: str
    share: Interval


def share_interval(row: np.ndarray, none: np.ndarray, full: np.ndarray, confidence: float = 0.95) -> Interval:
    """mean(none - row) / mean(none - full) over n pairs, (n,) values each, with Fieller's (1954) interval.

    The interval holds the ratios r at which the mean of (none - row) - r (none - full) is not told apart from zero by
    Student's t over the pairs. So it allows for the uncertainty of the whole gain, and for what both have in common.
    low and high are NaN where the whole gain is not told apart from zero: ratios then have no bound on both sides.
    """
    from scipy.stats import t

    a, b = none - row, none - full
    n = a.size
    if n == 0 or b.mean() == 0:
        return Interval(np.nan, np.nan, np.nan, n)
    ratio = float(a.mean() / b.mean())
    if n == 1:
        return Interval(ratio, np.nan, np.nan, n)
    moments = np.cov(a, b) * t.ppf((1 + confidence) / 2, n - 1) ** 2 / n
    square, cross, rest = (
        b.mean() ** 2 - moments[1, 1],
        a.mean() * b.mean() - moments[0, 1],
        a.mean() ** 2 - moments[0, 0],
    )
    if square <= 0:
        return Interval(ratio, np.nan, np.nan, n)
    root = np.sqrt(max(cross**2 - square * rest, 0.0))
    return Interval(ratio, float((cross - root) / square), float((cross + root) / square), n)


def gains_kept(results: Results, metric: str) -> list[GainKept]:
    """The rows between MultiDiffusion (0) and the row with all of the gain (1), for a per-panorama metric.

    All of the gain has the row compared with, or, where that is MultiDiffusion itself, the row with the best mean: a
    choice that the same numbers decide, so its own share says nothing and shares of others are a little too small.
    Rows with the very numbers of either end are left out. Empty without MultiDiffusion, without the metric, without
    shared noise (there are no pairs), or where no row gains anything.
    """
    panoramas, better = results.panoramas, METRICS[metric].better
    labels = [row.label for row in results.study.rows if (panoramas["method"] == row.label).any()]
    none = next((row.label for row in results.study.rows if row.label == NOTHING_GAINED), None)
    if metric not in panoramas or none not in labels or not results.study.shared_noise:
        return []
    # A panorama of a single square has no coherence to measure.
    means = panoramas.groupby("method")[metric].mean().dropna()
    if none not in means:
        return []
    best = (means.idxmin if better == "lower" else means.idxmax)()
    full = best if results.study.compare_with == none else results.study.compare_with
    if full == none or full not in means:
        return []
    gain = means[none] - means[full] if better == "lower" else means[full] - means[none]
    if not gain > 0:
        return []
    paired = panoramas.pivot(index=["prompt", "seed"], columns="method", values=metric)
    found = []
    for label in labels:
        if label not in (none, full):
            of_row, of_none, of_full = paired[[label, none, full]].dropna().to_numpy().T
            if np.array_equal(of_row, of_none) or np.array_equal(of_row, of_full):
                continue
            found.append(GainKept(label, none, full, metric, share_interval(of_row, of_none, of_full)))
    return found
