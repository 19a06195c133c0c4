"""The tables of a page: sections of named tables, from the same sheets as Markdown and LaTeX."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.metrics.catalogue import ALL_PROMPTS
from experiments.report.notes import BY_PROMPT, difference_note, meaning_notes
from experiments.report.sheet import WORD, Sheet, SheetCell
from experiments.report.sheets import ARROWS, comparison_sheet, score_sheet
from experiments.results.numbers import main_table, no_comparisons
from experiments.results.study import Results

if TYPE_CHECKING:
    import pandas as pd

MOST_PROMPTS = 60  # one by one: of a thousand prompts the tables alone would take tens of megabytes of the page
TEXTS = {"prompt": str, "method": str, "against": str}  # also one that reads "10" or "null"


def table_sections(folder: Path, results: Results) -> list[dict[str, Any]]:
    """The whole set with what others published, several prompts one by one, and folder/comparisons.csv if any.

    Of more than MOST_PROMPTS prompts the tables of all together alone; a note says where the others' numbers are.
    """
    compared = read_comparisons(folder)
    known = no_comparisons() if compared is None else compared
    whole = main_table(results, known)
    sheet = score_sheet(results, whole)
    notes = [*meaning_notes(results, whole, known), *(f"[{each}] {text}" for each, text in sheet.footnotes.items())]
    prompts = results.study.prompts
    one_by_one = len(prompts) <= MOST_PROMPTS
    if not one_by_one:
        notes.append(f"Numbers of each of the {len(prompts)} prompts are in scores.csv and comparisons.csv, not here.")
    sections = [section("results", "Results", notes, [sheet])]
    if len(prompts) > 1 and one_by_one:
        sheets = [score_sheet(results, main_table(results, known, each), each) for each in prompts]
        note = f"As above, of one prompt, but for {BY_PROMPT} Sets are not tested by prompt."
        sections.append(section("by-prompt", "Prompt by prompt", [note], sheets))
    if compared is not None and not one_by_one:
        compared = compared[compared["prompt"] == ALL_PROMPTS]
    if compared is not None and len(compared):
        sheets = [comparison_sheet(rows, results.study) for _, rows in compared.groupby("prompt", sort=False)]
        sections.append(section("comparisons", "Compared pair by pair", [difference_note(results)], sheets))
    return sections


def section(name: str, title: str, notes: Sequence[str], sheets: Sequence[Sheet]) -> dict[str, Any]:
    return {"id": name, "title": title, "notes": list(notes), "tables": [page_table(sheet) for sheet in sheets]}


def read_comparisons(folder: Path) -> pd.DataFrame | None:
    import pandas as pd

    path = folder / "comparisons.csv"
    if not path.is_file():
        return None
    return pd.read_csv(path, dtype=TEXTS, keep_default_na=False, na_values=[""])


def page_table(sheet: Sheet) -> dict[str, Any]:
    """A sheet as plain values for the page's JSON."""
    return {
        "name": "all prompts" if sheet.name == ALL_PROMPTS else sheet.name,
        "columns": [{"title": bound(each.title), "note": each.note, "hint": each.hint} for each in sheet.columns],
        "rows": [[page_cell(cell) for cell in row] for row in sheet.rows],
    }


def bound(text: str) -> str:
    """An arrow stays on the line of the word before it."""
    return f"{text[:-2]}\N{NO-BREAK SPACE}{text[-1]}" if text[-1:] in ARROWS.values() else text


def page_cell(cell: SheetCell) -> Mapping[str, Any]:
    """text: the value. beside: its uncertainty, † and n. published: numbers of others. marks: letters of footnotes.
    value: a number or a word to sort by, None where there is nothing."""
    text = cell.text
    # What follows ± stands beside the number, unless a power of ten embraces both.
    number, sign, uncertainty = (text, "", "") if cell.form == WORD or text.startswith("(") else text.partition(" ± ")
    beside = (f"± {uncertainty}" if sign else "") + "†" * cell.differs
    if cell.n is not None:
        beside = f"{beside} (n={cell.n})".lstrip()
    nothing = not isinstance(cell.value, str) and math.isnan(cell.value)
    return {
        "text": bound(number),
        "beside": beside,
        "best": cell.best,
        "value": None if nothing else cell.value,
        "published": "; ".join(cell.published),
        "marks": ", ".join(cell.marks),
    }
