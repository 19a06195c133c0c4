"""Tables of a small, hand-made run: every cell is computed by hand here, or read back from what was written."""

import io
import math
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from experiments.report.notes import EMBEDDED
from experiments.report.tables import write_tables
from experiments.report.typeset import (
    Cell,
    latex_table,
    latex_text,
    markdown_table,
    markdown_text,
    number_text,
    probability,
)
from experiments.results import numbers as table_data
from experiments.results.numbers import comparisons, main_table, replicate_table, titles
from experiments.results.study import Results, Row, Study

HILLS, CITY = "hills", "a | city_\\ <b>*x*</b> $1 50% ~^{}#&\n[a](b)"
LABELS = ("syncdiffusion", "multidiffusion", "mine")
SIZE = {"height": 64, "width": 192, "stride": 4}
LPIPS = {  # prompt, seed -> value of each label
    (HILLS, 0): (0.3, 0.5, 0.4),
    (HILLS, 1): (0.4, 0.5, 0.4),
    (CITY, 0): (0.5, 0.7, 0.4),
    (CITY, 1): (0.4, 0.7, 0.6),
}
T3 = 3.182446305284263  # Student's t, 3 degrees of freedom, 97.5 %: any table


def study(**changes):
    rows = (
        Row("syncdiffusion", "SyncDiffusion", "syncdiffusion", SIZE | {"weight": 20.0}, None),
        Row("multidiffusion", "MultiDiffusion", "multidiffusion", SIZE, None),
        Row("mine", "mine_of_50%", "multidiffusion", SIZE, None),
    )
    facts = {
        "name": "by hand",
        "model": {"name": "mini", "id": "embedded", "revision": None, "precision": "float32", "embedded": True},
        "canvas": {
            **{"height": 64, "width": 192, "window": 64, "stride": 4, "steps": 3},
            "guidance_scale": 7.5,
        },
        "prompts": (HILLS, CITY),
        "seeds": {"first": 0, "count": 2},
        "reference_count": 5,
        "networks": "mini",
        "rows": rows,
        "compare_with": "syncdiffusion",
    }
    return Study(**(facts | changes))


def by_hand(**changes) -> Results:
    panoramas, scores, replicates = [], [], []
    for (prompt, seed), values in LPIPS.items():
        for i, label in enumerate(LABELS):
            panoramas.append(
                {"method": label, "prompt": prompt, "seed": seed, "seconds": 10.0 * (3 - i)}
                | {"peak_memory_bytes": 2**30 * (i + 1) + seed, "device": "cpu"}
                | {"intra_lpips": values[i], "intra_style_sum": 15 * values[i], "intra_style_mean": values[i]}
            )
    for i, label in enumerate(LABELS):
        common = {"method": label, "prompt": "all", "n": 4}
        values = {"intra_lpips": (0.0, "V (a)"), "intra_style_sum": (0.0, "G"), "intra_style_mean": (0.0, "G")}
        for metric, (value, network) in values.items():  # the means of per-panorama metrics are not read from here
            scores.append(common | {"metric": metric, "value": value, "stderr": 9.0, "network": network})
        scores.append(common | {"metric": "fid", "value": 100.0 + i, "stderr": np.nan, "network": "I"})
        scores.append(common | {"metric": "kid", "value": 0.0213 - 0.03 * i, "stderr": 0.00345, "network": "I"})
        for block in range(2):
            replicates.append(
                {"method": label, "replicate": block, "metric": "kid", "value": 0.1 * i + 0.02 * block * i, "n": 2}
            )
    scores.append({"method": "mine", "prompt": HILLS, "metric": "fid", "value": 7.0, "stderr": np.nan, "n": 2})
    return Results(study(**changes), *map(pd.DataFrame, (panoramas, scores, replicates)))


def first_table(markdown: str) -> dict[str, dict[str, str]]:
    """The first Markdown table in a text: first column -> {heading: cell}."""
    lines = markdown.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|"))
    stop = next((i for i in range(start, len(lines)) if not lines[i].startswith("|")), len(lines))
    table = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[start:stop]]
    return {row[0]: dict(zip(table[0][1:], row[1:], strict=True)) for row in table[2:]}


