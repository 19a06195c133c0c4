"""The tables of a run as CSV, Markdown and LaTeX, from its Results alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.common.files import write_whole
from experiments.metrics.catalogue import ALL_PROMPTS, METRICS
from experiments.metrics.metric import Metric
from experiments.report.notes import lettered, notes_of, sentence
from experiments.report.typeset import (
    Cell,
    latex_table,
    markdown_table,
    markdown_text,
    measured,
    one_line,
    percent,
    probability,
)
from experiments.results.numbers import (
    ALPHA,
    COSTS,
    STDERR,
    best_labels,
    comparisons,
    estimate,
    main_table,
    metrics_of,
    replicate_table,
    titles,
)
from experiments.results.study import Results

if TYPE_CHECKING:
    import pandas as pd

ARROWS = {"lower": "↓", "higher": "↑"}


@dataclass(frozen=True)
class Sheet:
    """A table ready to be set, and the footnotes behind the letters in its cells."""

    header: list[str]
    rows: list[list[Cell | str]]
    footnotes: dict[str, str]


def write_tables(folder: Path, results: Results) -> str:
    """Write table.csv, table.md, table.tex and comparisons.csv; returns the main table and its notes as Markdown."""
    compared = comparisons(results)
    table = main_table(results, compared)
    sheet, notes = main_sheet(results, table), notes_of(results, table, compared)
    write_whole(folder / "comparisons.csv", compared.to_csv(index=False))
    write_whole(folder / "table.csv", plain_columns(table).to_csv(index=False))
    caption = f"{results.study.name}: {sentence(results.study)}"
    write_whole(folder / "table.tex", latex_table(caption, sheet.header, sheet.rows, notes, sheet.footnotes) + "\n")
    top = f"{markdown_table(sheet.header, sheet.rows)}\n\n{bullets(notes)}"
    parts = [f"# {markdown_text(results.study.name)}", top]
    if sheet.footnotes:
        listed = [f"[{letter}] {text}" for letter, text in sheet.footnotes.items()]
        parts += ["## Published numbers of another protocol", bullets(listed)]
    parts += [*difference_part(results, compared), *replicate_part(results), *prompt_parts(results, compared)]
    write_whole(folder / "table.md", "\n\n".join(parts) + "\n")
    if sheet.footnotes:
        top += "\n- [a] and other letters: numbers that others published under another protocol; table.md lists them."
    return top


def bullets(notes: Sequence[str]) -> str:
    return "\n".join(f"- {markdown_text(note)}" for note in notes)


def plain_columns(table: pd.DataFrame) -> pd.DataFrame:
    """For table.csv: what was published as text."""
    plain = table.copy()
    plain["published"] = [
        "; ".join(f"{each.text} ({each.source}, {each.citation})" for each in cell) for cell in table["published"]
    ]
    plain["published_elsewhere"] = [
        "; ".join(f"{each.text} ({each.source}, {each.citation}; {', '.join(why)})" for each, why in cell)
        for cell in table["published_elsewhere"]
    ]
    return plain


def heading(metric: Metric) -> str:
    return f"{metric.display} {ARROWS[metric.better]}"


def main_sheet(results: Results, table: pd.DataFrame) -> Sheet:
    """Rows in the study's order; metrics in the catalogue's, then seconds and memory."""
    letters, footnotes = lettered(table)
    metrics = [*metrics_of(results), *COSTS.values()]
    made = results.panoramas["method"].value_counts()
    lines = {(line.method, line.metric): line for line in table.itertuples()}
    rows: list[list[Cell | str]] = []
    for label, title in titles(results.study).items():
        n = int(made.get(label, 0))
        cells = [main_cell(lines[label, metric.name], n, letters) for metric in metrics]
        rows.append([title, str(n), *cells])
    with_stderr = set(table.loc[table["kind"] == STDERR, "metric"])
    headings = [heading(metric) + " (± s.e.)" * (metric.name in with_stderr) for metric in metrics]
    return Sheet(["", "n", *headings], rows, footnotes)


def main_cell(line: Any, n: int, letters: dict[tuple[str, str], tuple[str, ...]]) -> Cell:
    """n stands in the cell beside every FID, and wherever it is not the row's."""
    metric = (METRICS | COSTS)[line.metric]
    text = measured(line.value / metric.unit, line.plus_minus)
    if line.n and (metric.falls_with_n or line.n != n):
        text += f" (n={line.n})"
    text += "".join(f"; {each.text} ({each.source})" for each in line.published)
    return Cell(text, line.best, line.differs, letters.get((line.method, line.metric), ()))


