"""Whether a cheap method is as coherent as SyncDiffusion and no worse: goals with margins named beforehand.

    python -m experiments.results.goals results/mini/benchmark                 # of shifted_matching, `method=fastest`
    python -m experiments.results.goals results/mini/benchmark --row profile_matching

The folder is one of an experiment with the row, SyncDiffusion to compare with, and MultiDiffusion. "Not worse" is a
test of non-inferiority: a goal is met where the whole 95 % interval of the paired difference lies within the margin,
missed where the whole of it lies beyond, and open where it holds the margin. What the intervals speak of is told twice:
new seeds of these prompts (pairs), and new prompts (the mean difference of each prompt as one draw).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.common.command_line import one_line_errors
from experiments.metrics.catalogue import METRICS
from experiments.plan.plugins import load_plugins
from experiments.results.gain import NOTHING_GAINED, share_interval
from experiments.results.inference import Interval, mean_interval
from experiments.results.numbers import swap_comparison
from experiments.results.study import Results, Row, read_results
from syncdiffusion.errors import UsageError

CALLS = 0.4  # of MultiDiffusion's UNet calls, at most
GAIN = 0.95  # of SyncDiffusion's gain in Intra-LPIPS, at least
# By how much a mean may be worse than SyncDiffusion's. Named before a panorama of the benchmark had been scored, each
# about a tenth of what such a score differs by between panoramas or, of KID, between unlike methods.
MARGINS = {
    "seam_score": 0.5,
    "kid": 0.005,
    "kid_crops": 0.005,
    "layout_lpips": 0.01,
    "clip_score": 1.0,
    "mini_clip_score": 1.0,
}


@dataclass(frozen=True)
class Goal:
    """words: what was asked for. found: with its interval over pairs; by_prompt: over prompts, where that can be told.

    bound, at_least: the value that is to be reached, or not to be passed.
    """

    words: str
    found: Interval
    by_prompt: Interval | None
    bound: float
    at_least: bool

    def verdict(self, found: Interval) -> str:
        low, high = found.low, found.high
        if np.isnan([low, high]).any():
            return "open"
        met, missed = (low >= self.bound, high < self.bound) if self.at_least else (
            high <= self.bound, low > self.bound
        )  # fmt: skip
        return "met" if met else "missed" if missed else "open"


def goals(results: Results, label: str) -> list[Goal]:
    """Of the row of that label.

    Raises:
        UsageError: no such row, no MultiDiffusion, a comparison with another method than SyncDiffusion, no pairs, no
            gain of SyncDiffusion's over MultiDiffusion.
    """
    study = results.study
    there = [row.label for row in study.rows]
    for wanted in (label, NOTHING_GAINED):
        if wanted not in there:
            raise UsageError(f"row={wanted}: not in this folder; it has {', '.join(there)}")
    if study.row(study.compare_with).method != "syncdiffusion" or not study.shared_noise or label == study.compare_with:
        raise UsageError(f"row={label}: goals are held against SyncDiffusion, from the same noise; give another folder")
    share = unet_calls(results, study.row(label)) / unet_calls(results, study.row(NOTHING_GAINED))
    exact = Interval(share, share, share, 1)
    return [
        Goal("UNet calls, share of MultiDiffusion's", exact, None, CALLS, False),
        _gain(results, label),
        *(found for name, margin in MARGINS.items() if (found := _not_worse(results, label, name, margin))),
    ]


def unet_calls(results: Results, row: Row) -> float:
    """UNet calls of one panorama."""
    from baselines import METHODS
    from experiments.stages.flops import calls

    if row.method not in METHODS:
        raise UsageError(f"row={row.label}: no method {row.method} is known; give its file with --plugins")
    return calls(row.method, dict(row.settings), results.study.canvas).unet


def _paired(results: Results, metric: str, labels: Sequence[str]) -> list[tuple[np.ndarray, ...]]:
    """Of each prompt the values of each label, by seed, where all of them have one."""
    table = results.panoramas.pivot(index=["prompt", "seed"], columns="method", values=metric)
    table = table.reindex(columns=list(labels)).dropna()
    return [tuple(each.to_numpy().T) for _, each in table.groupby(level="prompt")]


def _gain(results: Results, label: str) -> Goal:
    there = "intra_lpips" in results.panoramas
    values = _paired(results, "intra_lpips", (label, NOTHING_GAINED, results.study.compare_with)) if there else []
    if not values:
        raise UsageError(f"row={label}: no panorama has an Intra-LPIPS by all three methods; score with intra_lpips")
    pairs = [np.concatenate(each) for each in zip(*values, strict=True)]
    if not pairs[1].mean() > pairs[2].mean():
        raise UsageError(f"row={label}: SyncDiffusion is not more coherent than MultiDiffusion here; no gain to share")
    prompts = (np.array([each.mean() for each in side]) for side in zip(*values, strict=True))
    words = "share of SyncDiffusion's gain in Intra-LPIPS"
    return Goal(words, share_interval(*pairs), share_interval(*prompts), GAIN, True)


def _not_worse(results: Results, label: str, name: str, margin: float) -> Goal | None:
    """The goal of a metric; None where the folder has no numbers of it for both."""
    lower = METRICS[name].better == "lower"
    if not METRICS[name].per_panorama:
        swapped = swap_comparison(results, label, METRICS[name])
        if swapped is None:
            return None
        found, by_prompt = Interval(swapped.difference, swapped.low, swapped.high, swapped.n), None
    else:
        if name not in results.panoramas:
            return None
        values = [a - b for a, b in _paired(results, name, (label, results.study.compare_with))]
        if not values:  # moving windows have no borders to look at
            return None
        found, by_prompt = mean_interval(np.concatenate(values)), mean_interval([each.mean() for each in values])
    words = f"{METRICS[name].display} less SyncDiffusion's"
    return Goal(words, found, by_prompt, margin if lower else -margin, not lower)


def as_markdown(found: Sequence[Goal]) -> str:
    lines = ["| | goal | found, over pairs | | over prompts | |", "|---|---|---|---|---|---|"]
    for goal in found:
        sign = "≥" if goal.at_least else "≤"
        cells = [goal.words, f"{sign} {goal.bound:g}".replace("-", "−"), *_told(goal, goal.found)]
        lines.append("| " + " | ".join([*cells, *(_told(goal, goal.by_prompt) if goal.by_prompt else ("", ""))]) + " |")
    return "\n".join(lines)


def _told(goal: Goal, found: Interval) -> tuple[str, str]:
    exact = found.low == found.high or np.isnan(found.half_width)  # or nobody knows how exact
    numbers = f"{found.mean:.3g}" + ("" if exact else f" [{found.low:.3g}, {found.high:.3g}]")
    return numbers.replace("-", "−"), goal.verdict(found)


@one_line_errors()
def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.results.goals", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a run folder, or one under results/")
    parser.add_argument("--row", default="shifted_matching", metavar="LABEL", help="the row that is held to the goals")
    parser.add_argument("--plugins", nargs="+", default=[], metavar="FILE", help="the run's plugins")
    options = parser.parse_args(words)
    load_plugins(options.plugins)
    print(as_markdown(goals(read_results(options.folder), options.row)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