@pytest.fixture
def no_published(monkeypatch):
    monkeypatch.setattr(table_data, "read_published", lambda: ())


def test_main_table_cell_by_cell(tmp_path, no_published):
    """Intra-LPIPS of the first row: 0.3, 0.4, 0.5, 0.4: mean 0.4, deviation sqrt(0.02 / 3), ± T3 deviation / 2."""
    assert T3 * math.sqrt(0.02 / 3) / 2 == pytest.approx(0.1299, abs=1e-4)
    assert T3 * math.sqrt(0.04 / 3) / 2 == pytest.approx(0.1837, abs=1e-4)  # 0.5, 0.5, 0.7, 0.7
    assert T3 * math.sqrt(0.03 / 3) / 2 == pytest.approx(0.1591, abs=1e-4)  # 0.4, 0.4, 0.4, 0.6
    found = first_table(write_tables(tmp_path, by_hand()))
    assert found == {
        "SyncDiffusion": {
            **{"n": "4", "FID ↓": "**100.0 (n=4)**", "KID ↓ (± s.e.)": "0.0213 ± 0.0034"},
            **{"Intra-LPIPS ↓": "**0.40 ± 0.13**", "Intra-Style-L (sum) ↓": "**6.0 ± 1.9**"},
            **{"Intra-Style-L (mean) ↓": "**0.40 ± 0.13**", "seconds ↓": "30.00 ± 0"},
            "peak memory (GiB) ↓": "1.000",
        },
        "MultiDiffusion": {
            **{"n": "4", "FID ↓": "101.0 (n=4)", "KID ↓ (± s.e.)": "−0.0087 ± 0.0034"},
            **{"Intra-LPIPS ↓": "0.60 ± 0.18", "Intra-Style-L (sum) ↓": "9.0 ± 2.8"},
            **{"Intra-Style-L (mean) ↓": "0.60 ± 0.18", "seconds ↓": "20.00 ± 0"},
            "peak memory (GiB) ↓": "2.000",
        },
        "mine_of_50%": {
            **{"n": "4", "FID ↓": "102.0 (n=4)", "KID ↓ (± s.e.)": "**−0.0387 ± 0.0034**"},
            **{"Intra-LPIPS ↓": "0.45 ± 0.16", "Intra-Style-L (sum) ↓": "6.8 ± 2.4"},
            **{"Intra-Style-L (mean) ↓": "0.45 ± 0.16", "seconds ↓": "**10.00 ± 0**"},
            "peak memory (GiB) ↓": "3.000",
        },
    }
    assert list(found) == ["SyncDiffusion", "MultiDiffusion", "mine_of_50%"]


def test_table_csv_holds_the_same_with_every_digit(tmp_path, no_published):
    write_tables(tmp_path, by_hand())
    table = pd.read_csv(tmp_path / "table.csv").set_index(["method", "metric"])
    line = table.loc[("mine", "intra_lpips")]
    assert (line["n"], line["better"], line["network"], line["kind"]) == (4, "lower", "V (a)", "95 % interval")
    assert line["value"] == pytest.approx(0.45, abs=1e-15)
    half = T3 * 0.1 / 2
    assert (line["plus_minus"], line["low"], line["high"]) == pytest.approx((half, 0.45 - half, 0.45 + half), rel=1e-12)
    kid = table.loc[("multidiffusion", "kid")]
    assert (kid["value"], kid["plus_minus"], kid["kind"]) == (0.0213 - 0.03, 0.00345, "standard error")
    assert table["best"].sum() == 6 and table.loc[("mine", "kid"), "best"] and np.isnan(kid["low"])
    assert table.loc[("syncdiffusion", "peak_memory_bytes"), "value"] == 2**30 + 1


@pytest.mark.parametrize(
    ("devices", "seconds", "memory"),
    [(["cpu"] * 3, True, False), (["NVIDIA H200"] * 3, True, True), (["NVIDIA H200", "cpu", "cpu"], False, False)],
)
def test_costs_have_a_best_where_they_compare(devices, seconds, memory):
    """A CPU's memory is the process's, which keeps what an earlier row once took; devices do not compare at all."""
    results = by_hand()
    results.panoramas["device"] = results.panoramas["method"].map(dict(zip(LABELS, devices, strict=True)))
    table = main_table(results, comparisons(results))
    best = {metric: bool(lines["best"].any()) for metric, lines in table.groupby("metric")}
    assert (best["seconds"], best["peak_memory_bytes"], best["intra_lpips"]) == (seconds, memory, True)


