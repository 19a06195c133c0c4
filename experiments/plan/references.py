"""The references of a plan that need not be made: features in a file. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from experiments.panoramas.index import named_model
from experiments.panoramas.store import deciding, with_contents
from syncdiffusion.errors import UsageError
from syncdiffusion.files import place_of


def check_made(cfg: DictConfig) -> None:
    """Refuse settings of pictures that were made elsewhere where none are given."""
    if cfg.backbone.name == "pictures":
        raise UsageError("pictures=null: give the folder or the CSV file of the pictures to score, pictures=FOLDER")
    for name, value in (("shared_noise", cfg.shared_noise), ("reference.pictures", cfg.reference.pictures)):
        if value is not None:
            raise UsageError(f"{name}={value}: goes with pictures=FOLDER; a run knows it of its own panoramas")


def features_file(cfg: DictConfig) -> Path | None:
    return None if cfg.reference.features is None else place_of(cfg.reference.features)


def made_by(method: str, settings: Mapping[str, Any], backbone: Mapping[str, Any]) -> dict[str, Any]:
    """How reference images are made, as far as names and settings tell."""
    told = with_contents(method, deciding(method, settings))
    return {"model": named_model(backbone), "method": method, "settings": told}


def other_making(cfg: DictConfig, method: str, settings: Mapping[str, Any], backbone: Mapping[str, Any]) -> list[str]:
    """A line where the file's reference images were made otherwise than the run's own would be."""
    path = features_file(cfg)
    if path is None or not path.exists():
        return []
    from experiments.metrics.reference_features import read_features

    theirs, ours = read_features(path).made, made_by(method, settings, backbone)
    pairs = [(theirs.get(part, {}), ours[part]) for part in ("model", "settings")] if theirs else []
    differing = [
        f"{name}={here.get(name)} (there {there.get(name)})"
        for there, here in pairs
        for name in dict.fromkeys([*there, *here])
        if there.get(name) != here.get(name)
    ]
    if not differing:
        return []
    return [
        f"reference.features={path}: its images were made otherwise than this run's would be: {', '.join(differing)}"
    ]


def saved_references(cfg: DictConfig, prompts: tuple[str, ...]) -> int | None:
    """Reference images of each prompt whose features a file holds already; None where there is no such file.

    Raises:
        UsageError: another file, or one without features of a prompt.
    """
    path = features_file(cfg)
    if path is None or not path.exists():
        return None
    from experiments.metrics.reference_features import read_features

    return read_features(path).count(prompts)
