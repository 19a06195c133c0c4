"""Stage 2: score the panoramas of a plan that are on disk, into the files that tables and figures are made of."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.common.files import discard, write_whole
from experiments.common.progress import counted
from experiments.panoramas.store import Unit, read_record, unit_key
from experiments.plan.plan import Plan
from experiments.results.study import study_of, write_study
from syncdiffusion.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

SCORE_COLUMNS = ["method", "prompt", "metric", "value", "stderr", "n", "network"]
REPLICATE_COLUMNS = ["method", "replicate", "metric", "value", "n", "network"]
SWAP_COLUMNS = ["method", "against", "metric", "difference", "stderr", "p", "n", "prompts", "network"]
PANORAMA_COLUMNS = ["method", "prompt", "seed", "seconds", "peak_memory_bytes", "device", "file", "key"]

Found = list[tuple[Unit, dict[str, Any]]]


def score(plan: Plan) -> None:
    """Score what is there; only panoramas of the plan's own settings count, whatever else the folder holds.

    Raises:
        UsageError: nothing to score, panoramas missing under `strict`, or made by different models.
    """
    from experiments.metrics.cache import FeatureCache
    from experiments.metrics.config import MetricsConfig
    from experiments.metrics.networks import load_networks
    from experiments.metrics.score import PanoramaImage, score_panoramas

    found, references = on_disk(plan, plan.units), on_disk(plan, plan.references)
    check_found(plan, found, references)
    config = MetricsConfig(**plan.metrics)

    model = {name: plan.backbone[name] for name in ("window", "factor")}

    def images(units: Found) -> list[PanoramaImage]:
        made = [model | {"settings": unit.settings} for unit, _ in units]
        return [
            PanoramaImage(each.prompt, each.seed, each.label, each.png(plan.folder), how)
            for (each, _), how in zip(units, made, strict=True)
        ]

    cache = FeatureCache((plan.shared or plan.folder) / "features", "shared_dir" if plan.shared else "run_dir")
    networks, sets = load_networks(config), (images(found), images(references))
    scored = score_panoramas(*sets, config, networks, counted("score"), cache, plan.compare_with)
    drop_scores(plan.folder)
    write_study(plan.folder, study_of(plan))
    write_panoramas(plan.folder, found, scored.rows)
    write_csv(plan.folder / "replicates.csv", scored.replicates, REPLICATE_COLUMNS)
    write_csv(plan.folder / "swaps.csv", scored.swaps, SWAP_COLUMNS)
    write_csv(plan.folder / "scores.csv", scored.scores, SCORE_COLUMNS)


def drop_scores(folder: Path) -> None:
    """Gone before panoramas.csv changes: an interruption leaves no scores rather than those of other panoramas."""
    for name in ("scores.csv", "replicates.csv", "swaps.csv"):
        discard(folder / name)


def on_disk(plan: Plan, units: Sequence[Unit]) -> Found:
    """The plan's panoramas that are whole and were made with the plan's settings and model, with their records.

    The model is told by id, revision and precision, so that nothing needs to be loaded; `check_found` sees to it
    that there is one fingerprint.
    """
    found = []
    for unit in units:
        record = read_record(plan.folder, unit)
        if record is None or record["key"] != unit_key(unit, record["model"]):
            continue
        if all(record["model"][each] == value for each, value in named_model(plan.backbone).items()):
            found.append((unit, record))
    return found


def named_model(backbone: Mapping[str, Any]) -> dict[str, Any]:
    """What the configuration itself says about the model, as it stands in a record."""
    return {
        "id": backbone["model_id"] if backbone["path"] is None else Path(backbone["path"]).name,
        "revision": backbone["revision"],
        "precision": backbone["precision"],
    }


def check_found(plan: Plan, found: Found, references: Found) -> None:
    missing = len(plan.units) - len(found) + len(plan.references) - len(references)
    if not found:
        raise UsageError(f"run_dir={plan.folder}: no panorama of these settings there; make them with stage=generate")
    if missing and plan.strict:
        raise UsageError(f"strict=true: {missing} panoramas or reference images missing; make them with stage=generate")
    if missing:
        print(f"score: {missing} panoramas or reference images are missing; the others are scored", file=sys.stderr)
    if len({record["model"]["fingerprint"] for _, record in (*found, *references)}) > 1:
        raise UsageError(f"run_dir={plan.folder}: panoramas of two models; make them anew with stage=generate")


def keep_panoramas(plan: Plan) -> None:
    """Bring panoramas.csv up to date after generating; all scores go where a panorama was made anew."""
    import pandas as pd

    found = on_disk(plan, plan.units)
    path = plan.folder / "panoramas.csv"
    rows = {(unit.label, record["key"]) for unit, record in found}
    if path.is_file():
        written = pd.read_csv(path, usecols=["method", "key"], dtype=str, keep_default_na=False)
        if set(written.itertuples(index=False, name=None)) == rows:
            return
    drop_scores(plan.folder)
    write_panoramas(plan.folder, found)


def write_panoramas(folder: Path, found: Found, per_panorama: Sequence[Mapping[str, Any]] = ()) -> None:
    """panoramas.csv: a row per panorama with its cost and, once scored, its scores."""
    scored = {(row["method"], row["prompt"], row["seed"]): row for row in per_panorama}
    rows = []
    for unit, record in found:
        row = {
            "method": unit.label,
            "prompt": unit.prompt,
            "seed": unit.seed,
            "seconds": record["seconds"],
            "peak_memory_bytes": record["peak_memory_bytes"],
            "device": record["device"],
            "file": unit.png(folder).relative_to(folder).as_posix(),
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
