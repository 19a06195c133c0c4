"""The figures of an ablation: the metrics over the swept value, the paired differences, and over the cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from baselines import facts
from experiments.metrics.catalogue import METRICS
from experiments.report.figures.style import (
    ONE_COLUMN,
    TWO_COLUMNS,
    about,
    caption,
    few_ticks,
    legend,
    marks,
    metric_label,
    new_figure,
    panoramas_each,
    place_labels,
    short,
)
from experiments.report.figures.values import (
    SweptAxis,
    difference,
    shown_metrics,
    swept_axis,
    swept_settings,
    tick,
    value_of,
)
from experiments.results.inference import Interval
from experiments.results.numbers import titles
from experiments.results.study import Results, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEIGHT = 56.0  # mm, of a row of panels
COST_STEP = 1.15  # a cost is another where it is so much higher; the same work takes a few per cent more or less
TICK_LETTERS = 24  # that stand side by side below a panel


def curves_figure(results: Results, setting: str) -> Figure | None:
    """The metrics over the values of a setting: means with their 95 % band, the row compared with as a dashed line."""
    axis = swept_axis(results.study, setting, swept_settings(results)[setting])
    labels = [row.label for row in axis.rows]
    metrics = shown_metrics(results, labels)
    if not metrics:
        return None
    figure, panels = new_panels(len(metrics))
    for axes, metric in zip(panels, metrics, strict=True):
        draw_swept(axes, axis, [value_of(results, label, metric) for label in labels], swept_mark(results, setting))
        draw_compared(axes, results, value_of(results, results.study.compare_with, metric))
        axes.set_ylabel(metric_label(metric))
    legend(figure, panels[0])
    caption(figure, f"Means with 95 % intervals; {about(results, panoramas_each(results, labels))}")
    return figure


def paired_figure(results: Results, setting: str) -> Figure | None:
    """The same as paired differences to the row compared with: what prompts and seeds differ by falls out of them."""
    axis = swept_axis(results.study, setting, swept_settings(results)[setting])
    labels, against = [row.label for row in axis.rows], results.study.compare_with
    metrics = shown_metrics(results, labels)
    found = {metric: [difference(results, label, metric) for label in labels] for metric in metrics}
    found = {metric: values for metric, values in found.items() if any(values)}
    if not found or not set(labels) - {against}:
        return None
    figure, panels = new_panels(len(found))
    for axes, (metric, values) in zip(panels, found.items(), strict=True):
        draw_swept(axes, axis, values, swept_mark(results, setting))
        draw_compared(axes, results, Interval(0.0, np.nan, np.nan, 0))
        axes.set_ylabel("Δ " + metric_label(metric))
    legend(figure, panels[0])
    of_sets = [METRICS[metric].display for metric in found if not METRICS[metric].per_panorama]
    blocks = f" ({', '.join(of_sets)}: on the same block of seeds)" if of_sets and results.swaps is None else ""
    common = "prompt and noise" if results.study.shared_noise else "prompts, each row of its own noise"
    what = f"Δ: difference to {short(titles(results.study)[against])} on the same {common}{blocks}"
    caption(figure, f"{what}; means with 95 % intervals; {about(results, panoramas_each(results, labels))}")
    return figure


def cost_figure(results: Results) -> Figure | None:
    """The metrics over the mean seconds that a panorama takes; a line for each swept setting, a text at each value."""
    swept = {setting: rows for setting, rows in swept_settings(results).items() if changes_cost(results, rows)}
    labels = [row.label for rows in swept.values() for row in rows]
    metrics = shown_metrics(results, labels)
    if not metrics:
        return None
    figure, panels = new_panels(len(metrics), columns=2)
    for axes, metric in zip(panels, metrics, strict=True):
        for setting in swept:
            draw_cost(axes, results, setting, metric)
        compared = value_of(results, results.study.compare_with, metric)
        draw_compared(axes, results, compared)
        axes.set(xlabel=metric_label("seconds"), ylabel=metric_label(metric), xlim=(0, None))
        if compared is not None and METRICS[metric].coherence:
            add_gain_axis(axes, compared.mean, [value_of(results, label, metric) for label in labels], metric)
    legend(figure, panels[0])
    devices = ", ".join(sorted(set(results.panoramas["device"].astype(str))))
    against = short(titles(results.study)[results.study.compare_with])
    what = f"Means with 95 % intervals, labelled by the swept value; gain kept: {against} 0 %, best row 100 %"
    caption(figure, f"{what}; seconds on {devices}; {about(results, panoramas_each(results, labels))}")
    figure.draw_without_rendering()
    for axes, metric in zip(panels, metrics, strict=True):
        label_values(axes, results, swept, metric)
    return figure


def changes_cost(results: Results, rows: Sequence[Row]) -> bool:
    """Whether there are three costs at least: a weight, say, costs the same unless it is 0, and needs no figure."""
    seconds = np.sort([value_of(results, row.label, "seconds").mean for row in rows])
    return int((seconds[1:] > COST_STEP * seconds[:-1]).sum()) >= 2


def new_panels(count: int, columns: int = 4) -> tuple[Figure, list[Axes]]:
    """Panels of one size in rows as even as can be, of `columns` at most; half a row is as wide as one column of a
    page, more as two."""
    rows = -(-count // columns)
    figure = new_figure(ONE_COLUMN if 2 * count <= columns else TWO_COLUMNS, HEIGHT * rows)
    panels = list(figure.subplots(rows, -(-count // rows), squeeze=False).flat)
    for axes in panels[count:]:
        axes.remove()
    for axes in panels[:count]:
        few_ticks(axes, "y")
    return figure, panels[:count]


def swept_mark(results: Results, setting: str) -> tuple[str, str]:
    return marks(results.study)[swept_settings(results)[setting][0].label]


def draw_swept(axes: Axes, axis: SweptAxis, values: Sequence[Interval | None], mark: tuple[str, str]) -> None:
    """Means over the swept axis, joined where the values have an order, with their intervals as a band or as bars."""
    colour, marker = mark
    x, (mean, low, high) = points_of(axis.positions, values)
    if axis.joined:
        axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(x, mean, color=colour, marker=marker)
    else:
        axes.errorbar(x, mean, [mean - low, high - mean], color=colour, fmt=marker, capsize=2)
        axes.set_xlim(-0.5, len(axis.rows) - 0.5)
    if axis.scale == "symlog":
        axes.set_xscale("symlog", linthresh=min(x for x in axis.positions if x > 0))
    else:
        axes.set_xscale(axis.scale)
    crowded = not axis.joined and sum(map(len, axis.ticks)) > TICK_LETTERS
    axes.set_xticks(axis.positions, axis.ticks, rotation=20 if crowded else 0)
    axes.minorticks_off()
    axes.set_xlabel(axis.label)


def points_of(x: Sequence[float], values: Sequence[Interval | None]) -> tuple[np.ndarray, np.ndarray]:
    """Those that were measured: x (n,), and mean, low, high (3, n)."""
    there = [(place, v.mean, v.low, v.high) for place, v in zip(x, values, strict=True) if v is not None]
    columns = np.array(there).reshape(-1, 4).T
    return columns[0], columns[1:]


def draw_compared(axes: Axes, results: Results, value: Interval | None) -> None:
    """The row that the others are compared with, across the panel."""
    if value is None:
        return
    against = results.study.compare_with
    colour = marks(results.study)[against][0]
    if np.isfinite(value.low):
        axes.axhspan(value.low, value.high, color=colour, alpha=0.1, linewidth=0)
    axes.axhline(value.mean, color=colour, linestyle="--", linewidth=1, label=short(titles(results.study)[against]))


def draw_cost(axes: Axes, results: Results, setting: str, metric: str) -> None:
    rows = swept_axis(results.study, setting, swept_settings(results)[setting]).rows
    colour, marker = swept_mark(results, setting)
    seconds = [value_of(results, row.label, "seconds").mean for row in rows]
    x, (mean, low, high) = points_of(seconds, [value_of(results, row.label, metric) for row in rows])
    axes.errorbar(x, mean, [mean - low, high - mean], color=colour, fmt="none", linewidth=0.6, alpha=0.6)
    axes.plot(x, mean, color=colour, marker=marker, label=facts(rows[0].method, setting).symbol or setting)


ROOM = 0.3  # of a panel's height, which five numbers beneath each other take


def add_gain_axis(axes: Axes, compared: float, values: Sequence[Interval | None], metric: str) -> None:
    """On the right: 0 % at the row compared with, 100 % at the best row; none where no row is better."""
    means = [value.mean for value in values if value is not None]
    best = min(means) if METRICS[metric].better == "lower" else max(means)
    if (best < compared) != (METRICS[metric].better == "lower") or best == compared:
        return
    share = (lambda y: 100 * (compared - y) / (compared - best), lambda s: compared - s * (compared - best) / 100)
    right = axes.secondary_yaxis("right", functions=share)
    bottom, top = axes.get_ylim()
    crowded = abs(compared - best) < ROOM * abs(top - bottom)
    right.set_yticks([0, 100] if crowded else [0, 25, 50, 75, 100])
    right.set_ylabel("gain kept (%)")


def label_values(axes: Axes, results: Results, swept: Mapping[str, Sequence[Row]], metric: str) -> None:
    """The swept values at their points, once everything else has its place."""
    there = [
        (row, setting, value)
        for setting, rows in swept.items()
        for row in rows
        if (value := value_of(results, row.label, metric)) is not None
    ]
    points = [(value_of(results, row.label, "seconds").mean, value.mean) for row, _, value in there]
    colours = [swept_mark(results, setting)[0] for _, setting, _ in there]
    place_labels(axes, points, [tick(row) for row, _, _ in there], colours)
