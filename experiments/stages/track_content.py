"""What a run in Weights & Biases holds: copies of the files in the run folder, which are the truth."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from experiments.panoramas.index import Index
from experiments.plan.plan import Plan
from experiments.report.figures import figures_of
from experiments.report.gallery import open_image
from experiments.report.sheets import score_sheet
from experiments.results.numbers import comparisons, main_table
from experiments.results.study import Results, read_results
from experiments.stages.report import summary
from experiments.stages.score_files import read_scores

if TYPE_CHECKING:
    import pandas as pd
    import wandb
    from matplotlib.figure import Figure

MOST_IMAGES = 24  # per method
DOTS_PER_INCH = 200  # of a figure as a picture


def content_of(plan: Plan, index: Index) -> dict[str, Any]:
    """Everything that is logged at the end: tables, pictures, figures, and a number per method and metric."""
    import wandb

    scores, panoramas = read_scores(plan.folder, index)
    results = read_results(plan.folder)
    compared = comparisons(results)
    content: dict[str, Any] = {
        "table": result_table(results, compared),
        "panoramas": whole_table(panoramas),
        "scores": whole_table(scores),
        "comparisons": whole_table(compared),
        "replicates": whole_table(results.replicates),
    }
    for name in ("gallery", "comparison"):
        content[name] = wandb.Image(str(plan.folder / f"{name}.png"))
    for name, figure in figures_of(results).items():
        content[f"figures/{name}"] = wandb.Image(drawn(figure), caption=name)
    content |= {f"images/{label}": images for label, images in pictures(plan, index).items()}
    return content | dict(summary(scores, panoramas))


def result_table(results: Results, compared: pd.DataFrame) -> wandb.Table:
    """The main table: a row per method; each metric with all its digits, and behind it what ± says."""
    import wandb

    sheet = score_sheet(results, main_table(results, compared))
    columns: dict[str, list[Any]] = {}
    for place, column in enumerate(sheet.columns):
        cells = [row[place] for row in sheet.rows]
        columns[column.title] = [known(cell.value) for cell in cells]
        spreads = [known(cell.uncertainty) for cell in cells]
        if any(each is not None for each in spreads):
            columns[f"{column.title} {column.note or '±'}"] = spreads
    return wandb.Table(columns=list(columns), data=[list(row) for row in zip(*columns.values(), strict=True)])


def whole_table(frame: pd.DataFrame) -> wandb.Table:
    """All of a CSV; what is empty there is None, for JSON knows no NaN."""
    import wandb

    return wandb.Table(dataframe=frame.astype(object).where(frame.notna(), None))


def known(value: Any) -> Any:
    """None in place of NaN."""
    return None if isinstance(value, float) and math.isnan(value) else value


def drawn(figure: Figure) -> Any:
    """A figure as a Pillow image: W&B shows no SVG."""
    from PIL import Image

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH)
    return Image.open(buffer).convert("RGB")


def pictures(plan: Plan, index: Index) -> Mapping[str, list[wandb.Image]]:
    """Up to MOST_IMAGES panoramas per method as lists: images inside a wandb.Table are not kept offline.

    Where there are more, the first of every prompt come before the second of any.
    """
    import wandb

    units = [each.unit for each in index.panoramas]
    found: dict[str, list[wandb.Image]] = {}
    for label in dict.fromkeys(unit.label for unit in units):
        own = [unit for unit in units if unit.label == label]
        turn, seen = {}, Counter[str]()
        for unit in own:
            turn[unit] = seen[unit.prompt]
            seen[unit.prompt] += 1
        chosen = set(sorted(own, key=turn.__getitem__)[:MOST_IMAGES])
        found[label] = [
            wandb.Image(open_image(plan.folder, unit), caption=f"{unit.prompt}, seed {unit.seed}")
            for unit in own
            if unit in chosen
        ]
    return found
