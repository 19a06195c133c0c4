"""Comparisons: swapped labels, rows that show the same panoramas, blocks of unequal size."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from experiments.results.inference import holm
from experiments.results.numbers import comparisons, same_panoramas
from tests.experiments.report.test_tables import LABELS, by_hand, many_seeds

SWAPS = pd.DataFrame(
    [
        {"method": "multidiffusion", "metric": "kid", "difference": 0.004, "stderr": 0.001, "p": 0.01},
        {"method": "multidiffusion", "metric": "fid", "difference": -3.5, "stderr": np.nan, "p": 0.02},
    ]
).assign(against="syncdiffusion", n=60, prompts=6)


def keyed(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.set_index(["prompt", "method", "metric"])


def test_set_metrics_are_compared_as_their_labels_were_swapped():
    """KID with its standard error: Student's t of 54 degrees; FID has no interval. What was not swapped: replicates."""
    plain, frame = keyed(comparisons(by_hand())), keyed(comparisons(replace(by_hand(), swaps=SWAPS)))
    kid, fid = (frame.loc[("all", "multidiffusion", metric)] for metric in ("kid", "fid"))
    half = stats.t.ppf(0.975, 54) * 0.001
    assert (kid["n"], kid["p"], kid["against"]) == (60, 0.01, "syncdiffusion")
    assert (kid["low"], kid["high"]) == pytest.approx((0.004 - half, 0.004 + half), rel=1e-12)
    assert (fid["n"], fid["difference"], fid["p"]) == (60, -3.5, 0.02) and np.isnan([fid["low"], fid["high"]]).all()
    assert np.isnan([kid["share_better"], fid["share_better"]]).all()
    pd.testing.assert_series_equal(frame.loc[("all", "mine", "kid")], plain.loc[("all", "mine", "kid")])


def test_tests_of_set_metrics_belong_to_the_family_of_the_table():
    frame = comparisons(replace(by_hand(), swaps=SWAPS))
    whole = frame[frame["prompt"] == "all"]
    assert whole["p"].notna().sum() == 4 + 2
    np.testing.assert_allclose(whole["p_holm"], holm(whole["p"]), rtol=1e-12)
    assert keyed(frame).loc[("all", "multidiffusion", "kid"), "p_holm"] == pytest.approx(6 * 0.01)


def test_swaps_against_another_row_do_not_count():
    """The row compared with may change without new scores: then set metrics are compared block by block, untested."""
    frame = keyed(comparisons(replace(by_hand(compare_with="mine"), swaps=SWAPS)))
    kid = frame.loc[("all", "multidiffusion", "kid")]
    assert kid["n"] == 2 and np.isnan(kid["p"])


def with_keys(same: dict[str, str]):
    """Eight seeds of two prompts; the labels of `same` show the panoramas of another."""
    results = many_seeds()
    of_label = {label: mine for label, mine in results.panoramas.groupby("method")}
    frames = []
    for label in LABELS:
        shown = same.get(label, label)
        mine = of_label[shown].assign(method=label)
        frames.append(mine.assign(key=shown + mine["prompt"]))
    return replace(results, panoramas=pd.concat(frames, ignore_index=True))


def test_rows_of_the_same_panoramas_are_one_test():
    results = with_keys({"mine": "multidiffusion"})
    assert same_panoramas(results) == dict(
        zip(LABELS, ("syncdiffusion", "multidiffusion", "multidiffusion"), strict=True)
    )
    frame = comparisons(results)
    whole = frame[frame["prompt"] == "all"]
    assert whole["p"].tolist() == whole["p_holm"].tolist() == [2 / 2**16] * 2  # of a family of one
    assert frame.loc[frame["prompt"] != "all", "p_holm"].tolist() == pytest.approx([2 * 2 / 2**8] * 4)


def test_a_row_of_the_panoramas_compared_with_is_no_test():
    frame = comparisons(with_keys({"mine": "syncdiffusion"}))
    mine = frame[frame["method"] == "mine"]
    assert len(mine) == 3 and (mine["difference"] == 0).all() and mine[["p", "p_holm"]].isna().all(axis=None)
    whole = frame[(frame["prompt"] == "all") & (frame["method"] == "multidiffusion")].iloc[0]
    assert whole["p_holm"] == whole["p"] == 2 / 2**16


def test_sets_without_any_difference_are_no_test():
    """The very same sets: FID, which has no interval, and KID with one of no width. Sets that differ, and have the same
    FID by chance, are a test."""
    nothing = SWAPS.assign(difference=0.0, p=1.0, stderr=[0.0, np.nan])
    made = by_hand()
    theirs = made.panoramas["method"] == "syncdiffusion"
    shown = pd.concat(
        [made.panoramas[made.panoramas["method"] != "mine"], made.panoramas[theirs].assign(method="mine")]
    )
    same = keyed(comparisons(replace(made, panoramas=shown, swaps=nothing.assign(method="mine"))))
    assert np.isnan([same.loc[("all", "mine", metric), "p"] for metric in ("kid", "fid")]).all()
    other = keyed(comparisons(replace(by_hand(), swaps=nothing)))
    assert [other.loc[("all", "multidiffusion", metric), "p"] for metric in ("kid", "fid")] == [
        pytest.approx(np.nan, nan_ok=True),
        1,
    ]


def test_without_pairs_a_set_has_a_mean_less_for_each_of_its_prompts():
    made = replace(by_hand(), swaps=SWAPS)
    made = replace(made, study=replace(made.study, shared_noise=False))
    kid = keyed(comparisons(made)).loc[("all", "multidiffusion", "kid")]
    assert kid["high"] - 0.004 == pytest.approx(stats.t.ppf(0.975, 60 - 12) * 0.001)


def test_without_keys_no_rows_are_the_same():
    assert same_panoramas(many_seeds()) == {label: label for label in LABELS}


def test_blocks_of_unequal_size_are_no_pair():
    """FID falls with n: the same distribution in blocks of four against one of two would differ by the design alone."""
    results, rows = by_hand(), []
    for label, sizes in (("syncdiffusion", (4, 4, 4)), ("multidiffusion", (4, 4, 2))):
        for block, n in enumerate(sizes):
            rows.append({"method": label, "replicate": block, "metric": "fid", "value": 100 - 10 * n + block, "n": n})
    frame = keyed(comparisons(replace(results, replicates=pd.DataFrame(rows))))
    found = frame.loc[("all", "multidiffusion", "fid")]
    assert (found["n"], found["difference"]) == (2, 0)
