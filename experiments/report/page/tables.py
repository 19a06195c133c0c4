"""The tables of a page: sections of named tables, whose cells hold a text and the value that they are sorted by."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.metrics.catalogue import ALL_PROMPTS, METRICS
from experiments.metrics.metric import Metric
from experiments.report.notes import dagger_note, explained, provenance
from experiments.report.tables import ARROWS
from experiments.report.typeset import measured, percent, probability
from experiments.results.numbers import ALPHA, COSTS, STDERR, TableNumber, best_labels, estimate, metrics_of, titles
from experiments.results.study import Results, Study

if TYPE_CHECKING:
    import pandas as pd

MEANING = (
    "±: half-width of the 95 % t interval of the mean over n panoramas; where marked s.e., one standard error. FID has "
    "neither and falls with n: compare it at equal n only. Peak memory: the highest. Bold: best of the column."
)
PAIRS = (
    "Difference: the row less the one that it is compared with, mean over n pairs of the same prompt and noise, ± "
    "half-width of its 95 % t interval; of FID, KID and Mean-GIQA over n disjoint blocks of seeds, without a test. "
    "p: two-sided sign-flip permutation test. Better: pairs in which the row is the better one."
)

TEXTS = {"prompt": str, "method": str, "against": str}  # also one that reads "10" or "null"

Cell = dict[str, Any]  # text, beside, best, value (a number or a word to sort by, None where there is nothing)


def table_sections(folder: Path, results: Results) -> list[dict[str, Any]]:
    """The whole set, the prompts one by one, and folder/comparisons.csv where it is there."""
    study, there, compared = results.study, metrics_of(results), read_comparisons(folder)
    notes = [MEANING, *explained(there), " ".join(provenance(results, there))]
    if compared is not None:
        notes[1:1] = dagger_note(study, there, compared)
    each = [score_table(results, prompt, compared) for prompt in study.prompts]
    sections = [
        section("results", "Results", notes, [score_table(results, ALL_PROMPTS, compared)]),
        section("by-prompt", "Prompt by prompt", ["As above, of one prompt."], each),
    ]
    if compared is not None and len(compared):
        tables = [comparison_table(rows, study) for _, rows in compared.groupby("prompt", sort=False)]
        sections.append(section("comparisons", "Compared pair by pair", [PAIRS], tables))
    return sections


def section(name: str, title: str, notes: Sequence[str], tables: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"id": name, "title": title, "notes": list(notes), "tables": list(tables)}


def read_comparisons(folder: Path) -> pd.DataFrame | None:
    import pandas as pd

    path = folder / "comparisons.csv"
    if not path.is_file():
        return None
    return pd.read_csv(path, dtype=TEXTS, keep_default_na=False, na_values=[""])


def score_table(results: Results, prompt: str, compared: pd.DataFrame | None) -> dict[str, Any]:
    """Rows of the study; n, metrics and cost as columns. A dagger where `compared` finds a difference."""
    study, made = results.study, results.panoramas
    if prompt != ALL_PROMPTS:
        made = made[made["prompt"] == prompt]
    counts = {row.label: int((made["method"] == row.label).sum()) for row in study.rows}
    columns = [column("method"), column("n", "", "panoramas")]
    cells = [[word(title) for title in titles(study).values()], [number(str(n), n) for n in counts.values()]]
    for metric in (*metrics_of(results), *COSTS.values()):
        found = {label: estimate(results, label, metric, prompt) for label in counts}
        if not any(each.n for each in found.values()):
            continue  # FID and KID of single prompts may not be there
        differing = differing_labels(compared, prompt, metric)
        best = best_labels(metric, found)
        with_stderr = any(each.kind == STDERR for each in found.values())
        columns.append(column(titled(metric), "± s.e." if with_stderr else "", f"{metric.better} is better"))
        cells.append(
            [
                score_cell(metric, each, counts[label], label in best, label in differing)
                for label, each in found.items()
            ]
        )
    return {"name": shown(prompt), "columns": columns, "rows": [list(row) for row in zip(*cells, strict=True)]}


def titled(metric: Metric) -> str:
    return f"{metric.display}\N{NO-BREAK SPACE}{ARROWS[metric.better]}"


def shown(prompt: str) -> str:
    return "all prompts" if prompt == ALL_PROMPTS else prompt


def differing_labels(compared: pd.DataFrame | None, prompt: str, metric: Metric) -> set[str]:
    """Rows that differ from the one compared with, after Holm."""
    if compared is None:
        return set()
    mine = compared[(compared["prompt"] == prompt) & (compared["metric"] == metric.name)]
    return set(mine.loc[mine["p_holm"] <= ALPHA, "method"])


def score_cell(metric: Metric, found: TableNumber, n: int, best: bool, differs: bool) -> Cell:
    """n stands beside every FID, and wherever it is not the row's."""
    cell = number(measured(found.value / metric.unit, found.plus_minus), found.value, best)
    cell["beside"] += "†" * differs
    if found.n and (metric.falls_with_n or found.n != n):
        cell["beside"] = f"{cell['beside']} (n={found.n})".lstrip()
    return cell


def number(text: str, value: float, best: bool = False) -> Cell:
    """What follows ± stands beside the number, unless a power of ten embraces both."""
    before, sign, after = (text, "", "") if text.startswith("(") else text.partition(" ± ")
    known = None if math.isnan(value) else value
    return {"text": before, "beside": f"± {after}" if sign else "", "best": best, "value": known}


def word(text: str) -> Cell:
    return {"text": text, "beside": "", "best": False, "value": text}


def column(title: str, note: str = "", hint: str = "") -> dict[str, str]:
    return {"title": title, "note": note, "hint": hint}


def comparison_table(rows: pd.DataFrame, study: Study) -> dict[str, Any]:
    """Rows of comparisons.csv, all of one prompt."""
    headings = ("method", "compared with", "metric", "difference", "p", "p (Holm)", "better", "n")
    title = titles(study)
    return {
        "name": shown(rows["prompt"].iloc[0]),
        "columns": [column(each) for each in headings],
        "rows": [comparison_line(line, title) for line in rows.to_dict("records")],
    }


def comparison_line(line: Mapping[str, Any], title: Mapping[str, str]) -> list[Cell]:
    share = line["share_better"]
    return [
        word(title.get(line["method"], line["method"])),
        word(title.get(line["against"], line["against"])),
        word(titled(METRICS[line["metric"]]) if line["metric"] in METRICS else line["metric"]),
        number(measured(line["difference"], (line["high"] - line["low"]) / 2), line["difference"]),
        number(probability(line["p"]), line["p"]),
        number(probability(line["p_holm"]), line["p_holm"]),
        number(percent(share), share),
        number(str(int(line["n"])), line["n"]),
    ]
