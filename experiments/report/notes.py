"""What stands below the tables of a run: how the numbers were made, what the marks mean, what others published."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from baselines import facts
from experiments.common.progress import plural
from experiments.metrics.catalogue import ALL_PROMPTS, METRICS
from experiments.metrics.metric import Metric
from experiments.results.gain import GainKept
from experiments.results.numbers import ALPHA, COSTS, metrics_of, same_panoramas, titles
from experiments.results.study import Results, Study

if TYPE_CHECKING:
    import pandas as pd

ROUNDED = "Panoramas are rounded to 8 bits; the released code truncates, which darkens them by half a step."
FORMER = "scored by a former version; results/README.md says what is wrong with their numbers and errors."
SET_TEST = (  # of metrics of sets
    "p: of the difference being zero where it has a standard error; of the others of swapping labels, which asks "
    "whether the two sets differ in any way."
)
FLIPPED = " Precision and Mean-GIQA, means of a number of each image, are tested as panoramas are."
BY_PROMPT = f"†: p ≤ {ALPHA} after Holm over the tests of a metric on all prompts."
EMBEDDED = "The embedded miniature is not Stable Diffusion: never quote its numbers as the paper's."


def one_picture(study: Study) -> bool:
    """Whether a run is of a single panorama: there is nothing to average, to compare or to set beside others' means."""
    return len(study.rows) == study.expected == 1


def sentence(study: Study) -> str:
    model, canvas = study.model, study.canvas
    if one_picture(study):
        count = f"seed {study.seeds['first']}"
    else:
        count = f"{plural(len(study.prompts), 'prompt')}, {seeds_told(study)}"
    references = f", {plural(study.reference_count, 'reference image')} per prompt" if study.reference_count else ""
    if study.made_elsewhere:
        noise = "one noise for all rows" if study.shared_noise else "each row's own noise"
        return (
            "pictures made elsewhere, by models that are not known here, most of "
            f"{canvas['height']}×{canvas['width']} px, squares of {canvas['window']} px, "
            f"{plural(len(study.prompts), 'prompt')}, {noise}{references}"
        )
    return (
        f"{model['name']} ({model['id']}, revision {model['revision'] or 'default'}, {model['precision']}), "
        f"{canvas['height']}×{canvas['width']} px, stride {canvas['stride']} latent cells, {canvas['steps']} steps, "
        f"guidance scale {canvas['guidance_scale']:g}, "
        f"{count}{references}"
    )


def seeds_told(study: Study) -> str:
    """Prompts of a file may have seeds of their own, and not equally many."""
    if study.expected == len(study.prompts) * study.seeds["count"]:
        return f"{plural(study.seeds['count'], 'seed')} each"
    return f"{plural(study.expected, 'panorama')} a row"


def closing(study: Study) -> list[str]:
    """The titles of the rows whose panoramas close to rings."""
    return [title for row, title in zip(study.rows, titles(study).values(), strict=True) if row.closed]


def apart(study: Study) -> list[str]:
    """Rows made at another scale than what stands for all, with what differs but for what their titles say."""
    found = []
    for row, title in zip(study.rows, titles(study).values(), strict=True):
        swept = row.swept and row.swept[0]
        own = [
            f"{name} {row.settings[name]}"
            for name, value in study.canvas.items()
            if name != swept and facts(row.method, name).shared and row.settings.get(name, value) != value
        ]
        found += [f"{title} ({', '.join(own)})"] if own else []
    return found


def notes_of(results: Results, table: pd.DataFrame, compared: pd.DataFrame) -> list[str]:
    """What a reader must know beside the numbers of the whole set."""
    notes = [f"Model and scale: {sentence(results.study)}."]
    if results.study.model["embedded"]:
        notes.append(EMBEDDED)
    if titled := apart(results.study):
        notes.append(f"Made at settings of their own: {'; '.join(titled)}. Without `method.` a setting is for all.")
    if titled := closing(results.study):
        notes.append(f"Closed to rings of 360 degrees, the right edge going on at the left: {', '.join(titled)}.")
    return notes + meaning_notes(results, table, compared)


def meaning_notes(results: Results, table: pd.DataFrame, compared: pd.DataFrame) -> list[str]:
    """What the numbers and marks of a table mean, and where they come from."""
    study, there = results.study, metrics_of(results)
    depending = [metric.display for metric in there if metric.depends_on_n]
    notes = []
    if table["plus_minus"].notna().any():
        notes.append(
            "±: half-width of the 95 % t interval of the mean over n panoramas (new seeds of the same prompts); "
            "where marked s.e., one standard error."
            + "".join(f" {name} has neither and depends on n: compare it at equal n only." for name in depending)
        )
    if table["best"].any():
        notes.append("Bold: best of the column.")
    notes += [*dagger_note(results, there, compared), *explained(there)]
    expected = study.expected
    made = [int((results.panoramas["method"] == row.label).sum()) for row in study.rows]
    if study.made_elsewhere and len(set(made)) > 1:
        notes.append(f"Not every row has as many pictures: {min(made)} to {max(made)}.")
    if not study.made_elsewhere and any(count != expected for count in made):
        notes.append(f"Unfinished: {sum(made)} of {expected * len(made)} panoramas are there.")
    agreeing = {f"{each.source}: {each.cited}" for cell in table["published"] for each in cell}
    if agreeing:
        notes.append(f"After a semicolon, published under the same protocol. {'; '.join(sorted(agreeing))}.")
    if results.swaps is None and set_names(results):
        notes.append(f"{set_names(results)}: {FORMER}")
    return [*notes, *provenance(results, there), *([] if study.made_elsewhere else [ROUNDED])]


