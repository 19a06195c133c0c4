"""What a run's tables and figures are made of: its facts in study.json, its numbers in four CSV files.

A run folder and a folder committed under ``results/`` hold the same files, so everything that is drawn or printed can
be rebuilt from either, without a panorama and without a model. A folder scored before there were label swaps has no
swaps.csv: its metrics of whole sets have no test.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baselines import METHODS, facts
from experiments.common.files import write_json
from experiments.panoramas.store import MADE_ELSEWHERE
from experiments.plan.plan import Entry, Plan
from syncdiffusion.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

FILES = ("study.json", "panoramas.csv", "scores.csv", "replicates.csv")
SWAPS = "swaps.csv"  # beside them since there are label swaps
COLUMNS = {  # what tables and figures look for; a file may hold more
    "panoramas.csv": ("method", "prompt", "seed", "seconds", "peak_memory_bytes", "device", "file"),
    "scores.csv": ("method", "prompt", "metric", "value", "stderr", "n", "network"),
    "replicates.csv": ("method", "replicate", "metric", "value", "n"),
    SWAPS: ("method", "against", "metric", "difference", "stderr", "p", "n", "prompts"),
}

TEXTS = ("method", "prompt", "metric", "device", "file", "key", "network", "against")  # columns that hold no numbers


@dataclass(frozen=True)
class Row:
    """One row of the tables.

    swept: (setting, value) where an ablation made the row, else None; value None means all, or the default.
    """

    label: str
    title: str
    method: str
    settings: Mapping[str, Any]
    swept: tuple[str, Any] | None

    @property
    def closed(self) -> bool:
        """Whether its panoramas are rings; of a plugin that is not there nobody knows."""
        return self.method in METHODS and METHODS[self.method].closed(self.settings)


@dataclass(frozen=True)
class Study:
    """The facts of a run that its numbers alone do not tell.

    model: name, id, revision, precision, and whether it is the embedded miniature.
    canvas: height and width in pixels, window (side in pixels), factor (pixels per latent cell), stride (latent cells),
        steps, guidance_scale. Of pictures made elsewhere, stride, steps and guidance_scale are None: nobody knows.
    seeds: first: the lowest; count: of each prompt, for each of its first seeds. pictures: panoramas of a row; None in
        folders of a former version, where every prompt has `count`.
    compare_with: the label that every other row is compared with.
    networks: "paper" or "mini", the set of metric networks.
    shared_noise: whether the rows' panoramas of one prompt and seed were made from one noise, and so are pairs.
    """

    name: str
    model: Mapping[str, Any]
    canvas: Mapping[str, Any]
    prompts: tuple[str, ...]
    seeds: Mapping[str, int]
    reference_count: int
    networks: str
    rows: tuple[Row, ...]
    compare_with: str
    shared_noise: bool = True
    pictures: int | None = None

    @property
    def expected(self) -> int:
        """Panoramas of a row, when all are there."""
        return len(self.prompts) * self.seeds["count"] if self.pictures is None else self.pictures

    @property
    def made_elsewhere(self) -> bool:
        return self.model["name"] == MADE_ELSEWHERE

    def row(self, label: str) -> Row:
        return next(row for row in self.rows if row.label == label)


@dataclass(frozen=True)
class Results:
    """study: the facts. panoramas: a row per panorama; scores: a row per (method, prompt, metric); replicates: a row
    per (method, replicate, metric) of the set-level metrics on disjoint blocks of seeds; swaps: a row per (method,
    metric) of the same metrics less those of the method compared with, None where there are none. `method` holds
    labels."""

    study: Study
    panoramas: pd.DataFrame
    scores: pd.DataFrame
    replicates: pd.DataFrame
    swaps: pd.DataFrame | None = None


def study_of(plan: Plan) -> Study:
    resolved, model = plan.resolved, plan.backbone
    embedded = model["model_id"] == "embedded" and model["path"] is None
    return Study(
        name=plan.name,
        model={
            "name": model["name"],
            "id": Path(model["path"]).name if model["path"] else model["model_id"],
            "revision": model["revision"],
            "precision": model["precision"],
            "embedded": embedded,
        },
        canvas={
            **{key: resolved[key] for key in ("height", "width", "stride", "steps", "guidance_scale")},
            **{key: model[key] for key in ("window", "factor")},
        },
        prompts=plan.prompts,
        seeds={"first": min(unit.seed for unit in plan.units), "count": resolved["seeds"]["count"]},
        reference_count=resolved["reference"]["count"],
        networks=plan.metrics["networks"],
        rows=tuple(
            Row(entry.label, title_of(entry), entry.method, by_name(entry), entry.swept) for entry in plan.entries
        ),
        compare_with=plan.compare_with,
        shared_noise=plan.shared_noise,
        pictures=len({(unit.prompt, unit.seed) for unit in plan.units}),
    )


def by_name(entry: Entry) -> dict[str, Any]:
    """The settings, of files their names alone: a table says nothing of a machine's folders."""
    return {
        name: Path(value).name if facts(entry.method, name).file and value is not None else value
        for name, value in entry.settings.items()
    }


def title_of(entry: Entry) -> str:
    """The heading of a row: a method's full name, a swept value, or a variant's own label."""
    if entry.swept is not None:
        setting, value = entry.label.split("=", 1)
        return f"{facts(entry.method, setting).symbol or setting} = {value}"
    if entry.label == entry.method:
        return METHODS[entry.method].title
    return entry.label


def write_study(folder: Path, study: Study) -> None:
    write_json(folder / "study.json", asdict(study))


def read_study(folder: Path) -> Study:
    """Raises UsageError where there is no study.json, or one of another version."""
    try:
        content = json.loads((folder / "study.json").read_text())
        rows = tuple(
            Row(**{**row, "swept": tuple(row["swept"]) if row["swept"] else None}) for row in content.pop("rows")
        )
        return Study(**{**content, "prompts": tuple(content["prompts"]), "rows": rows})
    except OSError:
        raise UsageError(f"{folder}: no study.json there; give a run folder, or one under results/") from None
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{folder}/study.json: not readable ({error}); run stage=score again") from None


def read_results(folder: Path) -> Results:
    """The files of a folder. Raises UsageError where one but swaps.csv is missing, or one is damaged."""
    swaps = read_numbers(folder / SWAPS) if (folder / SWAPS).is_file() else None
    return Results(read_study(folder), *(read_numbers(folder / name) for name in FILES[1:]), swaps)


def read_numbers(path: Path) -> pd.DataFrame:
    """A CSV file of a run; labels and prompts stay text, also one that reads "10" or "null"."""
    import pandas as pd

    try:
        frame = pd.read_csv(
            path, dtype={"method": str, "prompt": str, "against": str}, keep_default_na=False, na_values=[""]
        )
    except FileNotFoundError:
        raise UsageError(f"{path}: missing; run stage=score") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: not readable ({error}); run stage=score again") from None
    absent = [name for name in COLUMNS.get(path.name, ()) if name not in frame]
    if absent:
        raise UsageError(f"{path}: no column '{absent[0]}'; run stage=score again")
    for name in frame.columns.difference(TEXTS):
        values = frame[name].dropna()
        wrong = values[pd.to_numeric(values, errors="coerce").isna()]
        if len(wrong):
            raise UsageError(f"{path}: '{wrong.iloc[0]}' in column '{name}' is no number; run stage=score again")
    return frame
