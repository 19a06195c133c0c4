"""Goals held against a cheap method: intervals against SciPy's, verdicts on numbers whose truth is known."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from experiments.results.goals import CALLS, MARGINS, as_markdown, goals, main
from experiments.results.inference import Interval
from experiments.results.study import Results
from syncdiffusion.errors import UsageError
from tests.experiments.synthetic import synthetic_results

ROW = "shifted_matching"


def results(worse: float = 0.0, gain: float = 1.0, **changes) -> Results:
    """The benchmark's rows with drawn numbers; ROW's are SyncDiffusion's, `worse` by so much, at that share of gain."""
    made = synthetic_results("experiment=benchmark", "seeds.count=4")
    random, frame = np.random.default_rng(0), made.panoramas.copy()
    sync, multi, row = (frame["method"] == label for label in ("syncdiffusion", "multidiffusion", ROW))
    n = int(sync.sum())
    jitter = {name: 0.001 * random.standard_normal(n) for name in ("intra_lpips", "layout_lpips", "mini_clip_score")}
    frame.loc[multi, "intra_lpips"] = frame.loc[sync, "intra_lpips"].to_numpy() + 0.1 + jitter["layout_lpips"]
    of_sync, of_multi = (frame.loc[each, "intra_lpips"].to_numpy() for each in (sync, multi))
    frame.loc[row, "intra_lpips"] = of_multi + gain * (of_sync - of_multi) + jitter["intra_lpips"]
    for name in ("layout_lpips", "mini_clip_score"):
        frame.loc[row, name] = frame.loc[sync, name].to_numpy() - worse + jitter[name]
    line = {"method": ROW, "against": "syncdiffusion", "metric": "kid", "difference": 0.001, "stderr": 0.001}
    return Results(
        made.study, frame, made.scores, made.replicates, pd.DataFrame([line | {"p": 1, "n": 24, "prompts": 6}])
    )


def verdicts(found) -> dict[str, str]:
    return {each.words.split(" less")[0].split(",")[0]: each.verdict(each.found) for each in found}


def test_a_method_that_is_as_good_meets_its_goals():
    found = goals(results(), ROW)
    assert set(verdicts(found).values()) == {"met"} and len(found) == 5
    assert found[0].found.mean == pytest.approx(8 * 24 / (21 * 25), rel=0.01) and found[0].found.mean < CALLS
    kid = next(each for each in found if each.words.startswith("KID"))
    half = stats.t.ppf(0.975, 18) * 0.001
    assert (kid.found.low, kid.found.high) == pytest.approx((0.001 - half, 0.001 + half))


def test_intervals_are_over_pairs_and_over_prompts():
    made = results(0.3)
    found = next(each for each in goals(made, ROW) if each.words.startswith("mini-CLIP"))
    table = made.panoramas.pivot(index=["prompt", "seed"], columns="method", values="mini_clip_score")
    differences = table[ROW] - table["syncdiffusion"]
    for interval, values in (
        (found.found, differences),
        (found.by_prompt, differences.groupby(level="prompt").mean()),
    ):
        wanted = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
        assert (interval.low, interval.high) == pytest.approx(wanted) and interval.n == len(values)


@pytest.mark.parametrize(
    ("given", "name", "verdict"),
    [
        ({"worse": 2 * MARGINS["mini_clip_score"]}, "mini-CLIP score", "missed"),
        ({"worse": MARGINS["layout_lpips"]}, "Layout-LPIPS", "open"),  # on the margin itself
        ({"gain": 0.5}, "share of SyncDiffusion's gain in Intra-LPIPS", "missed"),
        ({"gain": 0.95}, "share of SyncDiffusion's gain in Intra-LPIPS", "open"),
        ({"worse": -5.0}, "mini-CLIP score", "met"),  # better
    ],
)
def test_a_verdict_follows_the_whole_interval(given, name, verdict):
    assert verdicts(goals(results(**given), ROW))[name] == verdict


def test_a_metric_that_the_row_has_no_numbers_of_is_no_goal():
    made = results()
    made.panoramas.loc[made.panoramas["method"] == ROW, "layout_lpips"] = np.nan
    assert "Layout-LPIPS" not in verdicts(goals(made, ROW))


def test_what_has_no_interval_is_open():
    one = goals(results(), ROW)[1]
    for n in (1, 4):
        assert one.verdict(Interval(1.0, np.nan, np.nan, n)) == "open"


def test_where_sync_diffusion_gains_nothing_there_is_no_share():
    made = results()
    sync = made.panoramas["method"] == "syncdiffusion"
    made.panoramas.loc[sync, "intra_lpips"] += 0.5
    with pytest.raises(UsageError, match="no gain to share"):
        goals(made, ROW)


def test_a_row_of_an_unknown_method_names_what_would_do():
    made = results()
    rows = tuple(replace(row, method="my_method") if row.label == ROW else row for row in made.study.rows)
    with pytest.raises(UsageError, match=f"row={ROW}: no method my_method is known; give its file with --plugins"):
        goals(replace(made, study=replace(made.study, rows=rows)), ROW)


def test_it_is_told_as_a_table():
    lines = as_markdown(goals(results(), ROW)).splitlines()
    assert len(lines) == 7 and len({line.count("|") for line in lines}) == 1
    assert "≥ −0.01" in lines[-1] or "≥ −0.01" in lines[-2]


@pytest.mark.parametrize(
    ("row", "change", "message"),
    [
        ("nonsense", {}, "row=nonsense: not in this folder; it has syncdiffusion, multidiffusion"),
        ("syncdiffusion", {}, "goals are held against SyncDiffusion"),
        (ROW, {"compare_with": "multidiffusion"}, "goals are held against SyncDiffusion"),
        (ROW, {"shared_noise": False}, "from the same noise"),
    ],
)
def test_what_cannot_be_held_to_goals_is_refused(row, change, message):
    made = results()
    with pytest.raises(UsageError, match=message):
        goals(replace(made, study=replace(made.study, **change)), row)


def test_without_the_metric_of_the_gain_it_says_so():
    made = results()
    with pytest.raises(UsageError, match="score with intra_lpips"):
        goals(replace(made, panoramas=made.panoramas.drop(columns="intra_lpips")), ROW)


def test_the_command_reads_a_committed_folder(capsys):
    assert main(["results/mini/approximations", "--row", "profile_matching"]) == 0
    told = capsys.readouterr().out
    assert "| UNet calls, share of MultiDiffusion's | ≤ 0.4 | 1 | missed |" in told
    assert "gain in Intra-LPIPS | ≥ 0.95 |" in told
    assert main(["results/mini/approximations"]) == 2


def test_a_row_without_panoramas_is_told_in_a_line():
    made = results(0.3)
    unfinished = replace(made, panoramas=made.panoramas[made.panoramas["method"] != "multidiffusion"])
    with pytest.raises(UsageError, match=f"^row={ROW}: no panorama has an Intra-LPIPS by all three methods"):
        goals(unfinished, ROW)
