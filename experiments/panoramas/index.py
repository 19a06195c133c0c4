"""Which of a plan's panoramas are on disk: read once, after generating, and handed to score, report and track."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.panoramas.records import Checksums, Record, read_record, read_whole
from experiments.panoramas.store import Unit, unit_key
from syncdiffusion.backbones.adapters import adapters_of

if TYPE_CHECKING:
    from experiments.plan.plan import Plan


@dataclass(frozen=True)
class Panorama:
    """One panorama that is whole on disk."""

    unit: Unit
    png: Path
    record: Record


@dataclass(frozen=True)
class Index:
    """The plan's panoramas and reference images that are whole, in the plan's order, and those that are not there.

    checksums: of the files as they were read, so that a later look at them reads none again.
    """

    panoramas: tuple[Panorama, ...]
    references: tuple[Panorama, ...]
    missing: tuple[Unit, ...]
    checksums: Checksums = field(repr=False)

    @property
    def rows(self) -> set[tuple[str, str]]:
        """(label, key) of every panorama: what panoramas.csv holds when it is up to date."""
        return {(each.unit.label, each.record["key"]) for each in self.panoramas}

    @property
    def fingerprints(self) -> set[str]:
        """Of the models that made them."""
        return {each.record["model"]["fingerprint"] for each in (*self.panoramas, *self.references)}

    def changed(self) -> tuple[Panorama, ...]:
        """Those whose file is no longer the one that was read."""
        return tuple(each for each in (*self.panoramas, *self.references) if not self._unchanged(each))

    def _unchanged(self, panorama: Panorama) -> bool:
        try:
            return self.checksums.of(panorama.png) == panorama.record.get("png_sha256")
        except OSError:
            return False


def read_index(plan: Plan, checksums: Checksums | None = None, fingerprint: str | None = None) -> Index:
    """Look for every panorama of the plan in the run folder; what was made with other settings counts as missing.

    checksums: what this process knows already, so that no file is read twice.
    fingerprint: of the model, where it is known; without it the model is told by id, revision and precision alone, so
        that its files need not be there (adapters' must), and `Index.fingerprints` says whether there was only one.
    """
    checksums = checksums or Checksums()
    named = named_model(plan.backbone) | ({} if fingerprint is None else {"fingerprint": fingerprint})

    def found(units: Sequence[Unit]) -> tuple[Panorama, ...]:
        each = (panorama_of(unit, plan.folder, named, checksums) for unit in units)
        return tuple(panorama for panorama in each if panorama is not None)

    panoramas, references = found(plan.units), found(plan.references)
    there = {each.unit for each in (*panoramas, *references)}
    missing = tuple(unit for unit in (*plan.units, *plan.references) if unit not in there)
    return Index(panoramas, references, missing, checksums)


def panorama_of(unit: Unit, folder: Path, named: Mapping[str, Any], checksums: Checksums) -> Panorama | None:
    """The unit's panorama in `folder`, where it is whole and made with the unit's settings by the model of `named`."""
    png = unit.png(folder)
    record = read_whole(png, checksums)
    if record is None or record["key"] != unit_key(unit, record["model"]):
        return None
    if any(record["model"].get(name) != value for name, value in named.items()):
        return None
    return Panorama(unit, png, record)


def other_precision(plan: Plan) -> str | None:
    """The precision of the first of the plan's panoramas there that differs from the plan's in nothing else."""
    for unit in plan.units:
        record = read_record(unit.png(plan.folder))
        if record is not None and record["key"] == unit_key(unit, record["model"]):
            found = record["model"]["precision"]
            return None if found == plan.backbone["precision"] else found
    return None


def named_model(backbone: Mapping[str, Any]) -> dict[str, Any]:
    """What the configuration itself says about the model, as it stands in a record."""
    return {
        "id": backbone["model_id"] if backbone["path"] is None else Path(backbone["path"]).name,
        "revision": backbone["revision"],
        "precision": backbone["precision"],
        "adapters": adapters_of(backbone).record() or None,
    }
