"""The numbers of the tables as data frames: one estimate per (row, metric), one comparison per (row, metric, prompt).

All of it follows from a run's Results alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from experiments.metrics.catalogue import ALL_PROMPTS, METRICS
from experiments.metrics.metric import Metric
from experiments.results.inference import (
    Comparison,
    holm,
    mean_interval,
    paired_comparison,
    paired_replicates,
    paired_values,
    t_half_width,
    unpaired_comparison,
    values_by_prompt,
)
from experiments.results.published import HowMeasured, beside, differences, read_published
from experiments.results.study import Results, Row, Study

if TYPE_CHECKING:
    import pandas as pd

ALPHA = 0.05  # of the tests, after Holm
COSTS = {
    metric.name: metric
    for metric in (
        Metric("seconds", "seconds", "lower", per_panorama=True),
        Metric(
            *("peak_memory_bytes", "peak memory (GiB)", "lower"),
            per_panorama=False,
            unit=2**30,
            highest=True,
            published_as="peak_memory_gb",
        ),
    )
}
INTERVAL, STDERR = "95 % interval", "standard error"
COMPARED = "prompt method against metric n difference low high p p_holm share_better".split()  # of comparisons


@dataclass(frozen=True)
class TableNumber:
    """One number of one row. plus_minus: the half-width of the interval, or the standard error; NaN for neither."""

    value: float
    plus_minus: float
    kind: str
    low: float
    high: float
    n: int


NONE = TableNumber(np.nan, np.nan, "", np.nan, np.nan, 0)


def metrics_of(results: Results) -> list[Metric]:
    """The metrics that were scored, in the catalogue's order."""
    there = set(results.scores["metric"])
    return [metric for name, metric in METRICS.items() if name in there]


def titles(study: Study) -> dict[str, str]:
    """Label -> heading; the label beside it where two rows would read alike."""
    headings = [row.title for row in study.rows]
    return {
        row.label: row.title if headings.count(row.title) == 1 else f"{row.title} ({row.label})" for row in study.rows
    }


def estimate(results: Results, label: str, metric: Metric, prompt: str = ALL_PROMPTS) -> TableNumber:
    """A per-panorama metric: mean and t interval. A set-level one: value and standard error as scored. Memory: the
    highest peak."""
    mine = results.panoramas[results.panoramas["method"] == label]
    if prompt != ALL_PROMPTS:
        mine = mine[mine["prompt"] == prompt]
    if metric.per_panorama:
        interval = mean_interval(mine[metric.name]) if metric.name in mine else mean_interval([])
        return TableNumber(interval.mean, interval.half_width, INTERVAL, interval.low, interval.high, interval.n)
    if metric.highest:
        known = mine[metric.name].dropna()
        return TableNumber(float(known.max()), np.nan, "", np.nan, np.nan, len(known)) if len(known) else NONE
    scores = results.scores
    found = scores[(scores["method"] == label) & (scores["prompt"] == prompt) & (scores["metric"] == metric.name)]
    if found.empty:
        return NONE
    value, stderr, n = (float(found[column].iloc[0]) for column in ("value", "stderr", "n"))
    return TableNumber(value, stderr, STDERR if np.isfinite(stderr) else "", np.nan, np.nan, int(n))


def main_table(results: Results, compared: pd.DataFrame, prompt: str = ALL_PROMPTS) -> pd.DataFrame:
    """A line per (row, metric) over the whole set or one prompt, seconds and memory last.

    Columns: method, title, metric, better, the fields of TableNumber, network, best, differs (from the row compared
    with, after Holm), published (numbers that compare), published_elsewhere (numbers that do not, and why); of one
    prompt nothing was published.
    """
    import pandas as pd

    heading, known = titles(results.study), read_published() if prompt == ALL_PROMPTS else ()
    significant = compared[(compared["prompt"] == prompt) & (compared["p_holm"] <= ALPHA)]
    differing = set(zip(significant["method"], significant["metric"], strict=True))
    lines = []
    for metric in (*metrics_of(results), *COSTS.values()):
        found = {row.label: estimate(results, row.label, metric, prompt) for row in results.study.rows}
        best = best_labels(metric, found) if comparable(results, metric) else set()
        for row in results.study.rows:
            each = found[row.label]
            made = how_measured(results, row.label, metric, each.n)
            others = beside(known, row, metric) if each.n else ()
            apart = [(other, differences(other, results.study, row, made)) for other in others]
            lines.append(
                {"method": row.label, "title": heading[row.label], "metric": metric.name, "better": metric.better}
                | asdict(each)
                | {"network": made.network, "best": row.label in best, "differs": (row.label, metric.name) in differing}
                | {"published": [other for other, why in apart if not why]}
                | {"published_elsewhere": [(other, why) for other, why in apart if why]}
            )
    return pd.DataFrame(lines).sort_values("method", key=lambda c: c.map(list(heading).index), kind="stable")