def difference_part(results: Results, compared: pd.DataFrame) -> list[str]:
    """Markdown: the paired differences over all prompts."""
    whole = compared[compared["prompt"] == ALL_PROMPTS]
    if whole.empty:
        return []
    title = titles(results.study)
    rows: list[list[Cell | str]] = [
        [
            title[line.method],
            heading(METRICS[line.metric]),
            str(line.n),
            measured(line.difference, (line.high - line.low) / 2),
            probability(line.p),
            probability(line.p_holm),
            percent(line.share_better),
        ]
        for line in whole.itertuples()
    ]
    text = (
        "Difference: mean over n pairs of the same prompt and noise, ± half-width of its 95 % t interval; no p of n "
        "pairs is below 2/2ⁿ. Of FID, KID and Mean-GIQA: over n disjoint blocks of seeds, without a test. Better: the "
        "share of pairs in which the row is the better one, equal pairs counted half. Of each prompt: comparisons.csv."
    )
    header = ["", "metric", "n", "difference", "p", "p (Holm)", "better"]
    against = markdown_text(title[results.study.compare_with])
    return [f"## Differences from {against}", markdown_table(header, rows), text]


def replicate_part(results: Results) -> list[str]:
    """Markdown: set-level metrics over disjoint blocks of seeds."""
    table = replicate_table(results)
    if table.empty:
        return []
    metrics = [metric for metric in metrics_of(results) if (table["metric"] == metric.name).any()]
    lines = {(line.method, line.metric): line for line in table.itertuples()}
    rows: list[list[Cell | str]] = []
    for label, title in titles(results.study).items():
        mine = [lines.get((label, metric.name)) for metric in metrics]
        rows.append([title, *(measured(each.mean, each.plus_minus) if each else "–" for each in mine)])
    sizes = sorted(set(table["n"]))
    size = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    text = (
        f"Mean over {table['replicates'].max()} disjoint blocks of seeds with {size} panoramas each, ± half-width of "
        "its 95 % t interval; all blocks share the reference images. FID is larger here than over the whole set, "
        "since n is smaller."
    )
    return ["## Replicates", markdown_table(["", *map(heading, metrics)], rows), text]


def prompt_parts(results: Results, compared: pd.DataFrame) -> list[str]:
    """Markdown: of each per-panorama metric a table with prompts as rows and methods as columns."""
    study = results.study
    metrics = [metric for metric in metrics_of(results) if metric.per_panorama and not metric.multiple_of]
    if len(study.prompts) < 2 or not metrics:
        return []
    significant = compared[compared["p_holm"] <= ALPHA]
    differing = set(zip(significant["prompt"], significant["method"], significant["metric"], strict=True))
    parts = [
        "## By prompt",
        f"Mean ± half-width of the 95 % t interval; bold: best of the row; †: p ≤ {ALPHA} after Holm over "
        "the tests of a metric's own table. FID, KID and Mean-GIQA of a prompt stand in scores.csv.",
    ]
    for metric in metrics:
        rows: list[list[Cell | str]] = []
        for prompt in study.prompts:
            found = {row.label: estimate(results, row.label, metric, prompt) for row in study.rows}
            best = best_labels(metric, found)
            cells = [
                Cell(measured(each.value, each.plus_minus), label in best, (prompt, label, metric.name) in differing)
                for label, each in found.items()
            ]
            rows.append([one_line(prompt), *cells])
        parts += [f"### {heading(metric)}", markdown_table(["", *titles(study).values()], rows)]
    return parts
