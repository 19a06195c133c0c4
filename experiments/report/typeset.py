"""How numbers are rounded and how tables are set in Markdown and LaTeX: the one place for both.

Cells hold plain text; what a format takes for markup is escaped here, so labels and prompts may hold anything.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

NOTHING = "–"
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
PLAIN_DIGITS = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
MOST_DECIMALS = 6  # of a small number; beyond that a power of ten is split off
ROUNDING = 1e-9  # of the value: an uncertainty below that is the rounding of float64, not a spread


@dataclass(frozen=True)
class Cell:
    """dagger: differs from the row compared with; notes: letters of footnotes."""

    text: str
    bold: bool = False
    dagger: bool = False
    notes: tuple[str, ...] = ()


def number_text(value: float, uncertainty: float = math.nan) -> str:
    """A value as its uncertainty allows: two significant digits of that, four of a value that has none.

    >>> number_text(0.37491, 0.02434), number_text(123.456), number_text(-0.0000234, 0.0000012), number_text(math.nan)
    ('0.375 ± 0.024', '123.5', '(−2.34 ± 0.12)×10⁻⁵', '–')
    """
    if not math.isfinite(value):
        return NOTHING
    if uncertainty <= ROUNDING * abs(value):
        uncertainty = 0.0
    known = math.isfinite(uncertainty) and uncertainty > 0
    digits = _decimals(uncertainty, 2) if known else _decimals(value, 4)
    magnitude = _exponent(max(abs(value), uncertainty if known else 0), 1)
    power = magnitude if digits > MOST_DECIMALS and magnitude < -2 else 0
    text = _fixed(value, digits, power)
    if math.isfinite(uncertainty):
        text = f"{text} ± {_fixed(uncertainty, digits, power)}"
        text = f"({text})" if power else text
    return text + (f"×10{str(power).translate(SUPERSCRIPTS)}" if power else "")


def _fixed(value: float, digits: int, power: int) -> str:
    text = f"{value / 10.0**power:z.{max(0, digits + power)}f}".replace("-", "−")
    return text if value else "0"


def _decimals(value: float, significant: int) -> int:
    return significant - 1 - _exponent(value, significant)


def _exponent(value: float, significant: int) -> int:
    """Of the value as it reads once it is rounded: 0.0996 to two digits is 0.10."""
    return int(f"{value:.{significant - 1}e}".partition("e")[2])


def probability(p: float) -> str:
    """
    >>> probability(0.0312), probability(0.00002), probability(math.nan)
    ('0.031', '< 0.001', '–')
    """
    if not math.isfinite(p):
        return NOTHING
    return f"{p:.3f}" if p >= 0.0005 else "< 0.001"


def percent(share: float) -> str:
    """
    >>> percent(0.0833), percent(math.nan)
    ('8 %', '–')
    """
    return f"{100 * share:.0f} %" if math.isfinite(share) else NOTHING


JOINERS = "\u200c\u200d"  # of Persian words, of emoji


def one_line(text: str) -> str:
    """Without line breaks, control and invisible characters, but for those that join and part letters.

    >>> one_line("a\\u200b lake\\n at dawn"), one_line("\\u06cc\\u200c\\u062e") == "\\u06cc\\u200c\\u062e"
    ('a lake at dawn', True)
    """
    return " ".join("".join(each if each.isprintable() or each in JOINERS else " " for each in text).split())


def markdown_text(text: str) -> str:
    """Text that Markdown shows as it stands; an underscore inside a word is left alone, as Markdown does.

    >>> markdown_text("a|b *c* d_e <i>")
    'a\\\\|b \\\\*c\\\\* d_e \\\\<i>'
    """
    plain = one_line(text)
    plain = re.sub(r"[\\`*\[\]|~$#]", r"\\\g<0>", plain)
    plain = re.sub(r"<(?=\S)|&(?=[#\w])", r"\\\g<0>", plain)
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", plain)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[Cell | str]]) -> str:
    """The first column flush left, the others right; padded, so that it reads in a terminal too."""
    lines = [[_markdown_cell(cell) for cell in row] for row in (header, *rows)]
    widths = [max(3, *(len(line[column]) for line in lines)) for column in range(len(header))]
    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    padded = [
        [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        for line in lines
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in (padded[0], rule, *padded[1:]))


def _markdown_cell(cell: Cell | str) -> str:
    if isinstance(cell, str):
        return markdown_text(cell)
    text = f"**{markdown_text(cell.text)}**" if cell.bold else markdown_text(cell.text)
    return text + "†" * cell.dagger + "".join(f"[{letter}]" for letter in cell.notes)


LATEX = {
    **{each: "\\" + each for each in "{}$%&#_"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    '"': r"\textquotedbl{}",
    "[": "{[}",  # a row that begins with [ would be read as the optional argument of the \\ before it
    "]": "{]}",
    "−": "$-$",
    "–": r"\textendash{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "≤": r"$\leq$",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    "†": r"$^{\dagger}$",
}


def latex_text(text: str) -> str:
    """Text that LaTeX sets as it stands (letters beyond Latin need XeLaTeX or LuaLaTeX, and a font that has them).

    >>> latex_text("50% of a_b ±1×10⁻⁵")
    '50\\\\% of a\\\\_b $\\\\pm$1$\\\\times$10$^{-5}$'
    """
    escaped = "".join(LATEX.get(each, each) for each in one_line(text))
    escaped = re.sub("-(?=-)", "-{}", escaped)  # two would become a dash
    return re.sub("[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+", lambda found: f"$^{{{found[0].translate(PLAIN_DIGITS)}}}$", escaped)


def latex_table(
    caption: str,
    header: Sequence[str],
    rows: Sequence[Sequence[Cell | str]],
    notes: Sequence[str],
    footnotes: Mapping[str, str],
) -> str:
    """A table environment for \\input; needs the booktabs package. footnotes: letter -> text."""
    lines = [" & ".join(_latex_cell(cell) for cell in row) + r" \\" for row in rows]
    return "\n".join(
        [
            r"% \usepackage[T1]{fontenc} \usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            r"\small",
            rf"\caption{{{latex_text(caption)}}}",
            rf"\begin{{tabular}}{{@{{}}l{'r' * (len(header) - 1)}@{{}}}}",
            r"\toprule",
            " & ".join(map(latex_text, header)) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            *(rf"\par\footnotesize {latex_text(note)}" for note in notes),
            *(rf"\par\footnotesize \textsuperscript{{{each}}}{latex_text(text)}" for each, text in footnotes.items()),
            r"\end{table}",
        ]
    )


def _latex_cell(cell: Cell | str) -> str:
    if isinstance(cell, str):
        return latex_text(cell)
    text = rf"\textbf{{{latex_text(cell.text)}}}" if cell.bold else latex_text(cell.text)
    marks = r"$\dagger$" * cell.dagger + ",".join(cell.notes)
    return text + (rf"\textsuperscript{{{marks}}}" if marks else "")