def comparable(results: Results, metric: Metric) -> bool:
    """Whether rows can be told apart by a metric: not by costs on several devices, nor by memory on a CPU, where it is
    the whole process's and stays what it once was."""
    devices = set(results.panoramas["device"].dropna())
    return metric.name not in COSTS or (len(devices) < 2 and not (metric.highest and "cpu" in devices))


def best_labels(metric: Metric, found: dict[str, TableNumber]) -> set[str]:
    """The rows with the best value; none where there is nothing to choose from, or n decides as well."""
    known = {label: each.value for label, each in found.items() if np.isfinite(each.value)}
    unequal = metric.depends_on_n and len({found[label].n for label in known}) > 1
    if len(known) < 2 or unequal:
        return set()
    top = (min if metric.better == "lower" else max)(known.values())
    return {label for label, value in known.items() if value == top}


def how_measured(results: Results, label: str, metric: Metric, n: int) -> HowMeasured:
    scores, panoramas = results.scores, results.panoramas
    networks = scores.loc[(scores["method"] == label) & (scores["metric"] == metric.name), "network"]
    devices = panoramas.loc[panoramas["method"] == label, "device"]
    return HowMeasured(metric, n, _listed(networks), _listed(devices))


def _listed(names: pd.Series) -> str:
    return ", ".join(map(str, names.dropna().unique()))


def comparisons(results: Results) -> pd.DataFrame:
    """Every row less the one compared with, metric by metric.

    Columns: prompt ("all", then each prompt where there are several), method, against, metric, n, difference, low,
    high, p, p_holm, share_better. Per-panorama metrics: n pairs of the same prompt and noise; where noise was not
    shared, n panoramas of both rows. Set-level metrics, never by prompt: as scored, of n pairs, or n replicates and no
    test where the row was not scored against the one compared with. The
    comparisons over all prompts are one family for Holm; by prompt each metric is one, since they answer on which
    prompts a difference in that metric holds. Rows of the very same panoramas are one test, which counts once. A row
    that has the very numbers of the one compared with (no pull at all, against MultiDiffusion) is no test.
    """
    import pandas as pd

    study = results.study
    prompts = (ALL_PROMPTS, *(study.prompts if len(study.prompts) > 1 else ()))
    lines = [
        compared(results, prompt, row, metric)
        for prompt in prompts
        for row in study.rows
        for metric in metrics_of(results)
        if row.label != study.compare_with and not metric.multiple_of
        if metric.per_panorama or prompt == ALL_PROMPTS
    ]
    columns = [name for name in COMPARED if name != "p_holm"]
    frame = pd.DataFrame([line for line in lines if line["n"]], columns=columns)
    frame.loc[no_test(frame), "p"] = np.nan
    return with_holm(frame, same_panoramas(results))


def no_test(frame: pd.DataFrame) -> pd.Series:
    """Which lines say that two rows have the very same numbers: no difference in any pair. Where a metric has no
    interval, those of rows of which all others say so."""
    known = frame["low"].notna()
    same = known & (frame[["difference", "low", "high"]] == 0).all(axis=1)
    rows = {label for label, mine in frame[known].groupby("method") if same[mine.index].all()}
    return same | (~known & (frame["difference"] == 0) & frame["method"].isin(rows))


def no_comparisons() -> pd.DataFrame:
    """As `comparisons` gives it, without a line."""
    import pandas as pd

    return pd.DataFrame(columns=COMPARED)


def with_holm(frame: pd.DataFrame, first: Mapping[str, str]) -> pd.DataFrame:
    """A column p_holm behind p; first: label -> the first label of the same panoramas, whose tests are the same."""
    whole, of_row = frame["prompt"] == ALL_PROMPTS, frame["method"].map(first)
    frame.insert(frame.columns.get_loc("p") + 1, "p_holm", np.nan)
    for family in (whole, *(~whole & (frame["metric"] == metric) for metric in frame["metric"].unique())):
        mine = frame[family].assign(row=of_row[family])
        tests = mine.drop_duplicates(["row", "prompt", "metric"])
        adjusted = dict(
            zip(zip(tests["row"], tests["prompt"], tests["metric"], strict=True), holm(tests["p"]), strict=True)
        )
        keys = zip(mine["row"], mine["prompt"], mine["metric"], strict=True)
        frame.loc[family, "p_holm"] = [adjusted[key] for key in keys]
    return frame


