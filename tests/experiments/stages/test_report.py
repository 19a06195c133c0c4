"""The last stage: what it writes, what it prints, and what it refuses."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from experiments.panoramas.index import read_index
from experiments.panoramas.store import Unit, save_panorama
from experiments.report import gallery
from experiments.report.gallery import CELL_WIDTH, GAP, TEXT, choose_rows, write_comparison, write_gallery
from experiments.results.study import read_study, study_of, write_study
from experiments.stages.report import keep_headings, report, summary, titles_of
from experiments.stages.sequence import run
from syncdiffusion.errors import UsageError
from tests.experiments.composing import compose_plan


def test_summary_is_the_set():
    columns = ["method", "prompt", "metric", "value", "stderr", "n", "network"]
    rows = [("a", "all", "fid", 3.0, np.nan, 2, "I"), ("a", "hills", "fid", 9.0, np.nan, 1, "I")]
    panoramas = pd.DataFrame(
        {"method": ["a", "a", "b"], "seconds": [1.0, 3.0, 8.0], "peak_memory_bytes": [2**30, 2**31, 2**30]}
    )
    found = summary(pd.DataFrame(rows, columns=columns), panoramas)
    assert found["a/fid"] == 3.0 and found["a/seconds"] == 2.0 and found["b/peak_memory_bytes"] == 2**30


@pytest.fixture
def finished(compose, known_scores, capsys):
    """A whole run, and what it printed."""
    plan = compose("tracking=disabled")
    run(plan)
    return plan, capsys.readouterr().out


def test_report_writes_tables_figures_page_and_pictures(finished, compose):
    plan, out = finished
    names = {path.name for path in plan.folder.iterdir()}
    written = "table.md table.csv table.tex comparisons.csv figures report gallery.png comparison.png"
    assert names >= set(written.split())
    text = (plan.folder / "table.md").read_text()
    assert "64×192 px, stride 4 latent cells, 3 steps" in text and "2 prompts, 2 seeds each" in text
    assert "| hills by the sea |" in text and "| hills by the sea |" not in out
    assert "FID, Intra-LPIPS: a network." in text and "miniature" not in text
    printed = out.splitlines()
    assert printed[0] in text and printed[0].startswith("| ")
    assert any(line.startswith("| MultiDiffusion ") for line in printed)

    again = compose("tracking=disabled", "stage=report", "compare_with=blended_latent")  # changes no score
    run(again)
    assert read_study(again.folder).compare_with == "blended_latent"
    assert set(pd.read_csv(again.folder / "comparisons.csv")["against"]) == {"blended_latent"}
    with pytest.raises(UsageError, match="of other panoramas than those there; run stage=score"):
        other = compose("tracking=disabled", "steps=2")
        report(other, read_index(other))


def test_how_the_scores_were_made_is_not_rewritten(compose):
    """A report with other metric settings speaks of the scores that are there."""
    plan = compose()
    write_study(plan.folder, study_of(plan))
    before = (plan.folder / "study.json").read_text()
    keep_headings(compose("metrics=paper", "reference.count=3"))
    assert (plan.folder / "study.json").read_text() == before
    assert json.loads(before)["networks"] == "mini" and json.loads(before)["reference_count"] == 1


def test_report_wants_scores(compose):
    with pytest.raises(UsageError, match="not scored yet; run stage=score"):
        report(compose(), read_index(compose()))


def test_titles_are_full_names_and_swept_values():
    overrides = ["+method@baselines.multidiffusion=multidiffusion", "ablations.weight=[5]", "ablations.first_n=[null]"]
    found = titles_of(compose_plan([f"+{each}" if each.startswith("abl") else each for each in overrides]))
    assert found == {"weight=5": "w = 5", "first_n=all": "first N = all", "multidiffusion": "MultiDiffusion"}


def units(labels, prompts, seeds):
    return [Unit(label, "m", {}, prompt, seed) for prompt in prompts for seed in seeds for label in labels]


def test_gallery_puts_each_panorama_in_its_cell(tmp_path):
    """A full-width picture is shown pixel by pixel, a wider one scaled down, a missing one left blank."""
    prompts = ["hills", "a very odd prompt: <b>森</b>\nwith a second line"]
    chosen = units(["left", "right"], prompts, [0, 1])
    random = np.random.default_rng(0)
    pixels = [random.integers(0, 256, (96, CELL_WIDTH, 3), dtype=np.uint8) for _ in chosen]
    for unit, image in zip(chosen[:-2], pixels, strict=False):
        save_panorama(tmp_path, unit, image, {})
    save_panorama(tmp_path, chosen[-2], np.full((192, 2 * CELL_WIDTH, 3), 77, np.uint8), {})
    path = write_gallery(tmp_path, chosen, {"left": "Left", "right": "Right"})
    sheet = np.asarray(Image.open(path))

    row_height = 96 + TEXT + 2 * GAP
    assert sheet.shape == (TEXT + 3 * GAP + 4 * row_height, GAP + 2 * (CELL_WIDTH + GAP), 3)
    for index, image in enumerate(pixels):
        row, column = divmod(index, 2)
        top = TEXT + 3 * GAP + row * row_height + TEXT + GAP // 2
        left = GAP + column * (CELL_WIDTH + GAP)
        shown = sheet[top : top + 96, left : left + CELL_WIDTH]
        if index < 6:
            assert np.array_equal(shown, image)
        else:
            assert (shown == (77 if index == 6 else 0xE4)).all()
    headings = sheet[: TEXT + 2 * GAP]
    assert (headings[:, :CELL_WIDTH].min(), headings[:, CELL_WIDTH:].min()) < (64, 64)


def test_gallery_shows_the_first_seeds_of_every_prompt():
    rows = choose_rows(units(["a"], [f"p{i}" for i in range(5)], range(100)))
    assert len(rows) == 5 * (gallery.MOST_ROWS // 5)
    assert {prompt for prompt, _ in rows} == {f"p{i}" for i in range(5)}
    assert rows[:2] == [("p0", 0), ("p0", 1)]
    many = choose_rows(units(["a"], [f"p{i}" for i in range(1000)], range(2)))
    assert many == [(f"p{i}", 0) for i in range(gallery.MOST_ROWS)]


def test_comparison_stacks_the_methods_of_each_prompts_first_seed(tmp_path):
    chosen = units(["a", "b", "c"], ["hills", "a city"], [7, 8])
    random = np.random.default_rng(1)
    pixels = {unit: random.integers(0, 256, (64, CELL_WIDTH, 3), dtype=np.uint8) for unit in map(repr, chosen)}
    for unit in chosen:
        save_panorama(tmp_path, unit, pixels[repr(unit)], {})
    sheet = np.asarray(Image.open(write_comparison(tmp_path, chosen, {"a": "A", "b": "B", "c": "C"})))

    block = TEXT + 2 * GAP + 3 * (64 + GAP)
    assert sheet.shape[0] == GAP + 2 * block
    for row, prompt in enumerate(["hills", "a city"]):
        for place, label in enumerate("abc"):
            unit = next(u for u in chosen if (u.label, u.prompt, u.seed) == (label, prompt, 7))
            top = GAP + block * row + TEXT + GAP + (64 + GAP) * place
            shown = sheet[top : top + 64, -CELL_WIDTH - GAP : -GAP]
            assert np.array_equal(shown, pixels[repr(unit)])
