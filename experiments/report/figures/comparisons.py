"""The figures that compare whole rows: what coherence costs, and on which prompts a method is more coherent."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from baselines import facts
from experiments.metrics.catalogue import METRICS
from experiments.report.figures.style import (
    GREY,
    ONE_COLUMN,
    TWO_COLUMNS,
    Box,
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
    coherence_metric,
    difference,
    headline_metric,
    rows_there,
    swept_settings,
    tick,
    value_of,
)
from experiments.report.fonts import legible
from experiments.report.typeset import one_line
from experiments.results.inference import Interval, paired_values
from experiments.results.numbers import titles
from experiments.results.study import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Point = tuple[Interval, Interval]  # across and up

FRONT_FROM = 4  # rows; with fewer the eye needs no help
MOST_PROMPTS = 60  # of one figure, which a page must hold
MOST_MEANS = 120  # of rows on prompts, as many as half a metre can show
LONGEST_PROMPT = 50  # characters to a line, of which there are two at most


def tradeoff_figure(results: Results) -> Figure | None:
    """Coherence against KID and against seconds, a point with its 95 % intervals for every row."""
    planes = {cost: points for cost in (headline_metric(), "seconds") if len(points := plane_points(results, cost)) > 1}
    if not planes:
        return None
    figure = new_figure(TWO_COLUMNS if len(planes) > 1 else ONE_COLUMN, 72)
    panels = np.atleast_1d(figure.subplots(1, len(planes)))
    for axes, (cost, points) in zip(panels, planes.items(), strict=True):
        draw_plane(axes, points, marks(results.study))
        axes.set(xlabel=metric_label(cost), ylabel=metric_label(coherence_metric()))
        few_ticks(axes, "x", "y")
        if cost == "seconds":
            logarithmic(axes)
    add_swept_legend(figure, panels[0], results)
    labels = [label for points in planes.values() for label in points]
    front = "; filled: no other row is better in both" if max(map(len, planes.values())) >= FRONT_FROM else ""
    caption(figure, f"Means with 95 % intervals{front}; {about(results, panoramas_each(results, labels))}")
    figure.draw_without_rendering()
    for axes, points in zip(panels, planes.values(), strict=True):
        label_points(axes, points, results)
    return figure


def plane_points(results: Results, cost: str) -> dict[str, Point]:
    """Label -> (cost, coherence) of the rows that have both."""
    pairs = {
        row.label: (value_of(results, row.label, cost), value_of(results, row.label, coherence_metric()))
        for row in rows_there(results)
    }
    return {label: (x, y) for label, (x, y) in pairs.items() if x is not None and y is not None}


def add_swept_legend(figure: Figure, axes: Axes, results: Results) -> None:
    """Which marks are values of which swept setting."""
    for setting, rows in swept_settings(results).items():
        colour, marker = marks(results.study)[rows[0].label]
        axes.plot([], [], marker, color=colour, markersize=5, label=facts(rows[0].method, setting).symbol or setting)
    legend(figure, axes)


def draw_plane(axes: Axes, points: Mapping[str, Point], mark: Mapping[str, tuple[str, str]]) -> None:
    """Points with their intervals; of many, those on the Pareto front are filled and joined."""
    emphasised = front({label: (x.mean, y.mean) for label, (x, y) in points.items()})
    everything = len(points) < FRONT_FROM
    if not everything:
        joined = [(points[label][0].mean, points[label][1].mean) for label in emphasised]
        axes.plot(*steps(joined), color="#a0a0a0", linewidth=0.8, zorder=1)
    for label, (x, y) in points.items():
        colour, marker = mark[label]
        bars = {"color": colour, "linewidth": 0.6, "alpha": 0.6 if everything else 0.35, "fmt": "none"}
        across, up = ([[each.mean - each.low], [each.high - each.mean]] for each in (x, y))
        axes.errorbar(x.mean, y.mean, up, across, **bars)
        face = colour if everything or label in emphasised else "white"
        axes.plot(x.mean, y.mean, marker, markersize=5, markeredgecolor=colour, markerfacecolor=face, zorder=3)
    axes.margins(0.1)


def front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """The labels that no other is better than in one way and as good in the other, by rising x; lower is better.

    >>> front({"a": (1, 3), "b": (2, 2), "c": (3, 2), "d": (4, 1)})
    ['a', 'b', 'd']
    """

    def beaten(x: float, y: float) -> bool:
        return any(u <= x and v <= y and (u, v) != (x, y) for u, v in points.values())

    return sorted((label for label, point in points.items() if not beaten(*point)), key=lambda label: points[label])


def steps(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """The edge of what `points`, by rising x, leave unbeaten: across, then down."""
    x = [each for point in points for each in (point[0], point[0])]
    y = [each for point in points for each in (point[1], point[1])]
    return x[1:], y[:-1]


def logarithmic(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def label_points(axes: Axes, points: Mapping[str, Point], results: Results) -> None:
    """Every point's row beside it (of a swept one the value alone), and where better is; once the layout is final."""
    rows, heading, mark = {row.label: row for row in results.study.rows}, titles(results.study), marks(results.study)
    texts = [tick(rows[label]) if rows[label].swept else short(heading[label], 26) for label in points]
    places = [(x.mean, y.mean) for x, y in points.values()]
    place_labels(axes, places, texts, [mark[label][0] for label in points], avoid=[better_corner(axes)])