def test_comparisons_by_hand():
    """MultiDiffusion less SyncDiffusion: 0.2, 0.1, 0.2, 0.3, all of one sign: p = 2/16. Of mine: 0.1, 0, -0.1, 0.2;
    the zero has no sign, so p is a share of the eight patterns of the others."""
    frame = comparisons(by_hand()).set_index(["prompt", "method", "metric"])
    multi = frame.loc[("all", "multidiffusion", "intra_lpips")]
    assert (multi["n"], multi["p"], multi["share_better"], multi["against"]) == (4, 2 / 16, 0, "syncdiffusion")
    half = T3 * math.sqrt(0.02 / 3) / 2
    assert (multi["difference"], multi["low"], multi["high"]) == pytest.approx((0.2, 0.2 - half, 0.2 + half))
    mine = frame.loc[("all", "mine", "intra_lpips")]
    sums = [a + b + c for a in (1, -1) for b in (1, -1) for c in (2, -2)]
    assert mine["p"] == sum(abs(each) >= 2 for each in sums) / 8
    assert (mine["difference"], mine["share_better"]) == (pytest.approx(0.05), (1 + 0.5) / 4)
    kid = frame.loc[("all", "mine", "kid")]
    assert (kid["n"], kid["difference"]) == (2, pytest.approx((0.2 + 0.24) / 2))
    assert np.isnan([kid["p"], kid["p_holm"]]).all()
    assert kid["high"] - kid["difference"] == pytest.approx(12.706204736432095 * 0.04 / math.sqrt(2) / math.sqrt(2))


def test_holm_families_are_the_whole_set_and_the_prompts():
    frame = comparisons(by_hand())
    assert "intra_style_sum" not in set(frame["metric"]) and "fid" not in set(frame["metric"])
    whole, rest = (frame[(frame["prompt"] == "all") == where] for where in (True, False))
    assert set(rest["prompt"]) == {HILLS, CITY} and len(rest) == 2 * 2 * 2 and "kid" not in set(rest["metric"])
    smallest = whole["p"].min()  # two equal ones among the four that are tested
    assert whole["p"].notna().sum() == 4 and smallest == 2 / 16
    assert sorted(whole["p_holm"].dropna())[:2] == [4 * smallest, 4 * smallest]
    assert (rest["p_holm"] == 1).all()  # two pairs each: no p below 1/2


def many_seeds(count: int = 8) -> Results:
    """Every difference between the methods has one sign: p = 2 / 2^16 in all, 2 / 2^8 by prompt."""
    random = np.random.default_rng(0)
    lines = [
        {"method": label, "prompt": prompt, "seed": seed, "seconds": 1.0, "peak_memory_bytes": 1, "device": "cpu"}
        | {"mini_clip_score": 60 + i + random.uniform(0, 0.1)}
        for prompt in (HILLS, CITY)
        for seed in range(count)
        for i, label in enumerate(LABELS)
    ]
    common = {"prompt": "all", "metric": "mini_clip_score", "value": 0.0, "stderr": 0, "n": 1, "network": "C"}
    scores = [common | {"method": label} for label in LABELS]
    empty = pd.DataFrame(columns=["method", "replicate", "metric", "value", "n"])
    facts = study(seeds={"first": 0, "count": count})
    return Results(facts, pd.DataFrame(lines), pd.DataFrame(scores), empty)


def test_by_prompt_each_metric_is_a_family_of_its_own():
    """Two prompts and two methods: four tests each, all with the smallest p that eight pairs allow."""
    results = many_seeds()
    twice = results.panoramas.assign(intra_lpips=results.panoramas["mini_clip_score"])
    also = results.scores.assign(metric="intra_lpips")
    frame = comparisons(replace(results, panoramas=twice, scores=pd.concat([results.scores, also])))
    rest = frame[frame["prompt"] != "all"]
    assert rest["metric"].value_counts().to_dict() == {"mini_clip_score": 4, "intra_lpips": 4}
    assert rest["p_holm"].tolist() == pytest.approx([4 * 2 / 2**8] * 8)


