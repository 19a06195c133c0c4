"""Figures of numbers drawn by a seeded generator: what is drawn is read back from the figure and computed again."""

import dataclasses
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from scipy import stats

from experiments.common.files import write_whole
from experiments.report.figures import figures_of, write_figures
from experiments.report.figures.comparisons import front, prompts_figure, tradeoff_figure
from experiments.report.figures.style import (
    MM,
    ONE_COLUMN,
    OTHERS,
    TWO_COLUMNS,
    caption,
    marks,
    new_figure,
    overlap,
    place_labels,
)
from experiments.report.figures.sweeps import add_gain_axis, cost_figure, curves_figure, paired_figure
from experiments.report.figures.values import difference, scale_of, swept_axis, swept_settings, value_of
from experiments.results.inference import Interval
from experiments.results.numbers import comparisons
from experiments.results.study import Results, read_results
from syncdiffusion.geometry.windows import place_windows
from tests.experiments.composing import REPOSITORY
from tests.experiments.synthetic import synthetic_results, write_results


@pytest.fixture(scope="module")
def skip() -> Results:
    return synthetic_results("experiment=ablation_skip")


@pytest.fixture(scope="module")
def table1() -> Results:
    return synthetic_results("experiment=table1", "seeds.count=5")


def values(results: Results, label: str, metric: str) -> np.ndarray:
    return results.panoramas.loc[results.panoramas["method"] == label, metric].to_numpy()


def line(axes, label: str):
    return next(each for each in axes.lines if each.get_label() == label)