def better_corner(axes: Axes) -> Box:
    """Mark the lower left corner; returns the box that the mark takes, in pixels."""
    arrow = {"arrowstyle": "->", "color": GREY, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0}
    place = {"xycoords": "axes fraction", "textcoords": "axes fraction", "arrowprops": arrow}
    axes.annotate("better", (0.015, 0.02), (0.075, 0.085), color=GREY, **place)
    (left, low), (right, high) = axes.transAxes.transform([(0, 0), (0.2, 0.15)])
    return float(left), float(low), float(right), float(high)


def prompts_figure(results: Results) -> Figure | None:
    """Prompt by prompt, the differences in Intra-LPIPS of every row to the one compared with: seeds, and their mean."""
    against, panoramas, shown = results.study.compare_with, results.panoramas, coherence_metric()
    labels = [row.label for row in rows_there(results) if row.label != against]
    prompts = [prompt for prompt in results.study.prompts if (panoramas["prompt"] == prompt).any()]
    most = min(MOST_PROMPTS, max(MOST_MEANS // max(len(labels), 1), 1))
    left_out = len(prompts) - most
    prompts = prompts[:most]
    if shown not in panoramas or not any(difference(results, label, shown) for label in labels):
        return None
    lines: list[str | None] = [*prompts, *([None] if len(prompts) > 1 else [])]  # None: all prompts together
    figure = new_figure(TWO_COLUMNS, 26 + len(lines) * (3 + 3.2 * len(labels)))
    axes = figure.subplots()
    named: set[str] = set()  # a row may have no pair of the first prompt
    for height, prompt in enumerate(lines):
        for place, label in enumerate(labels):
            at = height + (place - (len(labels) - 1) / 2) * 0.7 / len(labels)
            if draw_differences(axes, at, results, label, prompt, named=label not in named):
                named.add(label)
    if None in lines:
        axes.axhline(len(prompts) - 0.5, color="#404040", linewidth=0.6)
    title, colour = short(titles(results.study)[against]), marks(results.study)[against][0]
    axes.axvline(0, color=colour, linestyle="--", linewidth=1, label=title, zorder=1)
    axes.set_yticks(range(len(lines)), ["all prompts" if each is None else wrapped(each) for each in lines])
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(f"Δ {METRICS[shown].display} to {title}\n← more coherent than {title}   |   less coherent →")
    legend(figure, axes)
    what = f"A dot is a seed: the same prompt and noise as {title}'s; marks: means with 95 % intervals"
    if not results.study.shared_noise:
        what = f"Differences of means to {title} on the same prompts, each row of its own noise, with 95 % intervals"
    if left_out > 0:
        what += f"; {left_out} more prompts are among `all prompts` alone"
    caption(figure, f"{what}; {about(results, panoramas_each(results, [*labels, against]))}")
    return figure


def draw_differences(axes: Axes, height: float, results: Results, label: str, prompt: str | None, named: bool) -> bool:
    """One row's differences at one height: dots of the seeds, the mean and its interval; whether there are any.

    prompt: None for all. named: whether the legend takes the row's name from here.
    """
    colour, marker = marks(results.study)[label]
    found = difference(results, label, coherence_metric(), prompt)
    if found is None:
        return False
    if prompt is not None and results.study.shared_noise:
        a, b = paired_values(results.panoramas, label, results.study.compare_with, coherence_metric(), prompt)
        dots = {"color": colour, "markersize": 4.5, "markeredgewidth": 0, "alpha": 0.45}
        axes.plot(a - b, np.full(len(a), height - 0.07), ".", **dots)
    height += 0.07
    axes.plot([found.low, found.high], [height, height], color=colour, linewidth=1.4, solid_capstyle="butt")
    name = titles(results.study)[label] if named else None
    edge = {"markeredgecolor": "white", "markeredgewidth": 0.6}
    axes.plot(found.mean, height, marker, color=colour, markersize=5.5, label=name and short(name), **edge)
    return True


def wrapped(prompt: str) -> str:
    """A prompt in two lines at most."""
    lines = textwrap.wrap(legible(one_line(prompt)), LONGEST_PROMPT) or ["(blank)"]
    return "\n".join(lines if len(lines) < 3 else [lines[0], lines[1][: LONGEST_PROMPT - 2] + " …"])
