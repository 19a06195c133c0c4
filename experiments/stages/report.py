"""Stage 3: tables, figures and the page from the files of a run; the gallery from its pictures."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from experiments.panoramas.index import Index
from experiments.plan.plan import Plan
from experiments.plan.schema import Stage
from experiments.rebuild import rebuild
from experiments.report.gallery import write_comparison, write_gallery
from experiments.results.numbers import titles
from experiments.results.study import read_study, study_of, write_study
from experiments.stages.score_files import read_scores
from syncdiffusion.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd


def report(plan: Plan, index: Index) -> str:
    """Write tables, figures, the page, gallery.png and comparison.png; returns the main table, to be printed.

    Raises:
        UsageError: no scores, damaged ones, or those of panoramas that have been made anew since.
    """
    check_metrics(plan, read_scores(plan.folder, index)[0])  # refuses scores of other panoramas
    keep_headings(plan)
    units, headings = [each.unit for each in index.panoramas], titles_of(plan)
    table = rebuild(plan.folder, page=True)  # first: pictures take time and memory, and no number should wait for them
    write_gallery(plan.folder, units, headings)
    write_comparison(plan.folder, units, headings)
    return table


def check_metrics(plan: Plan, scores: pd.DataFrame) -> None:
    """UsageError where others were scored than the plan names: a report shows what there is."""
    from experiments.metrics.catalogue import DEFINED

    wanted = plan.metrics["metrics"]
    columns = {column.name for name in wanted for column in DEFINED[name].columns}
    others = [name for name in scores["metric"].unique() if name not in columns]
    if plan.stage is Stage.report and others:
        raise UsageError(
            f"metrics.metrics=[{','.join(wanted)}]: {others[0]} was scored as well, and stage=report shows what was; "
            "run stage=score with these, then stage=report"
        )


def titles_of(plan: Plan) -> dict[str, str]:
    """Label -> heading in pictures: a method's full name, a swept value, a variant's own label."""
    return titles(study_of(plan))


def keep_headings(plan: Plan) -> None:
    """Bring study.json up to date with what the plan may change without new scores: its name, the row compared with.

    Everything else follows from the panoramas, which are the plan's, or from how they were scored.
    """
    scored, planned = read_study(plan.folder), study_of(plan)
    study = replace(planned, networks=scored.networks, reference_count=scored.reference_count)
    if study != scored:
        write_study(plan.folder, study)


def summary(scores: pd.DataFrame, panoramas: pd.DataFrame) -> dict[str, float]:
    """`method/metric` -> value over the whole set, and the cost of each method; what is not known is left out."""
    found = {f"{row.method}/{row.metric}": row.value for row in scores[scores["prompt"] == "all"].itertuples()}
    for label, rows in panoramas.groupby("method", sort=False):
        found[f"{label}/seconds"] = rows["seconds"].mean()
        found[f"{label}/peak_memory_bytes"] = rows["peak_memory_bytes"].max()
    return {name: float(value) for name, value in found.items() if not math.isnan(value)}