def test_daggers_mark_what_differs_after_holm(tmp_path, no_published):
    printed = write_tables(tmp_path, many_seeds())
    column = {label: row["mini-CLIP score ↑"] for label, row in first_table(printed).items()}
    assert column["SyncDiffusion"][-1] != "†" and column["MultiDiffusion"].endswith("†")
    assert column["mine_of_50%"].startswith("**") and column["mine_of_50%"].endswith("**†")
    assert "differs from SyncDiffusion" in printed and "Holm over the 2 tests" in printed
    by_prompt = first_table((tmp_path / "table.md").read_text().partition("### mini-CLIP score")[2])
    assert all(row["MultiDiffusion"].endswith("†") for row in by_prompt.values()) and len(by_prompt) == 2
    assert "Replicates" not in (tmp_path / "table.md").read_text()
    frame = comparisons(many_seeds())
    assert frame.loc[frame["prompt"] == "all", "p"].tolist() == [2 / 2**16] * 2
    assert frame.loc[frame["prompt"] == HILLS, "p_holm"].tolist() == [4 * 2 / 2**8] * 2


def test_pairs_are_of_the_same_prompt_and_noise():
    """A row that lacks panoramas is compared on those that both have."""
    whole = by_hand()
    kept = whole.panoramas[~((whole.panoramas["method"] == "mine") & (whole.panoramas["seed"] == 1))]
    frame = comparisons(Results(whole.study, kept, whole.scores, whole.replicates))
    mine = frame[(frame["method"] == "mine") & (frame["metric"] == "intra_lpips") & (frame["prompt"] == "all")].iloc[0]
    assert mine["n"] == 2 and mine["difference"] == pytest.approx((0.1 - 0.1) / 2)


def test_unfinished_run_and_unequal_n(tmp_path, no_published):
    whole = by_hand()
    kept = whole.panoramas[~((whole.panoramas["method"] == "mine") & (whole.panoramas["prompt"] == CITY))]
    scores = whole.scores.copy()
    scores.loc[(scores["method"] == "mine") & (scores["metric"] == "fid"), "n"] = 2
    printed = write_tables(tmp_path, Results(whole.study, kept, scores, whole.replicates))
    found = first_table(printed)
    assert "Unfinished: 10 of 12 panoramas" in printed
    assert [row["FID ↓"] for row in found.values()] == ["100.0 (n=4)", "101.0 (n=4)", "102.0 (n=2)"]  # none is best
    assert found["mine_of_50%"]["n"] == "2" and found["mine_of_50%"]["KID ↓ (± s.e.)"].endswith("(n=4)**")


def test_row_without_panoramas_is_there_and_empty(tmp_path, no_published):
    whole = by_hand()
    keep = [frame[frame["method"] != "mine"] for frame in (whole.panoramas, whole.scores, whole.replicates)]
    found = first_table(write_tables(tmp_path, Results(whole.study, *keep)))
    assert set(found["mine_of_50%"].values()) == {"0", "–"}
    assert "mine" not in set(pd.read_csv(tmp_path / "comparisons.csv")["method"])


def test_replicates_by_hand(tmp_path, no_published):
    table = replicate_table(by_hand()).set_index("method")
    line = table.loc["mine"]  # 0.2 and 0.24
    assert (line["mean"], line["replicates"], line["n"]) == (pytest.approx(0.22), 2, 2)
    assert line["plus_minus"] == pytest.approx(12.706204736432095 * 0.02, rel=1e-9)
    write_tables(tmp_path, by_hand())
    text = (tmp_path / "table.md").read_text().partition("## Replicates")[2]
    assert first_table(text)["mine_of_50%"]["KID ↓"] == "0.22 ± 0.25"
    assert "2 disjoint blocks of seeds with 2 panoramas each" in text