def same_panoramas(results: Results) -> dict[str, str]:
    """Label -> the first label, in the study's order, whose panoramas are the very same, by their keys.

    Labels of no panoramas, or of a file without keys, are their own.
    """
    panoramas, known = results.panoramas, {}
    first: dict[str, str] = {}
    for row in results.study.rows:
        mine = panoramas[panoramas["method"] == row.label]
        there = frozenset(zip(mine["prompt"], mine["seed"], mine["key"], strict=True)) if "key" in mine else frozenset()
        first[row.label] = known.setdefault(there, row.label) if there else row.label
    return first


def compared(results: Results, prompt: str, row: Row, metric: Metric) -> dict[str, object]:
    a, b = row.label, results.study.compare_with
    if metric.per_panorama:
        chosen = None if prompt == ALL_PROMPTS else prompt
        there = metric.name in results.panoramas
        pairs = paired_values(results.panoramas, a, b, metric.name, chosen) if there else (np.empty(0), np.empty(0))
        swapped = None if results.study.shared_noise else without_pairs(results, a, b, metric, chosen)
    else:
        swapped = swap_comparison(results, a, metric)
        pairs = paired_replicates(results.replicates, a, b, metric.name)
        if swapped is None and not results.study.shared_noise:
            swapped = unpaired_comparison({}, {}, metric.better)
    if swapped is None:
        swapped = paired_comparison(*pairs, metric.better, test=metric.per_panorama)
    found = asdict(swapped)
    found["share_better"] = found.pop("share")
    return {"prompt": prompt, "method": a, "against": b, "metric": metric.name} | found


def without_pairs(results: Results, a: str, b: str, metric: Metric, prompt: str | None) -> Comparison:
    """A per-panorama metric of two rows whose panoramas were not made from one noise."""
    if metric.name not in results.panoramas:
        return unpaired_comparison({}, {}, metric.better)
    values = (values_by_prompt(results.panoramas, label, metric.name, prompt) for label in (a, b))
    return unpaired_comparison(*values, metric.better)


def swap_comparison(results: Results, label: str, metric: Metric) -> Comparison | None:
    """A set-level metric of a row less that of the row compared with, as swapping labels found it; None where nothing
    was swapped.

    The interval is Student's, of the degrees of freedom that the scores tell, else of as many as there are pairs less
    prompts, or without pairs images less two for each prompt; NaN without a standard error.
    """
    swaps, against = results.swaps, results.study.compare_with
    if swaps is None:
        return None
    found = swaps[(swaps["method"] == label) & (swaps["against"] == against) & (swaps["metric"] == metric.name)]
    if found.empty:
        return None
    line = found.iloc[0]
    means = line["prompts"] if results.study.shared_noise else 2 * line["prompts"]
    told = line.get("freedom", np.nan)  # scored before they were told, or of pairs
    half = t_half_width(float(line["stderr"]), float(line["n"] - means if np.isnan(told) else told))
    value = float(line["difference"])
    return Comparison(int(line["n"]), value, value - half, value + half, float(line["p"]), np.nan)


def replicate_table(results: Results) -> pd.DataFrame:
    """Set-level metrics over the replicates: a line per (row, metric) with mean, plus_minus, low, high, replicates, and
    n (images in each; the least where they differ)."""
    import pandas as pd

    lines = []
    for row in results.study.rows:
        for metric in metrics_of(results):
            frame = results.replicates
            mine = frame[(frame["method"] == row.label) & (frame["metric"] == metric.name)]
            if not metric.per_panorama and mine["value"].notna().any():
                found = mean_interval(mine["value"])
                lines.append(
                    {"method": row.label, "metric": metric.name, "mean": found.mean, "plus_minus": found.half_width}
                    | {"low": found.low, "high": found.high, "replicates": found.n, "n": int(mine["n"].min())}
                )
    columns = "method metric mean plus_minus low high replicates n".split()
    return pd.DataFrame(lines, columns=columns)
