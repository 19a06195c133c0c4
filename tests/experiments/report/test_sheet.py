"""The sheet and what its writers make of one and the same cell."""

import math
import re
from dataclasses import replace
from decimal import Decimal

import pytest

from experiments.report.page.tables import page_table, table_sections
from experiments.report.sheet import PROBABILITY, SHARE, Sheet, SheetCell, SheetColumn, count, printed, word
from experiments.report.tables import markdown_sheet, write_tables
from experiments.report.typeset import latex_table
from experiments.results import numbers
from experiments.results.published import Published
from experiments.results.study import SWAPS
from tests.experiments.report.test_tables import by_hand, first_table

MARKED = SheetCell(0.40, uncertainty=0.13, n=4, best=True, differs=True, marks=("a", "b"), published=("0.58 (X)",))
SHEET = Sheet(
    "all",
    (SheetColumn("method"), SheetColumn("FID ↓", "± s.e.", "lower is better"), SheetColumn("p")),
    (
        (word("one"), MARKED, SheetCell(0.0004, PROBABILITY)),
        (word("two"), SheetCell(math.nan), SheetCell(0.0833, SHARE)),
        (word("three"), SheetCell(0.00001234, uncertainty=0.0000012), count(12)),
    ),
    {"a": "see there"},
)


def test_every_writer_shows_all_that_a_cell_holds():
    markdown = first_table(markdown_sheet(SHEET))
    assert markdown["one"] == {"FID ↓ (± s.e.)": "**0.40 ± 0.13 (n=4); 0.58 (X)**†[a][b]", "p": "< 0.001"}
    assert markdown["two"] == {"FID ↓ (± s.e.)": "–", "p": "8 %"}
    assert markdown["three"] == {"FID ↓ (± s.e.)": "(1.23 ± 0.12)×10⁻⁵", "p": "12"}
    latex = latex_table("c", SHEET.headings, printed(SHEET), [], SHEET.footnotes)
    assert r"\textbf{0.40 $\pm$ 0.13 (n=4); 0.58 (X)}\textsuperscript{$\dagger$a,b}" in latex
    page = page_table(SHEET)
    assert page["columns"][1] == {"title": "FID\N{NO-BREAK SPACE}↓", "note": "± s.e.", "hint": "lower is better"}
    assert page["rows"][0][1] == {
        **{"text": "0.40", "beside": "± 0.13† (n=4)", "best": True, "value": 0.40},
        **{"published": "0.58 (X)", "marks": "a, b"},
    }
    assert page["rows"][1][1]["value"] is None and page["rows"][1][1]["text"] == "–"
    assert (page["rows"][2][1]["text"], page["rows"][2][1]["beside"]) == ("(1.23 ± 0.12)×10⁻⁵", "")
    assert page["rows"][2][2]["value"] == 12 and page["name"] == "all prompts"


def test_a_column_may_be_left_out():
    assert SHEET.without("FID ↓").headings == ["method", "p"]
    assert [len(row) for row in SHEET.without("p").rows] == [2, 2, 2]


@pytest.fixture
def published(monkeypatch):
    """One number of another model, and one under the protocol of `by_hand`."""
    facts = {
        **{"source": "S", "citation": "a paper", "where": "", "model": "mini, embedded", "height": 64, "width": 192},
        **{"prompts": 2, "panoramas": 4, "method": "syncdiffusion", "settings": {"weight": "20"}},
        **{"metric": "intra_lpips", "value": Decimal("0.41"), "spread": None, "spread_kind": "", "unit": ""},
        **{"network": "V", "device": "", "note": ""},
    }
    ours = Published(**facts)
    other = replace(ours, source="T", model="Stable Diffusion 2.0", value=Decimal("0.58"))
    monkeypatch.setattr(numbers, "read_published", lambda: (ours, other))


def test_markdown_and_the_page_show_the_same_published_numbers(tmp_path, published):
    printed_table = write_tables(tmp_path, by_hand())
    cell = first_table(printed_table)["SyncDiffusion"]["Intra-LPIPS ↓"]
    assert cell == "**0.40 ± 0.13; 0.41 (S)**[a]"
    main = table_sections(tmp_path, by_hand())[0]
    titles = [column["title"] for column in main["tables"][0]["columns"]]
    shown = main["tables"][0]["rows"][0][titles.index("Intra-LPIPS\N{NO-BREAK SPACE}↓")]
    assert (shown["published"], shown["marks"]) == ("0.41 (S)", "a")
    footnote = "Intra-LPIPS: T (a paper) published SyncDiffusion 0.58. What differs: model Stable Diffusion 2.0"
    assert [note for note in main["notes"] if note.startswith(f"[a] {footnote}")]
    assert footnote in (tmp_path / "table.md").read_text()
    assert "After a semicolon, published under the same protocol. S: a paper." in main["notes"]


def test_markdown_and_the_page_have_the_same_cells_and_notes(tmp_path):
    """All that stands in a table's cells, and every note but the two that the page's head holds."""
    printed_table = write_tables(tmp_path, by_hand())
    main = table_sections(tmp_path, by_hand())[0]
    markdown = first_table(printed_table)
    for row in main["tables"][0]["rows"]:
        mine = list(markdown[row[0]["text"]].values())
        for cell, text in zip(row[1:], mine, strict=True):
            bare = re.sub(r"[*†]|\[\w\]", "", text)
            both = re.sub("†", "", f"{cell['text']} {cell['beside']}").strip()
            assert both == bare
            assert (cell["best"], "†" in cell["beside"]) == ("**" in text, "†" in text)
    listed = [line.removeprefix("- ") for line in printed_table.splitlines() if line.startswith("- ")]
    assert [note.replace("~", r"\~") for note in main["notes"] if not note.startswith("[")] == [
        line for line in listed[2:] if not line.startswith("[")
    ]


def test_a_folder_with_swaps_is_told_as_tested_and_one_without_as_former(tmp_path):
    from tests.experiments.results.test_numbers import SWAPS as MADE

    former = write_tables(tmp_path, by_hand())
    assert "FID and KID: scored by a former version" in former and SWAPS == "swaps.csv"
    now = write_tables(tmp_path, replace(by_hand(), swaps=MADE))
    assert "former version" not in now and "KID: of the difference and its standard error" in now
    assert "FID: of the labels of all pairs, so whether the two sets differ in any way" in now
    assert "p: of the difference being zero where it has a standard error" in (tmp_path / "table.md").read_text()