def test_written_again_is_the_same_to_the_byte(tmp_path):
    """By another process, with another hash seed, from the four files; no date and no version is in them."""
    results = synthetic_results("experiment=ablation_weight", "prompts=demo", "seeds.count=2")
    folder = write_results(tmp_path / "a", results)
    for name in ("cost.svg", "ablation_decay.pdf", "mine.svg"):  # the first two are left from other results
        write_whole(tmp_path / "b" / "figures" / name, "")
    paths = write_figures(tmp_path / "b", results)
    code = "import sys; from pathlib import Path; from experiments.results.study import read_results\n"
    code += "from experiments.report.figures import write_figures; folder = Path(sys.argv[1])\n"
    code += (
        "write_figures(folder, read_results(folder)); sys.exit('torch' in sys.modules or 'pyplot' in str(sys.modules))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}
    subprocess.run([sys.executable, "-c", code, folder], check=True, cwd=REPOSITORY, env=environment)

    names = ("tradeoff", "ablation_weight", "ablation_weight_paired")
    assert [path.name for path in paths] == [f"{name}.{kind}" for name in names for kind in ("svg", "pdf")]
    assert sorted(path.name for path in (folder / "figures").iterdir()) == sorted(path.name for path in paths)
    assert {path.name for path in (tmp_path / "b" / "figures").iterdir()} == {"mine.svg", *(p.name for p in paths)}
    for path in paths:
        written = path.read_bytes()
        assert (folder / "figures" / path.name).read_bytes() == written
        assert not re.search(rb"CreationDate|dc:date|matplotlib v|Matplotlib \d", written, re.IGNORECASE)
        if path.suffix == ".svg":
            ElementTree.fromstring(written)


def test_curves_are_means_with_their_intervals(skip):
    figure = curves_figure(skip, "first_n")
    labels = ["first_n=0", "first_n=3", "first_n=5", "first_n=10", "first_n=all"]
    panels = {axes.get_ylabel().split("\n")[0]: axes for axes in figure.axes}
    assert list(panels) == ["Intra-LPIPS", "Intra-Style-L (mean)", "Layout-LPIPS", "mini-CLIP score", "KID"]
    assert panels["mini-CLIP score"].get_ylabel().endswith("↑ higher is better")
    assert panels["Layout-LPIPS"].get_ylabel().endswith("↑ higher is better")
    axes = panels["Intra-LPIPS"]
    expected = [values(skip, label, "intra_lpips") for label in labels]
    steps, means = axes.lines[0].get_data()
    assert list(steps) == [0, 3, 5, 10, 25]  # all: the 25 steps of the canvas
    assert means == pytest.approx([each.mean() for each in expected])
    band = axes.collections[0].get_paths()[0].vertices
    for step, each in zip(steps, expected, strict=True):
        low, high = stats.t.interval(0.95, len(each) - 1, each.mean(), stats.sem(each))
        at = band[band[:, 0] == step, 1]
        assert (at.min(), at.max()) == pytest.approx((low, high))
    compared = line(axes, "MultiDiffusion")
    assert compared.get_ydata()[0] == pytest.approx(values(skip, "multidiffusion", "intra_lpips").mean())
    assert compared.get_linestyle() == "--"


def test_paired_figure_is_of_differences_on_the_same_noise(skip):
    figure = paired_figure(skip, "every_n")
    keyed = skip.panoramas.set_index(["method", "prompt", "seed"])["intra_lpips"].unstack("method")
    expected = [(keyed[f"every_n={n}"] - keyed["multidiffusion"]).mean() for n in (1, 2, 3, 5)]
    assert figure.axes[0].lines[0].get_ydata() == pytest.approx(expected)
    assert line(figure.axes[0], "MultiDiffusion").get_ydata()[0] == 0
    band = figure.axes[0].collections[0].get_paths()[0].vertices[:, 1]
    alone = value_of(skip, "every_n=1", "intra_lpips")
    # The generator gives seeds a deviation four times that of a method's own: pairing takes most of it out.
    assert np.ptp(band) < (alone.high - alone.low)


def test_cost_figure_tells_the_gain_that_is_kept(skip):
    figure = cost_figure(skip)
    axes = figure.axes[0]
    first, every = line(axes, "first N"), line(axes, "every N")
    labels = ("every_n=1", "every_n=2", "every_n=3", "every_n=5")
    assert every.get_xdata() == pytest.approx([values(skip, label, "seconds").mean() for label in labels])
    assert len(first.get_xdata()) == 5
    right = next(child for child in axes.child_axes if child.get_ylabel() == "gain kept (%)")
    to_share = right._functions[0]
    swept = [row.label for row in skip.study.rows if row.swept]
    best = min(values(skip, label, "intra_lpips").mean() for label in swept)
    none = values(skip, "multidiffusion", "intra_lpips").mean()
    assert to_share(np.array([none, best, (none + best) / 2])) == pytest.approx([0, 100, 50])
    texts = [text.get_text() for text in axes.texts]
    assert sorted(texts) == sorted(["0", "3", "5", "10", "all", "1", "2", "3", "5"])
    assert not any(axes.child_axes for axes in figure.axes[2:])  # CLIP score and KID are no gain


@pytest.mark.parametrize(("bottom", "ticks"), [(0.3, [0, 25, 50, 75, 100]), (0.0, [0, 100])])
def test_the_gain_s_axis_has_as_many_numbers_as_there_is_room_for(bottom, ticks):
    axes = Figure().subplots()
    axes.set_ylim(bottom, 0.5)
    add_gain_axis(axes, 0.45, [Interval(0.35, np.nan, np.nan, 2)], "intra_lpips")  # a half, a fifth of the panel
    assert list(axes.child_axes[0].get_yticks()) == ticks


def test_a_setting_that_costs_the_same_has_no_cost_figure():
    assert cost_figure(synthetic_results("experiment=ablation_weight", "seeds.count=2")) is None


@pytest.mark.parametrize(
    ("experiment", "setting", "positions", "ticks", "scale"),
    [
        ("ablation_anchor", "anchor", [0, 5, 10, 15, 20], ["0", "5", "centre", "15", "20"], "linear"),
        ("ablation_stride", "stride", [2, 4, 8, 16], ["2", "4", "8", "16"], "log"),
        ("ablation_decay", "decay", [0, 1, 2, 3], ["0.9", "0.95", "0.99", "1"], "linear"),  # evenly: 0.99 is near 1
        ("ablation_weight", "weight", [0, 5, 10, 15, 20, 30], ["0", "5", "10", "15", "20", "30"], "linear"),
    ],
)
def test_swept_axes_are_readable(experiment, setting, positions, ticks, scale):
    results = synthetic_results(f"experiment={experiment}", "seeds.count=1", "prompts=demo")
    axis = swept_axis(results.study, setting, swept_settings(results)[setting])
    assert (list(axis.positions), list(axis.ticks), axis.scale) == (positions, ticks, scale)
    if setting == "anchor":
        assert axis.positions[2] == len(place_windows(16, 96, 16, 4)) // 2 and "centre = 10" in axis.label


def test_words_are_categories_and_scales_keep_ticks_apart():
    words = "+ablations={loss: [style, lpips_alex]}"
    results = synthetic_results("experiment=table1", words, "compare_with=multidiffusion", "seeds.count=2")
    axis = swept_axis(results.study, "loss", swept_settings(results)["loss"])
    assert axis.ticks == ("style", "lpips_alex") and not axis.joined
    assert curves_figure(results, "loss").axes[0].containers[0].has_yerr
    assert scale_of([0.1, 1, 10, 100], ["0.1", "1", "10", "100"]) == "log"
    assert scale_of([0, 3, 5, 10, 50], ["0", "3", "5", "10", "all"]) == "symlog"
    assert scale_of([3, 25, 25], ["3", "25", "all"]) == "even"  # two values that mean the same


def test_tradeoff_places_every_row_and_marks_the_front(skip, table1):
    figure = tradeoff_figure(skip)
    assert [axes.get_xlabel().split("\n")[0] for axes in figure.axes] == ["KID", "seconds per panorama"]
    assert figure.axes[1].get_xscale() == "log"
    points = {}
    for row in skip.study.rows:
        kid = skip.scores.query("method == @row.label and metric == 'kid' and prompt == 'all'")["value"].item()
        points[row.label] = (kid, values(skip, row.label, "intra_lpips").mean())
    shown = [each for each in figure.axes[0].lines if len(each.get_xdata()) == 1]
    assert np.allclose(sorted(each.get_xydata()[0].tolist() for each in shown), sorted(map(list, points.values())))
    filled = {each.get_xydata()[0].tolist()[0] for each in shown if each.get_markerfacecolor() != "white"}
    assert filled == {points[label][0] for label in front(points)} and len(filled) < len(shown)
    assert {text.get_text() for axes in tradeoff_figure(table1).axes for text in axes.texts} == {
        "SyncDiffusion",
        "MultiDiffusion",
        "Blended latent diffusion",
        "better",
    }


def test_front_is_what_no_other_point_beats():
    """Against the sweep by rising x, which keeps a point where y falls below all before it."""
    cloud = np.random.default_rng(0).random((60, 2))
    kept, least = [], np.inf
    for index in np.argsort(cloud[:, 0]):
        if cloud[index, 1] < least:
            kept, least = [*kept, str(index)], cloud[index, 1]
    assert front({str(i): tuple(point) for i, point in enumerate(cloud)}) == kept and 1 < len(kept) < 20


def test_prompts_figure_shows_every_pair(table1):
    axes = prompts_figure(table1).axes[0]
    keyed = table1.panoramas.set_index(["method", "prompt", "seed"])["intra_lpips"].unstack("method")
    for label in ("multidiffusion", "blended_latent"):
        expected = keyed[label] - keyed["syncdiffusion"]
        colour = marks(table1.study)[label][0]
        dots = [each.get_xdata() for each in axes.lines if each.get_marker() == "." and each.get_color() == colour]
        assert sorted(np.concatenate(dots)) == pytest.approx(sorted(expected)) and len(dots) == 6
        means = [e.get_xdata()[0] for e in axes.lines if e.get_marker() not in ".None" and e.get_color() == colour]
        by_prompt = [expected[prompt].mean() for prompt in table1.study.prompts]
        assert means == pytest.approx([*by_prompt, expected.mean()])
    ticks = [tick.get_text().replace("\n", " ") for tick in axes.get_yticklabels()]
    assert ticks == [*table1.study.prompts, "all prompts"]
    assert "← more coherent than SyncDiffusion" in axes.get_xlabel()


def test_a_method_keeps_its_colour(skip, table1):
    assert marks(skip.study)["multidiffusion"] == marks(table1.study)["multidiffusion"]
    assert marks(skip.study)["first_n=3"] == marks(table1.study)["syncdiffusion"]
    assert marks(skip.study)["every_n=2"] == OTHERS[0]
    variants = synthetic_results("experiment=ablation_loss", "seeds.count=1").study
    assert len(set(marks(variants).values())) == len(variants.rows)


def test_texts_lie_inside_the_figure_and_are_large_enough(skip, table1):
    anchor = synthetic_results("experiment=ablation_anchor", "seeds.count=2")
    for figure in (figure for results in (skip, table1, anchor) for figure in figures_of(results).values()):
        width, height = figure.get_size_inches()
        assert round(width / MM) == TWO_COLUMNS
        figure.draw_without_rendering()
        drawn = figure.get_tightbbox()  # of all that is drawn, in inches
        assert drawn.x0 >= 0 and drawn.y0 >= 0 and drawn.x1 <= width and drawn.y1 <= height
        assert min(text.get_fontsize() for text in figure.findobj(Text)) >= 5.5


def test_any_text_is_drawn_as_it_stands(tmp_path):
    """A formula that Matplotlib could not parse, markup, a line break, scripts without a glyph."""
    odd = r'prompts.texts=["costs $\frac{$ & <b>", "a\nline {森} ' + "very " * 40 + r'long"]'
    results = synthetic_results("experiment=table1", "seeds.count=2", odd)
    rows = tuple(dataclasses.replace(row, title="$\\frac{$ <i>\n" + row.title) for row in results.study.rows)
    odd_titles = Results(dataclasses.replace(results.study, rows=rows), *dataclasses.astuple(results)[1:])
    axes = prompts_figure(odd_titles).axes[0]
    assert axes.get_yticklabels()[0].get_text() == "costs $\\frac{$ & <b>"
    assert axes.get_yticklabels()[1].get_text().count("\n") == 1
    paths = write_figures(tmp_path, odd_titles)
    assert [path.name for path in paths if path.suffix == ".svg"] == ["tradeoff.svg", "prompts.svg"]


def test_unfinished_and_small_runs_are_drawn_as_far_as_they_go():
    """One seed (no interval), a row without panoramas, no set-level metric; one panorama has nothing to compare."""
    full = synthetic_results("experiment=ablation_skip", "seeds.count=1", "prompts=demo")
    there = full.panoramas[full.panoramas["method"] != "first_n=5"]
    scores = full.scores[~full.scores["metric"].isin(["kid", "fid"]) & (full.scores["method"] != "first_n=5")]
    figures = figures_of(Results(full.study, there, scores, full.replicates[:0]))
    axes = figures["ablation_first_n"].axes
    assert len(figures) == 6 and len(axes) == 4 and list(axes[0].lines[0].get_xdata()) == [0, 3, 10, 25]
    assert figures_of(synthetic_results("experiment=panorama")) == {}


def test_kid_is_as_wide_as_its_standard_error_says_else_its_replicates(skip):
    """As in the tables; of results of a former version, which have none, the replicates tell."""
    value = skip.scores.query("method == 'first_n=3' and metric == 'kid'")["value"].item()
    assert value_of(skip, "first_n=3", "kid").high == pytest.approx(value + 1.96 * 0.004)
    blocks = skip.replicates.query("method == 'first_n=3' and metric == 'kid'")["value"].to_numpy()
    bare = Results(skip.study, skip.panoramas, skip.scores.assign(stderr=np.nan), skip.replicates)
    found = value_of(bare, "first_n=3", "kid")
    half = stats.t.ppf(0.975, len(blocks) - 1) * blocks.std(ddof=1) / np.sqrt(len(blocks))
    assert (found.mean, found.low, found.high) == pytest.approx((value, value - half, value + half))
    few = Results(bare.study, bare.panoramas, bare.scores, bare.replicates[bare.replicates["replicate"] < 2])
    assert np.isnan(value_of(few, "first_n=3", "kid").high)


def test_figures_draw_no_pairs_where_noise_is_not_shared(table1):
    """The tables' Welch intervals, no dots, and captions that claim nothing of one noise; every row has its name."""
    apart = replace(table1, study=replace(table1.study, shared_noise=False))
    table = comparisons(apart).set_index(["prompt", "method", "metric"])
    for prompt in (None, table1.study.prompts[0]):
        found = difference(apart, "multidiffusion", "intra_lpips", prompt)
        line = table.loc[(prompt or "all", "multidiffusion", "intra_lpips")]
        assert (found.mean, found.low, found.high, found.n) == tuple(line[["difference", "low", "high", "n"]])
    first = table1.study.prompts[0]
    lacking = (table1.panoramas["method"] == "multidiffusion") & (table1.panoramas["prompt"] == first)
    figure = prompts_figure(replace(apart, panoramas=table1.panoramas[~lacking]))
    axes = figure.axes[0]
    assert not [line for line in axes.lines if line.get_marker() == "."]
    texts = " ".join(text.get_text() for text in figure.findobj(Text))
    assert "each row of its own noise" in texts and "same prompt and noise" not in texts
    labels = [line.get_label() for line in axes.lines]
    assert {"MultiDiffusion", "Blended latent diffusion"} <= set(labels) and labels.count("MultiDiffusion") == 1


def test_of_very_many_prompts_the_first_are_drawn(monkeypatch):
    texts = ",".join(f"p{i}" for i in range(70))
    many = synthetic_results("experiment=table1", "seeds.count=1", f"prompts.texts=[{texts}]")
    figure = prompts_figure(many)
    assert len(figure.axes[0].get_yticks()) == 61
    assert "10 more prompts are among" in " ".join(text.get_text() for text in figure.findobj(Text))
    monkeypatch.setattr("experiments.report.figures.comparisons.MOST_MEANS", 25)  # of two rows
    assert len(prompts_figure(many).axes[0].get_yticks()) == 13


def test_labels_keep_clear_of_points_and_each_other():
    figure = new_figure(ONE_COLUMN, 60)
    axes = figure.subplots()
    points = [(0, 0), (1, 1), (1.02, 1), (0.5, 0.2), (0.5, 0.25)]
    axes.plot(*zip(*points, strict=True), "o")
    caption(figure, "a caption")
    figure.draw_without_rendering()
    place_labels(axes, points, ["zero", "one", "two", "three", "four"], ["black"] * 5)
    figure.draw_without_rendering()
    boxes = [tuple(text.get_window_extent().extents) for text in axes.texts]
    at = axes.transData.transform(points)
    covered = [overlap(a, b) for i, a in enumerate(boxes) for b in boxes[:i]]
    covered += [overlap(box, (x - 1, y - 1, x + 1, y + 1)) for box in boxes for x, y in at]
    assert len(covered) == 35 and max(covered) == 0


def test_results_read_back_are_those_written(tmp_path, table1):
    read = read_results(write_results(tmp_path, table1))
    assert read.study == table1.study
    assert np.array_equal(read.panoramas["intra_lpips"], table1.panoramas["intra_lpips"])