def test_notes_say_what_a_reader_must_know(tmp_path, no_published):
    printed = write_tables(tmp_path, by_hand())
    for words in (
        EMBEDDED,
        "mini (embedded, revision default, float32), 64×192 px, stride 4 latent cells, 3 steps, guidance scale 7.5",
        "2 prompts, 2 seeds each, 5 reference images per prompt",
        *("FID, KID: I.", "Intra-LPIPS: V (a).", "Intra-Style-L (sum), Intra-Style-L (mean): G.", "on: cpu."),
        "Intra-Style-L (sum), a multiple of the mean",
        "Bold: best of the column",
    ):
        assert words in printed, words
    model = {"name": "sd2", "id": "x/y", "revision": "abc", "precision": "float16", "embedded": False}
    other = write_tables(tmp_path, by_hand(model=model))
    assert EMBEDDED not in other and "sd2 (x/y, revision abc, float16)" in other


def with_layout(values=(0.25, 0.35, 0.3)) -> Results:
    """The run by hand with a Layout-LPIPS of its own for each label."""
    whole, known = by_hand(), dict(zip(LABELS, values, strict=True))
    rows = [
        {"method": label, "prompt": "all", "metric": "layout_lpips", "value": value, "stderr": 0.0, "n": 4}
        | {"network": "V (a)"}
        for label, value in known.items()
    ]
    panoramas = whole.panoramas.assign(layout_lpips=whole.panoramas["method"].map(known))
    return replace(whole, panoramas=panoramas, scores=pd.concat([whole.scores, pd.DataFrame(rows)]))


def test_layout_lpips_has_a_column_and_a_note_where_it_was_scored(tmp_path, no_published):
    printed = write_tables(tmp_path, with_layout())
    found = first_table(printed)
    headings = list(found["SyncDiffusion"])
    assert headings[headings.index("Intra-Style-L (mean) ↓") + 1] == "Layout-LPIPS ↑"
    column = [row["Layout-LPIPS ↑"] for row in found.values()]  # the highest is best
    assert column == ["0.2500 ± 0", "**0.3500 ± 0**", "0.3000 ± 0"]
    assert printed.count("Layout-LPIPS is this project's own metric, not the paper's") == 1
    assert "Intra-LPIPS, Layout-LPIPS: V (a)." in printed
    assert r"Layout-LPIPS $\uparrow$" in (tmp_path / "table.tex").read_text()
    assert "### Layout-LPIPS ↑" in (tmp_path / "table.md").read_text()
    write_tables(tmp_path, by_hand())
    assert not any("Layout-LPIPS" in path.read_text() for path in tmp_path.iterdir())


def test_prompts_are_shown_as_text(tmp_path, no_published):
    write_tables(tmp_path, by_hand())
    text = (tmp_path / "table.md").read_text()
    table = first_table(text.partition("### Intra-LPIPS")[2])
    assert len(table) == 2 and all(len(row) == 3 for row in table.values())
    shown = next(prompt for prompt in table if prompt != HILLS)
    assert re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", shown) == " ".join(CITY.split())  # as CommonMark reads it
    assert not re.search(r"(?<!\\)[<*|$`]", shown)


def test_titles_that_read_alike_have_their_labels():
    rows = [Row(label, "Same", "multidiffusion", {}, None) for label in ("a", "b")]
    assert titles(study(rows=tuple(rows), compare_with="a")) == {"a": "Same (a)", "b": "Same (b)"}


def test_same_results_same_bytes(tmp_path):
    names = ("table.md", "table.csv", "table.tex", "comparisons.csv")
    for folder in ("one", "two"):
        write_tables(tmp_path / folder, by_hand())
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in names)
    assert {path.name for path in (tmp_path / "one").iterdir()} == set(names)


def test_one_prompt_has_no_table_by_prompt(tmp_path, no_published):
    whole = by_hand(prompts=(HILLS,))
    kept = whole.panoramas[whole.panoramas["prompt"] == HILLS]
    write_tables(tmp_path, Results(whole.study, kept, whole.scores, whole.replicates))
    assert "## By prompt" not in (tmp_path / "table.md").read_text()
    assert set(pd.read_csv(tmp_path / "comparisons.csv")["prompt"]) == {"all"}


