"""A configuration becomes a plan: where the run lies and which panoramas it has. Nothing here imports torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments.metrics.config import MetricsConfig, check_config
from experiments.schema import METHOD_SCHEMAS, Stage
from experiments.store import Unit
from experiments.usage import error_line, refuse_unknown
from syncdiffusion.canvas import check_pixels, check_stride
from syncdiffusion.errors import UsageError


@dataclass(frozen=True)
class Plan:
    """One run: where it lies, which panoramas it has, how they are scored and logged."""

    name: str
    folder: Path
    stage: Stage
    strict: bool
    backbone: Mapping[str, Any]
    prompts: tuple[str, ...]
    labels: tuple[str, ...]  # methods in table order, the method under study first
    units: tuple[Unit, ...]  # every panorama of every label
    references: tuple[Unit, ...]  # the reference squares
    metrics: Mapping[str, Any]
    tracking: Mapping[str, Any]
    resolved: Mapping[str, Any]  # the whole configuration as plain values


def plan_run(cfg: DictConfig) -> Plan:
    """The plan that a composed configuration describes.

    Raises UsageError, or an OmegaConf error, for a value that cannot be used.
    """
    refuse_unknown(cfg)
    check_seeds(cfg)
    check_folder(cfg.backbone)
    resolved = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True, enum_to_str=True)
    assert isinstance(resolved, dict)
    check_config(MetricsConfig(**resolved["metrics"]))  # before minutes of generating, not after them
    prompts = tuple(resolved["prompts"]["texts"])
    check_prompts(prompts)
    methods = methods_of(cfg)
    check_canvases(methods, resolved["backbone"])
    seeds = range(cfg.seeds.first, cfg.seeds.first + cfg.seeds.count)
    reference = dict(resolved["reference"]["settings"])
    reference_seeds = range(cfg.reference.first_seed, cfg.reference.first_seed + cfg.reference.count)
    return Plan(
        name=cfg.name,
        folder=Path(cfg.run_dir).expanduser(),
        stage=cfg.stage,
        strict=cfg.strict,
        backbone=resolved["backbone"],
        prompts=prompts,
        labels=tuple(methods),
        units=units_of(methods, prompts, seeds),
        references=units_of({reference["name"]: reference}, prompts, reference_seeds),
        metrics=resolved["metrics"],
        tracking=resolved["tracking"],
        resolved=resolved,
    )


def methods_of(cfg: DictConfig) -> dict[str, dict[str, Any]]:
    """Label -> name and settings: the method under study, its variants, the baselines."""
    chosen: list[tuple[str, str, Any]] = [("method", str(cfg.method.name), cfg.method)]
    for label, changes in cfg.variants.items():
        setting = f"variants.{label}"
        if "name" in changes:
            raise UsageError(f"{setting}.name={changes['name']}: a variant changes settings, not the method")
        chosen.append((setting, str(label), changed(cfg.method, setting, changes)))
    chosen += [(f"baselines.{label}", str(label), settings) for label, settings in cfg.baselines.items()]
    methods: dict[str, dict[str, Any]] = {}
    for setting, label, settings in chosen:
        check_label(setting, label, methods)
        methods[label] = plain_values(setting, settings)
    reference = plain_values("reference.settings", cfg.reference.settings)
    if methods.get(reference["name"], reference) != reference:
        raise UsageError(f"baselines.{reference['name']}: the label is taken by the reference images; choose another")
    return methods


def changed(method: DictConfig, setting: str, changes: Mapping[str, Any]) -> DictConfig:
    """`method` with some settings changed; UsageError for one that it does not have or that has the wrong type."""
    try:
        merged = OmegaConf.merge(method, changes)
    except OmegaConfBaseException as error:
        raise UsageError(f"{setting}: {error_line(error)}") from None
    assert isinstance(merged, DictConfig)
    return merged


def check_label(setting: str, label: str, taken: Mapping[str, Any]) -> None:
    if label in taken:
        raise UsageError(f"{setting}: the label '{label}' is taken; choose another")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.=+-]*", label):
        raise UsageError(f"{setting}: a label names a folder; use letters, digits and _ . = + -")


def plain_values(setting: str, settings: Any) -> dict[str, Any]:
    """Name and settings of one method, all of them, without interpolations."""
    name = settings.get("name") if isinstance(settings, DictConfig) else None
    if name not in METHOD_SCHEMAS:
        raise UsageError(f"{setting}.name={name}: no such method; there are {', '.join(METHOD_SCHEMAS)}")
    values = OmegaConf.to_container(settings, resolve=True, throw_on_missing=True)
    assert isinstance(values, dict)
    absent = [each.name for each in fields(METHOD_SCHEMAS[name]) if each.name not in values]
    if absent:
        raise UsageError(f"{setting}.{absent[0]}: no value; start from a file, +method@{setting}={name}")
    return {str(key): value for key, value in values.items()}


def units_of(methods: Mapping[str, Mapping[str, Any]], prompts: tuple[str, ...], seeds: range) -> tuple[Unit, ...]:
    """Prompt by prompt and seed by seed, all methods of one before the next, so that an unfinished run compares."""
    units = []
    for prompt in prompts:
        for seed in seeds:
            for label, method in methods.items():
                settings = {key: value for key, value in method.items() if key != "name"}
                units.append(Unit(label, method["name"], settings, prompt, seed))
    return tuple(units)


def check_prompts(prompts: tuple[str, ...]) -> None:
    if not prompts:
        raise UsageError("prompts.texts=[]: give at least one prompt")
    for prompt in prompts:
        if prompts.count(prompt) > 1:
            raise UsageError(f"prompts.texts: '{prompt}' is there twice; name each prompt once")
        if not prompt.strip() or prompt == "all":
            raise UsageError(f"prompts.texts: '{prompt}' cannot be a prompt (empty, or the tables' word for all)")


def check_seeds(cfg: DictConfig) -> None:
    for setting, value, least in (
        ("seeds.count", cfg.seeds.count, 1),
        ("seeds.first", cfg.seeds.first, 0),
        ("reference.count", cfg.reference.count, 0),
        ("reference.first_seed", cfg.reference.first_seed, 0),
    ):
        if value < least:
            raise UsageError(f"{setting}={value}: must be {least} or more")


def check_folder(backbone: DictConfig) -> None:
    if backbone.path is None:
        if backbone.name == "folder":
            raise UsageError("backbone.path=null: give the model's folder, backbone.path=FOLDER")
        return
    folder = Path(backbone.path).expanduser()
    if not (folder / "model_index.json").is_file():
        reason = "no model_index.json there" if folder.is_dir() else "no such folder"
        raise UsageError(f"backbone.path={backbone.path}: {reason}; give a folder in diffusers' layout")


def check_canvases(methods: Mapping[str, Mapping[str, Any]], backbone: Mapping[str, Any]) -> None:
    """Refuse sizes that the windows cannot cover; the methods check again against the model itself."""
    window, factor = backbone["window"] // backbone["factor"], backbone["factor"]
    for label, settings in methods.items():
        if "stride" in settings:
            try:
                check_stride(settings["stride"], window)
                for name in ("height", "width"):
                    check_pixels(name, settings[name], factor, window, settings["stride"])
            except UsageError as error:
                raise UsageError(f"{label}: {error}") from None
