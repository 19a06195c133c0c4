"""Stage 2: score the panoramas of a plan that are on disk, into the four files that tables and figures are made of."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.common.files import discard, write_whole
from experiments.common.progress import report_images
from experiments.panoramas.index import Index, Panorama
from experiments.plan.plan import Plan
from experiments.results.study import study_of, write_study
from experiments.stages.unwritable import unwritable_line
from syncdiffusion.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

SCORE_COLUMNS = ["method", "prompt", "metric", "value", "stderr", "n", "network"]
REPLICATE_COLUMNS = ["method", "replicate", "metric", "value", "n", "network"]
PANORAMA_COLUMNS = ["method", "prompt", "seed", "seconds", "peak_memory_bytes", "device", "file", "key"]


def score(plan: Plan, index: Index) -> None:
    """Score what is there; only panoramas of the plan's own settings count, whatever else the folder holds.

    Raises:
        UsageError: nothing to score, panoramas missing under `strict`, made by different models, or replaced by others
            while they were scored.
    """
    from experiments.metrics.cache import FeatureCache
    from experiments.metrics.config import MetricsConfig
    from experiments.metrics.networks import load_networks
    from experiments.metrics.score import PanoramaImage, score_panoramas

    check_index(plan, index)
    config = MetricsConfig(**plan.metrics)

    def images(panoramas: Sequence[Panorama]) -> list[PanoramaImage]:
        return [PanoramaImage(each.unit.prompt, each.unit.seed, each.unit.label, each.png) for each in panoramas]

    cache = FeatureCache((plan.shared or plan.folder) / "features", index.checksums)
    scored = score_panoramas(
        images(index.panoramas),
        images(index.references),
        config,
        load_networks(config),
        report_images("score"),
        cache,
    )
    if cache.failure is not None:
        print(f"score: features are not kept: {unwritable_line(cache.failure, plan)}", file=sys.stderr)
    if changed := index.changed():
        raise UsageError(f"{changed[0].png}: replaced or damaged while it was scored; give the same command again")
    drop_scores(plan.folder)
    write_study(plan.folder, study_of(plan))
    write_panoramas(plan.folder, index.panoramas, scored.rows)
    write_csv(plan.folder / "replicates.csv", scored.replicates, REPLICATE_COLUMNS)
    write_csv(plan.folder / "scores.csv", scored.scores, SCORE_COLUMNS)


def drop_scores(folder: Path) -> None:
    """Gone before panoramas.csv changes: an interruption leaves no scores rather than those of other panoramas."""
    for name in ("scores.csv", "replicates.csv"):
        discard(folder / name)


def check_index(plan: Plan, index: Index) -> None:
    missing = len(index.missing)
    if not index.panoramas:
        raise UsageError(f"run_dir={plan.folder}: no panorama of these settings there; make them with stage=generate")
    if missing and plan.strict:
        raise UsageError(f"strict=true: {missing} panoramas or reference images missing; make them with stage=generate")
    if missing:
        print(f"score: {missing} panoramas or reference images are missing; the others are scored", file=sys.stderr)
    if len(index.fingerprints) > 1:
        raise UsageError(f"run_dir={plan.folder}: panoramas of two models; make them anew with stage=generate")


def keep_panoramas(plan: Plan, index: Index) -> None:
    """Bring panoramas.csv up to date after generating; all scores go where a panorama was made anew."""
    if written_rows(plan.folder / "panoramas.csv") != index.rows:
        drop_scores(plan.folder)
        write_panoramas(plan.folder, index.panoramas)


def written_rows(path: Path) -> set[tuple[str, str]] | None:
    """(label, key) of every row of a panoramas.csv; None where the file is not there or damaged."""
    import pandas as pd

    try:
        written = pd.read_csv(path, usecols=["method", "key"], dtype=str, keep_default_na=False)
    except (OSError, ValueError):  # pandas's own errors, and those of text that is none, are ValueErrors
        return None
    return set(written.itertuples(index=False, name=None))


def write_panoramas(
    folder: Path, panoramas: Sequence[Panorama], per_panorama: Sequence[Mapping[str, Any]] = ()
) -> None:
    """panoramas.csv: a row per panorama with its cost and, once scored, its scores."""
    scored = {(row["method"], row["prompt"], row["seed"]): row for row in per_panorama}
    rows = []
    for each in panoramas:
        unit, record = each.unit, each.record
        row = {
            "method": unit.label,
            "prompt": unit.prompt,
            "seed": unit.seed,
            "seconds": record["seconds"],
            "peak_memory_bytes": record["peak_memory_bytes"],
            "device": record["device"],
            "file": each.png.relative_to(folder).as_posix(),
            "key": record["key"],
        }
        rows.append(row | dict(scored.get((unit.label, unit.prompt, unit.seed), {})))
    metrics = [name for name in (per_panorama[0] if per_panorama else {}) if name not in PANORAMA_COLUMNS]
    write_csv(folder / "panoramas.csv", rows, PANORAMA_COLUMNS + metrics)


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], columns: list[str]) -> pd.DataFrame:
    import pandas as pd

    frame = pd.DataFrame([dict(row) for row in rows], columns=columns)
    write_whole(path, frame.to_csv(index=False))
    return frame
