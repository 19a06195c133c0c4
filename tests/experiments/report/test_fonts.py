"""Prompts of any script in pictures, with fonts made here: what this machine has installed plays no part."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import Image, ImageDraw

from experiments.panoramas.store import Unit
from experiments.report import fonts
from experiments.report.figures import write_figures
from experiments.report.fonts import Pen, families, legible, runs, tell_missing
from experiments.report.gallery import write_comparison, write_gallery
from experiments.results.study import Results
from tests.experiments.synthetic import synthetic_results

FUJI, BEACH = "富士山の夜明け", "a beach 🏖\ufe0f"


def make_font(path: Path, characters: str, outlines: bool = True) -> Path:
    """A font whose every glyph is a full square of the em, or has no outline as in a font of coloured pictures."""
    names = [".notdef", *(f"u{ord(each):X}" for each in characters)]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(each): f"u{ord(each):X}" for each in characters})
    builder.setupGlyf(
        {name: square() if outlines and name != ".notdef" else TTGlyphPen(None).glyph() for name in names}
    )
    builder.setupHorizontalMetrics({name: (1000, 0) for name in names})
    builder.setupHorizontalHeader(ascent=1000, descent=0)
    builder.setupNameTable({"familyName": path.stem, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return path


def square():
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 1000), (1000, 1000), (1000, 0)):
        pen.lineTo(corner)
    pen.closePath()
    return pen.glyph()


@pytest.fixture
def machine(monkeypatch):
    """machine(*files): the fonts that this machine has beside Matplotlib's own."""

    def has(*files: Path) -> None:
        monkeypatch.setattr(fonts, "installed", lambda: list(files))
        fonts.forget()

    yield has
    monkeypatch.undo()
    fonts.forget()


def written(text: str) -> np.ndarray:
    sheet = Image.new("L", (600, 40), 255)
    Pen(20).write(ImageDraw.Draw(sheet), (4, 8), text, "black")
    return np.asarray(sheet) < 128


def test_a_fallback_draws_what_dejavu_lacks(machine, tmp_path):
    machine(make_font(tmp_path / "Kanji Test.ttf", FUJI), make_font(tmp_path / "Emoji Test.ttf", "🏖"))
    assert legible(FUJI) == FUJI and legible(BEACH) == "a beach 🏖"
    assert families([FUJI, BEACH]) == ["DejaVu Sans", "Kanji Test", "Emoji Test"]
    assert [(path.stem, text) for path, text in runs(legible(BEACH))] == [
        ("DejaVuSans", "a beach "),
        ("Emoji Test", "🏖"),
    ]
    # Seven squares of the em beside each other, on DejaVu's baseline.
    black = written(FUJI)
    assert black.sum() == 7 * 20 * 20 and np.ptp(np.nonzero(black.any(axis=0))[0]) == 7 * 20 - 1
    alone = Pen(20).length("a beach ")
    assert (written(BEACH)[:, : 4 + alone] == written("a beach ")[:, : 4 + alone]).all()
    assert written(BEACH)[:, 4 + alone :].sum() == pytest.approx(20 * 20, abs=20)  # it may begin between two pixels


def test_a_font_that_only_names_a_character_does_not_draw_it(machine, tmp_path):
    broken = tmp_path / "broken.ttf"
    broken.write_bytes(b"no font")
    coloured = make_font(tmp_path / "Coloured Test.ttf", "🏖", outlines=False)
    outlined = make_font(tmp_path / "Outlined Test.ttf", "🏖")
    machine(broken, coloured, outlined)
    assert families([BEACH]) == ["DejaVu Sans", "Outlined Test"]
    machine(broken, coloured)
    assert families([BEACH]) == ["DejaVu Sans"]


def test_without_a_font_the_text_is_told_in_words_and_the_lack_in_one_line(machine, capsys):
    machine()
    assert legible(BEACH) == "a beach [beach with umbrella]"
    assert legible("富士 at 4 €") == "\\u5bcc\\u58eb at 4 €"
    assert (written(FUJI) == written(legible(FUJI))).all()
    tell_missing(["a lake", "озеро"])
    assert capsys.readouterr().err == ""
    tell_missing([FUJI, BEACH])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("report: no font here draws 8 characters of the prompts (U+3051, ") and "U+FE0F" not in line


@pytest.mark.parametrize("there", [True, False])
def test_pictures_and_figures_draw_every_prompt_without_a_warning(machine, tmp_path, there):
    machine(*([make_font(tmp_path / "Whole Test.ttf", FUJI + "🏖")] if there else []))
    results = synthetic_results("experiment=table1", "seeds.count=2", f"prompts.texts=['{FUJI}','{BEACH}']")
    rows = tuple(replace(row, title=f"{row.title} 山") for row in results.study.rows)
    named = Results(replace(results.study, rows=rows), results.panoramas, results.scores, results.replicates)
    units = [Unit("a", "m", {}, prompt, 0) for prompt in (FUJI, BEACH)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Matplotlib warns of every glyph that is missing
        assert len(write_figures(tmp_path, named)) == 4
        gallery, comparison = (write(tmp_path, units, {"a": "山"}) for write in (write_gallery, write_comparison))
    assert gallery.is_file() and comparison.is_file()
    text = legible(FUJI)
    assert (text == FUJI) is there
