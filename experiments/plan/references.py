"""The references of a plan that need not be made: features in a file. Nothing here imports torch."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from syncdiffusion.errors import UsageError


def check_made(cfg: DictConfig) -> None:
    """Refuse settings of pictures that were made elsewhere where none are given."""
    if cfg.backbone.name == "pictures":
        raise UsageError("pictures=null: give the folder or the CSV file of the pictures to score, pictures=FOLDER")
    for name, value in (("shared_noise", cfg.shared_noise), ("reference.pictures", cfg.reference.pictures)):
        if value is not None:
            raise UsageError(f"{name}={value}: goes with pictures=FOLDER; a run knows it of its own panoramas")


def features_file(cfg: DictConfig) -> Path | None:
    return None if cfg.reference.features is None else Path(cfg.reference.features).expanduser()


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