def test_direction_decides_what_is_best():
    whole = many_seeds()
    table = main_table(whole, comparisons(whole))
    best = table[table["best"] & (table["metric"] == "mini_clip_score")]
    assert best["method"].tolist() == ["mine"]
    assert table.loc[table["metric"] == "seconds", "best"].all()  # equal: all of them


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((0.37491, 0.02434), "0.375 ± 0.024"),
        ((0.5, 0.0996), "0.50 ± 0.10"),
        ((12345.6, 678.9), "12346 ± 679"),
        ((-0.00001, 0.01), "0.000 ± 0.010"),  # no minus before nothing
        ((-0.02, 0.011), "−0.020 ± 0.011"),
        ((0.00001234, 0.0000012), "(1.23 ± 0.12)×10⁻⁵"),
        ((123.456,), "123.5"),
        ((0.0,), "0"),
        ((0.5, 0.0), "0.5000 ± 0"),
        ((0.02, 1e-17), "0.02000 ± 0"),
        ((math.nan, 1.0), "–"),
        ((1.5, math.nan), "1.500"),
    ],
)
def test_numbers_are_rounded_by_their_uncertainty(arguments, text):
    assert number_text(*arguments) == text


@pytest.mark.parametrize(("p", "text"), [(0.0312, "0.031"), (4e-4, "< 0.001"), (1.0, "1.000"), (math.nan, "–")])
def test_probability(p, text):
    assert probability(p) == text


def test_markdown_table_reads_in_a_terminal():
    text = markdown_table(["", "a|b"], [["x", Cell("1", bold=True, dagger=True, notes=("a", "b"))], ["long row", "–"]])
    assert text.splitlines() == [
        r"|          |         a\|b |",
        "| :------- | -----------: |",
        "| x        | **1**†[a][b] |",
        "| long row |            – |",
    ]
    assert markdown_text("a_b _c_ \x00\u202e d") == r"a_b \_c\_ d"


SPECIAL = '\\{}$&#^_~%<>|`"[]'


def test_latex_escapes_every_special_character():
    text = latex_text(SPECIAL)
    bare = re.sub(r"\\(text[a-z]+\{\}|[{}$&#_%])|\{\[\}|\{\]\}", "", text)
    assert bare == ""  # nothing but commands and escaped characters
    assert latex_text("50% a_b --- 森") == r"50\% a\_b -{}-{}- 森"
    assert latex_text("2.1 ± 0.3 ≤ −4×10⁻¹²") == r"2.1 $\pm$ 0.3 $\leq$ $-$4$\times$10$^{-12}$"


def test_latex_table_is_whole_and_its_braces_match():
    rows = [["[x]", Cell("1", True, True, ("a",))], ["y", "–"]]
    text = latex_table("50% of " + SPECIAL, ["", "a_b ↓"], rows, ["n & m"], {"a": "see [b]"})
    lines = text.splitlines()
    body = lines[lines.index(r"\midrule") + 1 : lines.index(r"\bottomrule")]
    assert body == [r"{[}x{]} & \textbf{1}\textsuperscript{$\dagger$a} \\", r"y & \textendash{} \\"]
    assert r"\begin{tabular}{@{}lr@{}}" in lines and lines[-1] == r"\end{table}"
    assert r"\par\footnotesize n \& m" in lines and r"\par\footnotesize \textsuperscript{a}see {[}b{]}" in lines
    unescaped = re.sub(r"\\[{}$%&#_\\]", "", text)
    assert unescaped.count("{") == unescaped.count("}") and unescaped.count("$") % 2 == 0


def test_table_tex_has_a_row_for_each_method(tmp_path, no_published):
    write_tables(tmp_path, by_hand())
    text = (tmp_path / "table.tex").read_text()
    header = next(line for line in io.StringIO(text) if "FID" in line and "&" in line)
    rows = text.partition("\\midrule\n")[2].partition("\\bottomrule")[0].splitlines()
    assert [row.split(" & ")[0] for row in rows] == ["SyncDiffusion", "MultiDiffusion", r"mine\_of\_50\%"]
    assert {row.count(" & ") for row in rows} == {header.count(" & ")} == {8}
    assert all(row.endswith(r" \\") for row in rows)
    assert r"\textbf{0.40 $\pm$ 0.13}" in rows[0]
