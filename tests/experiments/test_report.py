"""Tables and gallery: the numbers, n and networks that scores.csv holds, the pictures where they belong."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from experiments import gallery
from experiments.gallery import CELL_WIDTH, GAP, TEXT, choose_rows, write_comparison, write_gallery
from experiments.report import cell, score_table, summary
from experiments.run import run
from experiments.store import Unit, save_panorama

PANORAMAS = pd.DataFrame(
    {
        "method": ["a", "a", "b"],
        "prompt": ["hills", "city", "hills"],
        "seconds": [1.0, 3.0, 8.0],
        "peak_memory_bytes": [2**30, 2**31, 2**30],
    }
)


def score_rows(*rows):
    return pd.DataFrame(rows, columns=["method", "prompt", "metric", "value", "stderr", "n", "network"])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((0.123456, 0.00123, 4), "0.1235 ± 0.0012 (n=4)"),
        ((123.456, float("nan"), 12), "123.5 (n=12)"),
        ((float("nan"), float("nan"), 1), "–"),
        ((0.0000123, 0.000001, 9), "1.23e-05 ± 1e-06 (n=9)"),
    ],
)
def test_cell(arguments, text):
    assert cell(*arguments) == text


def test_table_has_every_number_with_its_direction_and_n():
    scores = score_rows(
        ("a", "all", "kid", 0.01, 0.002, 2, "I"),
        ("a", "all", "intra_lpips", 0.5, 0.05, 2, "V"),
        ("b", "all", "intra_lpips", 0.7, np.nan, 1, "V"),
        ("a", "hills", "intra_lpips", 0.4, np.nan, 1, "V"),
    )
    lines = score_table(scores, PANORAMAS, ("b", "a")).splitlines()
    rows = [[word.strip() for word in line.strip("|").split("|")] for line in lines]
    assert rows[0] == ["method", "KID ↓", "Intra-LPIPS ↓", "seconds each", "peak memory"]
    assert rows[2] == ["b", "–", "0.7 (n=1)", "8.0 (n=1)", "1.00 GiB"]
    assert rows[3] == ["a", "0.01 ± 0.002 (n=2)", "0.5 ± 0.05 (n=2)", "2.0 (n=2)", "2.00 GiB"]
    of_hills = score_table(scores, PANORAMAS, ("b", "a"), "hills")
    assert "0.4 (n=1)" in of_hills and "0.5" not in of_hills and "1.0 (n=1)" in of_hills


def test_summary_is_the_set():
    scores = score_rows(("a", "all", "fid", 3.0, np.nan, 2, "I"), ("a", "hills", "fid", 9.0, np.nan, 1, "I"))
    found = summary(scores, PANORAMAS)
    assert found["a/fid"] == 3.0 and found["a/seconds"] == 2.0 and found["b/peak_memory_bytes"] == 2**30


def test_table_file_names_model_networks_and_prompts(compose, known_scores, capsys):
    plan = compose("tracking=disabled")
    run(plan)
    text, out = (plan.folder / "table.md").read_text(), capsys.readouterr().out
    assert "Intra-LPIPS, FID: a network." in text and "64×192 px, 3 steps, 2 prompts, 2 seeds each" in text
    assert "## hills by the sea" in text and "## a city" in text
    assert "| multidiffusion | 0.5625 ± 0.03 (n=4) " in text.replace("123.5 (n=4) | ", "")
    assert out.splitlines()[0] in text and "## a city" not in out
    assert "miniature" not in text


def test_embedded_model_is_marked_in_every_table():
    from experiments.report import footnotes
    from tests.experiments.composing import compose_plan

    assert "never quote" in footnotes(compose_plan([]), score_rows())
    assert "never quote" not in footnotes(compose_plan(["backbone=sd2"]), score_rows())


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
