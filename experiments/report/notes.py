"""What stands below the tables of a run: how the numbers were made, what the marks mean, what others published."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Any

from experiments.metrics.catalogue import ALL_PROMPTS, METRICS
from experiments.metrics.metric import Metric
from experiments.results.numbers import ALPHA, COSTS, metrics_of, titles
from experiments.results.study import Results, Study

if TYPE_CHECKING:
    import pandas as pd

EMBEDDED = "The embedded miniature is not Stable Diffusion: never quote its numbers as the paper's."


def counted(n: int, thing: str) -> str:
    return f"{n} {thing}{'' if n == 1 else 's'}"


def sentence(study: Study) -> str:
    model, canvas = study.model, study.canvas
    return (
        f"{model['name']} ({model['id']}, revision {model['revision'] or 'default'}, {model['precision']}), "
        f"{canvas['height']}×{canvas['width']} px, stride {canvas['stride']} latent cells, {canvas['steps']} steps, "
        f"guidance scale {canvas['guidance_scale']:g}, "
        f"{counted(len(study.prompts), 'prompt')}, {counted(study.seeds['count'], 'seed')} each, "
        f"{counted(study.reference_count, 'reference image')} per prompt"
    )


def notes_of(results: Results, table: pd.DataFrame, compared: pd.DataFrame) -> list[str]:
    """What a reader must know beside the numbers."""
    study, there = results.study, metrics_of(results)
    notes = [f"Model and scale: {sentence(study)}."]
    if study.model["embedded"]:
        notes.append(EMBEDDED)
    notes.append(
        "±: half-width of the 95 % t interval of the mean over n panoramas (new seeds of the same prompts); "
        "where marked s.e., one standard error. FID has neither and falls with n: compare it at equal n only."
    )
    notes += ["Bold: best of the column.", *dagger_note(study, there, compared), *explained(there)]
    expected = len(study.prompts) * study.seeds["count"]
    made = [int((results.panoramas["method"] == row.label).sum()) for row in study.rows]
    if any(count != expected for count in made):
        notes.append(f"Unfinished: {sum(made)} of {expected * len(made)} panoramas are there.")
    agreeing = {f"{each.source}: {each.citation}" for cell in table["published"] for each in cell}
    if agreeing:
        notes.append(f"After a semicolon, published under the same protocol. {'; '.join(sorted(agreeing))}.")
    return notes + provenance(results, there)


def dagger_note(study: Study, there: list[Metric], compared: pd.DataFrame) -> list[str]:
    tests = int(compared.loc[compared["prompt"] == ALL_PROMPTS, "p"].notna().sum())
    if not tests:
        return []
    untested = [metric.display for metric in there if not metric.per_panorama] + ["costs"]
    untested += [f"{metric.display}, a multiple of the mean" for metric in there if metric.multiple_of]
    return [
        f"†: differs from {titles(study)[study.compare_with]} on the same prompts and noise (two-sided sign-flip "
        f"permutation test, p ≤ {ALPHA} after Holm over the {tests} tests of this table). Not tested: "
        f"{', '.join(untested)}."
    ]


def explained(there: list[Metric]) -> list[str]:
    """What the metrics are that a reader cannot know."""
    return [metric.note for metric in there if metric.note]


def provenance(results: Results, there: list[Metric]) -> list[str]:
    """The networks behind the metrics, and the devices behind the costs."""
    scores, notes = results.scores, []
    for network, rows in scores.groupby("network", sort=False):
        metrics = [metric.display for metric in there if (rows["metric"] == metric.name).any()]
        notes.append(f"{', '.join(metrics)}: {network}.")
    devices = [str(device) for device in results.panoramas["device"].dropna().unique()]
    if devices:
        apart = " (more than one: do not compare the costs)" if len(devices) > 1 else ""
        kept = "; on a CPU the process's, which keeps what it once took" if "cpu" in devices else ""
        notes.append(f"Seconds (mean per panorama) and peak memory (highest{kept}) on: {', '.join(devices)}{apart}.")
    return notes


def lettered(table: pd.DataFrame) -> tuple[dict[tuple[str, str], tuple[str, ...]], dict[str, str]]:
    """(row, metric) -> letters, and the footnotes: one for each published metric, source and list of differences."""
    groups: dict[tuple[Any, ...], list[tuple[str, str, str]]] = {}
    order = list(METRICS | COSTS)
    for line in table.sort_values("metric", key=lambda c: c.map(order.index), kind="stable").itertuples():
        for other, why in line.published_elsewhere:
            ambiguous = (METRICS | COSTS)[line.metric].ambiguous  # stands among the differences, in place of a note
            note = "" if ambiguous else other.note
            key = (other.metric, other.source, other.citation, other.spread_kind, note, why)
            groups.setdefault(key, []).append((line.method, line.metric, f"{other.title} {other.text}"))
    letters: dict[tuple[str, str], tuple[str, ...]] = {}
    footnotes = {}
    for letter, (key, members) in zip(names(), groups.items(), strict=False):
        for label, metric, _ in members:
            letters[label, metric] = (*letters.get((label, metric), ()), letter)
        footnotes[letter] = footnote(key, members)
    return letters, footnotes


def footnote(key: tuple[Any, ...], members: list[tuple[str, str, str]]) -> str:
    _, source, citation, spread_kind, note, why = key
    columns = ", ".join((METRICS | COSTS)[metric].display for metric in dict.fromkeys(each[1] for each in members))
    values = ", ".join(dict.fromkeys(each[2] for each in members))
    spread = f"; kind of ±: {spread_kind}" if spread_kind else ""
    remark = f" ({note})" if note else ""
    return f"{columns}: {source} ({citation}) published {values}{spread}{remark}. What differs: {', '.join(why)}."


def names() -> list[str]:
    """a, b, ..., z, aa, ab, ..."""
    once = list(string.ascii_lowercase)
    return once + [first + second for first in once for second in once]
