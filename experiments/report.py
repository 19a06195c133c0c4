"""Stage 3: the tables and the gallery, from panoramas.csv, scores.csv and the pictures alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from experiments.config import Plan
from experiments.gallery import write_comparison, write_gallery
from experiments.score import on_disk
from experiments.store import write_whole
from syncdiffusion.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

ARROWS = {"lower": "↓", "higher": "↑"}


def report(plan: Plan) -> str:
    """Write table.md, gallery.png and comparison.png; returns the table of the whole set, to be printed.

    Raises:
        UsageError: no scores, or scores of panoramas that have been made anew since.
    """
    scores, panoramas = read_scores(plan)
    table = score_table(scores, panoramas, plan.labels)
    notes = footnotes(plan, scores)
    parts = [f"# {plan.name}", table, notes]
    for prompt in plan.prompts:
        if (scores["prompt"] == prompt).any():
            rows = score_table(scores, panoramas, plan.labels, prompt)
            parts += [f"## {' '.join(prompt.split())}", rows]
    write_whole(plan.folder / "table.md", "\n\n".join(parts) + "\n")
    units, titles = [unit for unit, _ in on_disk(plan, plan.units)], titles_of(plan)
    write_gallery(plan.folder, units, titles)
    write_comparison(plan.folder, units, titles)
    return f"{table}\n\n{notes}"


def titles_of(plan: Plan) -> dict[str, str]:
    """Label -> heading in pictures: a method's full name, a variant's own label."""
    from baselines import METHODS

    return {label: METHODS[label].title if label in METHODS else label for label in plan.labels}


def read_scores(plan: Plan) -> tuple[pd.DataFrame, pd.DataFrame]:
    """scores.csv and panoramas.csv, checked against the panoramas that they speak of."""
    import pandas as pd

    try:
        scores = pd.read_csv(plan.folder / "scores.csv")
        panoramas = pd.read_csv(plan.folder / "panoramas.csv")
    except FileNotFoundError:
        raise UsageError(f"run_dir={plan.folder}: not scored yet; run stage=score") from None
    there = {record["key"] for _, record in on_disk(plan, plan.units)}
    if set(panoramas["key"]) != there:
        raise UsageError(f"run_dir={plan.folder}: scores.csv is of other panoramas than those there; run stage=score")
    return scores, panoramas


def score_table(scores: pd.DataFrame, panoramas: pd.DataFrame, labels: tuple[str, ...], prompt: str = "all") -> str:
    """Markdown: methods as rows, metrics and cost as columns; value ± standard error (n)."""
    import pandas as pd

    from experiments.metrics.score import METRICS

    of_prompt = scores[scores["prompt"] == prompt]
    cells = {(row.method, row.metric): cell(row.value, row.stderr, row.n) for row in of_prompt.itertuples()}
    present = [name for name in METRICS if (of_prompt["metric"] == name).any()]
    made = panoramas if prompt == "all" else panoramas[panoramas["prompt"] == prompt]
    rows = []
    for label in labels:
        mine = made[made["method"] == label]
        row = {"method": label}
        row |= {f"{METRICS[m].display} {ARROWS[METRICS[m].better]}": cells.get((label, m), "–") for m in present}
        row["seconds each"] = f"{mine['seconds'].mean():.1f} (n={len(mine)})" if len(mine) else "–"
        row["peak memory"] = f"{mine['peak_memory_bytes'].max() / 2**30:.2f} GiB" if len(mine) else "–"
        rows.append(row)
    return pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)


def cell(value: float, stderr: float, n: float) -> str:
    """
    >>> cell(0.123456, 0.00123, 4), cell(123.456, float("nan"), 4)
    ('0.1235 ± 0.0012 (n=4)', '123.5 (n=4)')
    """
    if value != value:
        return "–"
    error = "" if stderr != stderr else f" ± {stderr:.2g}"
    return f"{value:.4g}{error} (n={n:.0f})"


def footnotes(plan: Plan, scores: pd.DataFrame) -> str:
    """What a reader must know beside the numbers: the model and its scale, and the network behind each metric."""
    from experiments.metrics.score import METRICS

    model, resolved = plan.backbone, plan.resolved
    source = Path(model["path"]).name if model["path"] else model["model_id"]
    lines = [
        f"Model: {model['name']} ({source}, revision {model['revision'] or 'default'}), "
        f"{resolved['height']}×{resolved['width']} px, {resolved['steps']} steps, "
        f"{len(plan.prompts)} prompts, {resolved['seeds']['count']} seeds each; value ± standard error (n).",
    ]
    if model["model_id"] == "embedded" and model["path"] is None:
        lines.append("The embedded miniature is not Stable Diffusion: never quote its numbers as the paper's.")
    for network, rows in scores.groupby("network", sort=False):
        names = [METRICS[m].display for m in dict.fromkeys(rows["metric"]) if m in METRICS]
        lines.append(f"{', '.join(names)}: {network}.")
    return "\n".join(f"- {line}" for line in lines)


def summary(scores: pd.DataFrame, panoramas: pd.DataFrame) -> dict[str, float]:
    """`method/metric` -> value over the whole set, and the cost of each method."""
    found = {f"{row.method}/{row.metric}": row.value for row in scores[scores["prompt"] == "all"].itertuples()}
    for label, rows in panoramas.groupby("method", sort=False):
        found[f"{label}/seconds"] = rows["seconds"].mean()
        found[f"{label}/peak_memory_bytes"] = rows["peak_memory_bytes"].max()
    return {name: float(value) for name, value in found.items()}
