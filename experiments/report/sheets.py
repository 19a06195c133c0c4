"""The sheets of a run: its scores, its comparisons, its replicates, a metric prompt by prompt, and shares of a gain."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from experiments.metrics.catalogue import ALL_PROMPTS, METRICS
from experiments.metrics.metric import Metric
from experiments.report.notes import lettered, one_picture
from experiments.report.sheet import PROBABILITY, SHARE, Sheet, SheetCell, SheetColumn, count, word
from experiments.report.typeset import one_line
from experiments.results.gain import GainKept
from experiments.results.numbers import ALPHA, COSTS, STDERR, best_labels, estimate, metrics_of, replicate_table, titles
from experiments.results.study import Results, Study

if TYPE_CHECKING:
    import pandas as pd

ARROWS = {"lower": "↓", "higher": "↑"}


def heading(metric: Metric) -> str:
    return f"{metric.display} {ARROWS[metric.better]}"


def score_sheet(results: Results, table: pd.DataFrame, prompt: str = ALL_PROMPTS) -> Sheet:
    """Rows of the study; n, metrics and costs as columns, without those that no row has a number of.

    A single picture has no n, and no number of others beside it: theirs are means.

    table: what `main_table` says of this prompt.
    """
    alone = one_picture(results.study)
    letters, footnotes = ({}, {}) if alone else lettered(table)
    made = results.panoramas
    counts = (made if prompt == ALL_PROMPTS else made[made["prompt"] == prompt])["method"].value_counts()
    there = table.loc[table["n"] > 0, "metric"].unique()
    metrics = [metric for metric in (*metrics_of(results), *COSTS.values()) if metric.name in there]
    with_stderr = set(table.loc[table["kind"] == STDERR, "metric"])
    columns = [SheetColumn("method"), SheetColumn("n", hint="panoramas")]
    for metric in metrics:
        note = "± s.e." if metric.name in with_stderr else ""
        columns.append(SheetColumn(heading(metric), note, f"{metric.better} is better"))
    lines = {(line["method"], line["metric"]): line for line in table.to_dict("records")}
    rows = []
    for label, title in titles(results.study).items():
        n = int(counts.get(label, 0))
        cells = [score_cell(lines[label, metric.name], metric, n, letters) for metric in metrics]
        rows.append((word(title), count(n), *cells))
    sheet = Sheet(prompt, tuple(columns), tuple(rows), footnotes, table)
    return replace(sheet.without("n"), lines=table) if alone else sheet


def score_cell(
    line: Mapping[str, Any], metric: Metric, n: int, letters: Mapping[tuple[str, str], tuple[str, ...]]
) -> SheetCell:
    """n stands beside every number that falls with it, and wherever it is not the row's."""
    told = line["n"] if line["n"] and (metric.depends_on_n or line["n"] != n) else None
    return SheetCell(
        line["value"] / metric.unit,
        uncertainty=line["plus_minus"] / metric.unit,
        n=told,
        best=line["best"],
        differs=line["differs"],
        marks=letters.get((line["method"], line["metric"]), ()),
        published=tuple(f"{each.text} ({each.source})" for each in line["published"]),
    )


def comparison_sheet(rows: pd.DataFrame, study: Study) -> Sheet:
    """Rows of comparisons.csv, all of one prompt."""
    columns = ("method", "compared with", "metric", "difference", "p", "p (Holm)", "better", "n")
    title = titles(study)
    return Sheet(
        rows["prompt"].iloc[0] if len(rows) else ALL_PROMPTS,
        tuple(map(SheetColumn, columns)),
        tuple(comparison_line(line, title) for line in rows.to_dict("records")),
    )


def comparison_line(line: Mapping[str, Any], title: Mapping[str, str]) -> tuple[SheetCell, ...]:
    metric = METRICS.get(line["metric"])
    unit = metric.unit if metric else 1
    return (
        word(title.get(line["method"], line["method"])),
        word(title.get(line["against"], line["against"])),
        word(heading(metric) if metric else line["metric"]),
        SheetCell(line["difference"] / unit, uncertainty=(line["high"] - line["low"]) / 2 / unit),
        SheetCell(line["p"], PROBABILITY),
        SheetCell(line["p_holm"], PROBABILITY),
        SheetCell(line["share_better"], SHARE),
        count(line["n"]),
    )


def replicate_sheet(results: Results) -> tuple[Sheet, pd.DataFrame]:
    """Set-level metrics over disjoint blocks of seeds, and the numbers behind them; no rows where there are none."""
    table = replicate_table(results)
    metrics = [metric for metric in metrics_of(results) if (table["metric"] == metric.name).any()]
    lines = {(line.method, line.metric): line for line in table.itertuples()}
    rows = []
    for label, title in titles(results.study).items() if metrics else ():
        mine = [(lines.get((label, metric.name)), metric.unit) for metric in metrics]
        cells = [
            SheetCell(each.mean / unit, uncertainty=each.plus_minus / unit) if each else word("–")
            for each, unit in mine
        ]
        rows.append((word(title), *cells))
    columns = (SheetColumn("method"), *(SheetColumn(heading(metric)) for metric in metrics))
    return Sheet("replicates", columns, tuple(rows)), table


def prompt_sheet(results: Results, compared: pd.DataFrame, metric: Metric) -> Sheet:
    """A per-panorama metric with prompts as rows and methods as columns; bold: the best of a row."""
    study = results.study
    significant = compared[(compared["metric"] == metric.name) & (compared["p_holm"] <= ALPHA)]
    differing = set(zip(significant["prompt"], significant["method"], strict=True))
    rows = []
    for prompt in study.prompts:
        found = {row.label: estimate(results, row.label, metric, prompt) for row in study.rows}
        best = best_labels(metric, found)
        cells = [
            SheetCell(
                each.value / metric.unit,
                uncertainty=each.plus_minus / metric.unit,
                best=label in best,
                differs=(prompt, label) in differing,
            )
            for label, each in found.items()
        ]
        rows.append((word(one_line(prompt)), *cells))
    columns = (SheetColumn("prompt"), *(SheetColumn(title) for title in titles(study).values()))
    return Sheet(heading(metric), columns, tuple(rows))


def gain_sheet(found: Mapping[str, list[GainKept]], study: Study) -> Sheet:
    """Shares of a gain: a row for each row of the run, a column for each metric; word of the interval's ends."""
    title = titles(study)
    labels = dict.fromkeys(each.label for shares in found.values() for each in shares)
    rows = []
    for label in labels:
        mine = [next((each for each in shares if each.label == label), None) for shares in found.values()]
        rows.append((word(title[label]), *(word(share_text(each)) for each in mine)))
    columns = (SheetColumn("method"), *(SheetColumn(METRICS[metric].display) for metric in found))
    return Sheet("gain kept", columns, tuple(rows))


def share_text(kept: GainKept | None) -> str:
    """Percent with the ends of the 95 % interval, such as "25 % [9, 39]"."""
    if kept is None or kept.share.n == 0:
        return "–"
    mean, low, high = (100 * each for each in (kept.share.mean, kept.share.low, kept.share.high))
    bounded = math.isfinite(low) and math.isfinite(high)
    text = f"{mean:.0f} % [{low:.0f}, {high:.0f}]" if bounded else f"{mean:.0f} %"
    return text.replace("-", "−")
