"""The tables of a run as CSV, Markdown and LaTeX, from its Results alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.common.files import write_whole
from experiments.metrics.catalogue import ALL_PROMPTS, METRICS
from experiments.report.notes import BY_PROMPT, difference_note, gain_note, notes_of, sentence, set_names
from experiments.report.sheet import Sheet, printed
from experiments.report.sheets import comparison_sheet, gain_sheet, prompt_sheet, replicate_sheet, score_sheet
from experiments.report.typeset import latex_table, markdown_table, markdown_text
from experiments.results.gain import gains_kept
from experiments.results.numbers import comparisons, main_table, metrics_of, titles
from experiments.results.study import Results

if TYPE_CHECKING:
    import pandas as pd


def write_tables(folder: Path, results: Results) -> str:
    """Write table.csv, table.md, table.tex and comparisons.csv; returns the main table and its notes as Markdown."""
    compared = comparisons(results)
    table = main_table(results, compared)
    sheet, notes = score_sheet(results, table), notes_of(results, table, compared)
    write_whole(folder / "comparisons.csv", compared.to_csv(index=False))
    write_whole(folder / "table.csv", csv_text(sheet))
    caption = f"{results.study.name}: {sentence(results.study)}"
    tex = latex_table(caption, ["", *sheet.headings[1:]], printed(sheet), notes, sheet.footnotes)
    write_whole(folder / "table.tex", tex + "\n")
    top = f"{markdown_sheet(sheet)}\n\n{bullets(notes)}"
    parts = [f"# {markdown_text(results.study.name)}", top]
    if sheet.footnotes:
        listed = [f"[{letter}] {text}" for letter, text in sheet.footnotes.items()]
        parts += ["## Published numbers of another protocol", bullets(listed)]
    parts += [*difference_part(results, compared), *gain_part(results), *replicate_part(results)]
    write_whole(folder / "table.md", "\n\n".join((*parts, *prompt_parts(results, compared))) + "\n")
    if sheet.footnotes:
        top += "\n- [a] and other letters: numbers that others published under another protocol; table.md lists them."
    return top


def markdown_sheet(sheet: Sheet) -> str:
    """The first column has no heading: it names the rows."""
    return markdown_table(["", *sheet.headings[1:]], printed(sheet))


def bullets(notes: Sequence[str]) -> str:
    return "\n".join(f"- {markdown_text(note)}" for note in notes)


def csv_text(sheet: Sheet) -> str:
    """The lines behind a sheet of scores, what was published as text."""
    table = sheet.lines
    assert table is not None
    plain = table.copy()
    plain["published"] = [
        "; ".join(f"{each.text} ({each.source}, {each.cited})" for each in cell) for cell in table["published"]
    ]
    plain["published_elsewhere"] = [
        "; ".join(f"{each.text} ({each.source}, {each.cited}; {', '.join(why)})" for each, why in cell)
        for cell in table["published_elsewhere"]
    ]
    return plain.to_csv(index=False)


def difference_part(results: Results, compared: pd.DataFrame) -> list[str]:
    """Markdown: the paired differences over all prompts."""
    whole = compared[compared["prompt"] == ALL_PROMPTS]
    if whole.empty:
        return []
    sheet = comparison_sheet(whole, results.study).without("compared with")
    against = markdown_text(titles(results.study)[results.study.compare_with])
    note = f"{difference_note(results)} Of each prompt: comparisons.csv."
    return [f"## Differences from {against}", markdown_sheet(sheet), note]


def gain_part(results: Results) -> list[str]:
    """Markdown: the share of the gain in coherence that each row keeps; not of a single row, which is no series."""
    shares = {name: gains_kept(results, name) for name, metric in METRICS.items() if metric.coherence}
    shares = {name: found for name, found in shares.items() if len(found) > 1}
    if not shares:
        return []
    notes = dict.fromkeys(markdown_text(gain_note(found, results)) for found in shares.values())
    return ["## Gain kept", markdown_sheet(gain_sheet(shares, results.study)), *notes]


def replicate_part(results: Results) -> list[str]:
    """Markdown: set-level metrics over disjoint blocks of seeds."""
    sheet, table = replicate_sheet(results)
    if table.empty:
        return []
    sizes = sorted(set(table["n"]))
    size = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    depending = [metric for metric in metrics_of(results) if metric.depends_on_n]
    text = (
        f"Mean over {table['replicates'].max()} disjoint blocks of seeds with {size} panoramas each, ± half-width of "
        "its 95 % t interval; all blocks share the reference images."
    )
    text += "".join(
        f" {metric.display} depends on n, which is smaller here: it does not compare with that of the whole set."
        for metric in depending
    )
    return ["## Replicates", markdown_sheet(sheet), text]


def prompt_parts(results: Results, compared: pd.DataFrame) -> list[str]:
    """Markdown: of each per-panorama metric a table with prompts as rows and methods as columns."""
    study = results.study
    metrics = [metric for metric in metrics_of(results) if metric.per_panorama and not metric.multiple_of]
    if len(study.prompts) < 2 or not metrics:
        return []
    sets = set_names(results)
    of_sets = f" {sets} of a prompt stand in scores.csv." if sets else ""
    parts = ["## By prompt", f"Mean ± half-width of the 95 % t interval; bold: best of the row; {BY_PROMPT}{of_sets}"]
    for metric in metrics:
        sheet = prompt_sheet(results, compared, metric)
        parts += [f"### {sheet.name}", markdown_sheet(sheet)]
    return parts
