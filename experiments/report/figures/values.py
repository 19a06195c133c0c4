"""The numbers behind the figures: a row's metrics with their intervals, a swept setting as an axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np

from baselines import facts
from experiments.metrics.catalogue import METRICS
from experiments.report.page.overlay import windows_of
from experiments.results.inference import Interval, mean_interval, paired_comparison, paired_replicates, paired_values
from experiments.results.numbers import COSTS, INTERVAL, STDERR, estimate, swap_comparison, without_pairs
from experiments.results.study import Results, Row, Study

LEAST_REPLICATES = 3  # with two the t interval is thirteen standard errors wide on either side
NORMAL = 1.96  # standard errors on either side of a 95 % interval
CHARACTER, GAP = 0.045, 0.03  # of a panel's width: of a character of its ticks, between two ticks at least


def rows_there(results: Results) -> list[Row]:
    """The rows that have panoramas; an unfinished run may lack some."""
    there = set(results.panoramas["method"])
    return [row for row in results.study.rows if row.label in there]


def swept_settings(results: Results) -> dict[str, list[Row]]:
    """Setting -> the rows of its values, where there are two at least."""
    found: dict[str, list[Row]] = {}
    for row in rows_there(results):
        if row.swept is not None:
            found.setdefault(row.swept[0], []).append(row)
    return {setting: rows for setting, rows in found.items() if len(rows) > 1}


def shown_metrics(results: Results, labels: Sequence[str]) -> list[str]:
    """Those that have panels, in that order, and that at least one of the rows has."""
    with_panel = sorted((each for each in METRICS.values() if each.panel is not None), key=lambda each: each.panel)
    return [each.name for each in with_panel if any(value_of(results, label, each.name) for label in labels)]


def coherence_metric() -> str:
    """What the trade-off and the prompts are drawn over: the first panel of those that joint diffusion is for."""
    return min((each for each in METRICS.values() if each.coherence), key=lambda each: each.panel).name


def headline_metric() -> str:
    """The number of a whole set that stands for its quality."""
    return next(each.name for each in METRICS.values() if each.headline)


def value_of(results: Results, label: str, metric: str) -> Interval | None:
    """A row's value with its 95 % interval; None where it was not measured.

    Per-panorama metrics and seconds: the mean over panoramas. Set-level metrics: the number of the whole set, with 1.96
    of its standard errors on either side; where it has none, as wide as the t interval of its replicates.
    """
    found = estimate(results, label, (METRICS | COSTS)[metric])
    if not np.isfinite(found.value):
        return None
    if found.kind == INTERVAL:
        return Interval(found.value, found.low, found.high, found.n)
    half = NORMAL * found.plus_minus
    if found.kind != STDERR:
        frame = results.replicates
        blocks = mean_interval(frame.loc[(frame["method"] == label) & (frame["metric"] == metric), "value"])
        half = blocks.half_width if blocks.n >= LEAST_REPLICATES else np.nan
    return Interval(found.value, found.value - half, found.value + half, found.n)


def difference(results: Results, label: str, metric: str, prompt: str | None = None) -> Interval | None:
    """A row less the row compared with, pair by pair; None where there is nothing to compare.

    Per-panorama metrics: the same prompt and noise; where noise is not shared, prompt by prompt. Set-level metrics: the
    difference of the whole sets as label swaps found it, else replicates, three at least.
    """
    against = results.study.compare_with
    if METRICS[metric].per_panorama and not results.study.shared_noise:
        apart = without_pairs(results, label, against, METRICS[metric], prompt)
        return Interval(apart.difference, apart.low, apart.high, apart.n) if apart.n else None
    if METRICS[metric].per_panorama:
        pairs = paired_values(results.panoramas, label, against, metric, prompt)
    else:
        swapped = swap_comparison(results, label, METRICS[metric])
        if swapped is not None:
            return Interval(swapped.difference, swapped.low, swapped.high, swapped.n)
        pairs = paired_replicates(results.replicates, label, against, metric)
        if len(pairs[0]) < LEAST_REPLICATES:
            return None
    found = paired_comparison(*pairs, test=False)
    return Interval(found.difference, found.low, found.high, found.n) if found.n else None


@dataclass(frozen=True)
class SweptAxis:
    """A swept setting as an axis.

    rows: in the order of the axis; positions: where each stands; ticks: what is written there.
    scale: "linear", "log" or "symlog".
    joined: whether points are joined by a line; choices that have no order are not.
    """

    label: str
    rows: tuple[Row, ...]
    positions: tuple[float, ...]
    ticks: tuple[str, ...]
    scale: str
    joined: bool


def swept_axis(study: Study, setting: str, rows: Sequence[Row]) -> SweptAxis:
    """Numbers lie where they belong if their ticks stay apart, else evenly spaced; words are categories."""
    numbers = [number_of(row, study) for row in rows]
    label = facts(rows[0].method, setting).axis or setting
    for row, number in zip(rows, numbers, strict=True):
        if row.swept[1] is None and number is not None:
            label += f" ({tick(row)} = {number})"
    if None in numbers:
        places = tuple(float(index) for index in range(len(rows)))
        return SweptAxis(label, tuple(rows), places, tuple(map(tick, rows)), "linear", False)
    order = sorted(range(len(rows)), key=lambda index: numbers[index])
    rows, numbers = [rows[index] for index in order], [float(numbers[index]) for index in order]
    ticks = tuple(map(tick, rows))
    scale = scale_of(numbers, ticks)
    places = range(len(rows)) if scale == "even" else numbers
    return SweptAxis(label, tuple(rows), tuple(map(float, places)), ticks, "linear" if scale == "even" else scale, True)


def number_of(row: Row, study: Study) -> float | None:
    """The swept value as a number; None where it is a word, or nothing whose number is known."""
    setting, value = row.swept
    if value is None and setting == "first_n":
        return study.canvas["steps"]
    if value is None and setting == "anchor":
        return windows_of(row, study.canvas)["anchors"][0]
    return value if isinstance(value, Real) and not isinstance(value, bool) else None


def tick(row: Row) -> str:
    """The value as the row's label has it: 20, all, centre."""
    return row.label.partition("=")[2] or row.label


def scale_of(numbers: Sequence[float], ticks: Sequence[str]) -> str:
    """The first scale on which the ticks of ascending `numbers` do not run into each other; "even" where there is none.

    Numbers that span a factor of eight or more try the logarithm first.

    >>> scale_of([0, 5, 10], ["0", "5", "10"]), scale_of([2, 4, 16], ["2", "4", "16"])
    ('linear', 'log')
    >>> scale_of([0, 3, 5, 50], ["0", "3", "5", "50"]), scale_of([0.9, 0.99, 1], ["0.9", "0.99", "1"])
    ('symlog', 'even')
    """
    values = np.asarray(numbers, float)
    least = values[values > 0].min(initial=np.inf)
    scales = {"linear": values}
    if values[0] > 0:
        scales["log"] = np.log(values)
        if values[-1] >= 8 * values[0]:
            scales = dict(reversed(scales.items()))
    elif values[0] == 0 and np.isfinite(least):
        # Linear from 0 to the least number, one decade as long as that: Matplotlib's symlog with linthresh = least.
        scales["symlog"] = np.where(values > 0, 1 + np.log10(np.maximum(values, least) / least), 0)
    length = np.array([len(text) for text in ticks])
    needed = GAP + CHARACTER * (length[1:] + length[:-1]) / 2
    for name, places in scales.items():
        if (np.diff(places) >= needed * (places[-1] - places[0])).all() and places[-1] > places[0]:
            return name
    return "even"