def dagger_note(results: Results, there: list[Metric], compared: pd.DataFrame) -> list[str]:
    study = results.study
    whole = compared[compared["prompt"] == ALL_PROMPTS]
    first = same_panoramas(results)
    tests = len({(first[line.method], line.metric) for line in whole[whole["p"].notna()].itertuples()})
    if not tests:
        return []
    tested = set(whole.loc[whole["p"].notna(), "metric"])
    untested = [metric.display for metric in there if not metric.per_panorama and metric.name not in tested]
    untested += ["costs", *(f"{metric.display}, a multiple of the mean" for metric in there if metric.multiple_of)]
    how = "two-sided sign-flip permutation test"
    if not study.shared_noise:
        how = "two-sided permutation test of the labels within each prompt"
    # A number without an error has no test of its own: the labels' asks more than whether the numbers differ.
    known = set(whole.loc[whole["low"].notna(), "metric"])
    of_labels = [metric.display for metric in there if metric.name in tested - known]
    flipped = {metric.name for metric in there if metric.per_panorama or (metric.flips and study.shared_noise)}
    of_numbers = [metric.display for metric in there if metric.name in (tested & known) - flipped]
    if of_numbers:
        how += f"; {', '.join(of_numbers)}: of the difference and its standard error"
    if of_labels:
        how += f"; {', '.join(of_labels)}: of the labels of all pairs, so whether the two sets differ in any way"
    common = "prompts and noise" if study.shared_noise else "prompts"
    return [
        f"†: differs from {titles(study)[study.compare_with]} on the same {common} ({how}, p ≤ {ALPHA} after "
        f"Holm over the {tests} tests of this table). Not tested: {', '.join(untested)}."
    ]


def set_names(results: Results) -> str:
    """The metrics of whole sets that were scored: "FID, KID and Mean-GIQA"; "" for none."""
    names = [metric.display for metric in metrics_of(results) if not metric.per_panorama]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def swapped(results: Results) -> bool:
    """Whether metrics of sets were scored against the row compared with."""
    return results.swaps is not None and (results.swaps["against"] == results.study.compare_with).any()


def difference_note(results: Results) -> str:
    """What a difference is, how it was tested, and over what n."""
    sets = set_names(results)
    if not results.study.shared_noise:
        of_sets = f"Of {sets}: the numbers of the two sets. {SET_TEST} " if sets else ""
        return (
            "Difference: mean over the prompts that both rows have of the difference of their means, n panoramas of "
            "both together, ± half-width of Welch's 95 % interval; p of a two-sided permutation test that deals the "
            f"labels anew within each prompt. {of_sets}"
            "Better: the chance that a panorama of the row is better than one of the other of the same prompt."
        )
    if not swapped(results):
        of_sets = f"Of {sets}: over n disjoint blocks of seeds, without a test."
    else:
        of_sets = (
            f"Of {sets}: the sets' numbers over the n pairs, ± half of a 95 % t interval where there is a standard "
            f"error. {SET_TEST}{FLIPPED if any(metric.flips for metric in metrics_of(results)) else ''}"
        )
    return (
        "Difference: mean over n pairs of the same prompt and noise, ± half-width of its 95 % t interval; p of a "
        "two-sided sign-flip permutation test, which n pairs keep at 2/2ⁿ or more. "
        f"{of_sets if sets else ''} Better: the share of pairs in which the row is the better one, equal pairs "
        "counted half."
    )


def gain_note(found: Sequence[GainKept], results: Results) -> str:
    """From where to where the gain goes."""
    title, each = titles(results.study), found[0]
    chosen = ", the row with the best mean" if results.study.compare_with == each.none else ""
    return (
        f"0 % is {title[each.none]}, 100 % {title[each.full]}{chosen}. In brackets Fieller's 95 % interval of the "
        f"ratio of mean differences over {each.share.n} pairs, which allows for the uncertainty of the whole gain."
    )


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
        kept = "on a CPU the process's, which keeps what it once took" if "cpu" in devices else ""
        if one_picture(results.study):
            costs = f"Seconds and peak memory{f' ({kept})' if kept else ''}"
        else:
            costs = f"Seconds (mean per panorama) and peak memory (highest{f'; {kept}' if kept else ''})"
        notes.append(f"{costs} on: {', '.join(devices)}{apart}.")
    return notes


def lettered(table: pd.DataFrame) -> tuple[dict[tuple[str, str], tuple[str, ...]], dict[str, str]]:
    """(row, metric) -> letters, and the footnotes: one for each published metric, source and list of differences."""
    groups: dict[tuple[Any, ...], list[tuple[str, str, str]]] = {}
    order = list(METRICS | COSTS)
    for line in table.sort_values("metric", key=lambda c: c.map(order.index), kind="stable").itertuples():
        for other, why in line.published_elsewhere:
            ambiguous = (METRICS | COSTS)[line.metric].ambiguous  # stands among the differences, in place of a note
            note = "" if ambiguous else other.note
            key = (other.metric, other.source, other.cited, other.spread_kind, note, why)
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
