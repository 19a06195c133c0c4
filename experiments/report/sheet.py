"""A table as typed cells, which Markdown, LaTeX, CSV and the page are written from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from experiments.report.typeset import Cell, number_text, percent, probability

if TYPE_CHECKING:
    import pandas as pd

# How a value is printed: by its uncertainty, as a p-value, as a share, as a count, or as it stands.
NUMBER, PROBABILITY, SHARE, COUNT, WORD = "number", "probability", "share", "count", "word"


@dataclass(frozen=True)
class SheetColumn:
    """title: the heading. note: what ± is, where it is no 95 % half-width. hint: which way is better."""

    title: str
    note: str = ""
    hint: str = ""

    @property
    def heading(self) -> str:
        return f"{self.title} ({self.note})" if self.note else self.title


@dataclass(frozen=True)
class SheetCell:
    """One cell.

    value: a number in the unit of its column, NaN for none; or a word.
    uncertainty: what stands behind ±: half of a 95 % interval, or what the column's note says; NaN for neither.
    n: how many images, where it must stand beside the value. best: of its column. differs: from the row compared with.
    marks: letters of footnotes. published: numbers of others that compare with it, as text.
    """

    value: float | str
    form: str = NUMBER
    uncertainty: float = math.nan
    n: int | None = None
    best: bool = False
    differs: bool = False
    marks: tuple[str, ...] = ()
    published: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The value with its uncertainty."""
        if isinstance(self.value, str):
            return self.value
        if self.form == COUNT:
            return str(int(self.value))
        if self.form == PROBABILITY:
            return probability(self.value)
        return percent(self.value) if self.form == SHARE else number_text(self.value, self.uncertainty)

    @property
    def after(self) -> str:
        """What follows the value: n, and what others published."""
        n = "" if self.n is None else f" (n={self.n})"
        return n + "".join(f"; {each}" for each in self.published)


@dataclass(frozen=True)
class Sheet:
    """A table: its name, its columns, and rows of as many cells.

    footnotes: letter -> text of the marks in its cells. lines: the numbers behind the cells with all their digits, a
    line each, for CSV; None where a CSV file of the run has them already.
    """

    name: str
    columns: tuple[SheetColumn, ...]
    rows: tuple[tuple[SheetCell, ...], ...]
    footnotes: Mapping[str, str] = field(default_factory=dict)
    lines: pd.DataFrame | None = field(default=None, compare=False)

    @property
    def headings(self) -> list[str]:
        return [column.heading for column in self.columns]

    def without(self, *titles: str) -> Sheet:
        """The same without some columns."""
        kept = [place for place, column in enumerate(self.columns) if column.title not in titles]
        rows = tuple(tuple(row[place] for place in kept) for row in self.rows)
        return Sheet(self.name, tuple(self.columns[place] for place in kept), rows, self.footnotes)


def word(text: str) -> SheetCell:
    return SheetCell(text, WORD)


def count(number: int) -> SheetCell:
    return SheetCell(number, COUNT)


def printed(sheet: Sheet) -> list[list[Cell | str]]:
    """The rows as Markdown and LaTeX set them."""
    return [
        [
            cell.text if cell.form == WORD else Cell(cell.text + cell.after, cell.best, cell.differs, cell.marks)
            for cell in row
        ]
        for row in sheet.rows
    ]
