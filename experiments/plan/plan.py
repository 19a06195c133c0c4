"""A configuration becomes a plan: where the run lies and which panoramas it has. Nothing here imports torch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from baselines import METHODS, facts
from experiments.common.command_line import error_line, refuse_unknown, unknown_setting
from experiments.metrics.config import MetricsConfig, check_networks
from experiments.panoramas.store import Unit
from experiments.plan.plugins import load_plugins
from experiments.plan.prompts import check_prompts, check_seeds, first_seeds_of, ids_of, seeds_from
from experiments.plan.references import check_made, features_file, other_making, saved_references
from experiments.plan.schema import RunSchema, Stage
from syncdiffusion.backbones.adapters import adapters_of
from syncdiffusion.backbones.model_files import EMBEDDED_FOLDER, configurations, find_model, square_of
from syncdiffusion.conditioning.layout import layout_for
from syncdiffusion.cost import Square
from syncdiffusion.errors import UsageError
from syncdiffusion.files import EMBEDDED, check_files, place_of
from syncdiffusion.geometry.sizes import choose_anchors
from syncdiffusion.method_settings import without_effect
from syncdiffusion.settings import AUTO, PRECISION_NAMES, label_of

LONGEST_LABEL = 100  # a file name's 255 bytes hold it, and what is written beside it


@dataclass(frozen=True)
class Entry:
    """One row of the tables: a method with all its settings.

    swept: (setting, value) where an ablation made it, else None.
    """

    label: str
    method: str  # the name in baselines.METHODS
    settings: Mapping[str, Any]
    swept: tuple[str, Any] | None = None


@dataclass(frozen=True)
class Plan:
    """One run: where it lies, which panoramas it has, how they are scored and logged.

    sources: where the pictures lie that were made elsewhere, of every unit; empty for a run that makes its own.
    shared_noise: whether the methods' panoramas of one prompt and seed were made from one noise.
    reference_features: a file of the references' features: read in place of `references` where these are none, else to
        be written.
    remarks: what a user should know of how the plan came about, a line each.
    """

    name: str
    folder: Path
    shared: Path | None  # where panoramas and features of all runs are found by their content
    stage: Stage
    strict: bool
    dry_run: bool
    shard: tuple[int, int] | None  # (i, n), i from 1
    panoramas_at_once: int  # of one label through the networks together
    backbone: Mapping[str, Any]
    prompts: tuple[str, ...]
    prompt_ids: Mapping[str, str]  # what a file of prompts calls them, of those that have a name there
    entries: tuple[Entry, ...]  # methods in table order, those under study first
    compare_with: str  # the label that every other is compared with
    units: tuple[Unit, ...]  # every panorama of every label
    references: tuple[Unit, ...]  # the reference squares
    settings: Mapping[str, Any]  # label -> the method's own settings object, of references too
    metrics: Mapping[str, Any]
    tracking: Mapping[str, Any]
    resolved: Mapping[str, Any]  # the whole configuration as plain values
    sources: Mapping[Unit, Path] = field(default_factory=dict)
    shared_noise: bool = True
    reference_features: Path | None = None
    remarks: tuple[str, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(entry.label for entry in self.entries)


def plan_run(cfg: DictConfig) -> Plan:
    """The plan that a composed configuration describes.

    Raises UsageError, or an OmegaConf error, for a value that cannot be used.
    """
    load_plugins(cfg.plugins)
    refuse_unknown(cfg)
    for name in ("pictures", "shared_dir"):
        if cfg[name] is not None and not str(cfg[name]).strip():
            raise UsageError(f"{name}: is empty; give {name}=FOLDER, or leave it out")
    if cfg.pictures is not None:
        from experiments.plan.plan_pictures import plan_pictures

        return plan_pictures(cfg)
    check_made(cfg)
    check_seeds(cfg)
    check_folder(cfg.backbone)
    resolved = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True, enum_to_str=True)
    assert isinstance(resolved, dict)
    adapters_of(resolved["backbone"]).record()  # their files are there
    metrics = MetricsConfig(**resolved["metrics"])
    check_networks(metrics)  # before minutes of generating, not after them
    prompts = tuple(resolved["prompts"]["texts"])
    check_prompts(prompts)
    entries = entries_of(cfg)
    references = reference_entry(cfg)
    settings = checked_settings((*entries, references), resolved["backbone"], resolved["metrics"]["crop"])
    check_conditioning(entries, prompts, resolved)
    first_seeds = first_seeds_of(resolved["prompts"], cfg.seeds.first)
    seeds = {prompt: seeds_from(prompt, firsts, cfg.seeds.count) for prompt, firsts in first_seeds.items()}
    saved = saved_references(cfg, prompts)
    if saved is not None:
        resolved["reference"]["count"] = saved
    reference_count = 0 if saved is not None else cfg.reference.count
    reference_seeds = range(cfg.reference.first_seed, cfg.reference.first_seed + reference_count)
    backbone = {**resolved["backbone"], "precision": precision_of(resolved["backbone"])}
    return Plan(
        name=cfg.name,
        folder=folder_of(cfg),
        shared=None if cfg.shared_dir is None else place_of(cfg.shared_dir),
        stage=cfg.stage,
        strict=cfg.strict,
        dry_run=cfg.dry_run,
        shard=parse_shard(cfg.shard),
        panoramas_at_once=checked_at_once(cfg.panoramas_at_once),
        backbone=backbone,
        prompts=prompts,
        prompt_ids=ids_of(resolved["prompts"]),
        entries=entries,
        compare_with=compared_label(cfg.compare_with, entries),
        units=units_of(entries, seeds),
        references=units_of((references,), dict.fromkeys(prompts, reference_seeds)),
        settings=settings,
        metrics=resolved["metrics"],
        tracking=resolved["tracking"],
        resolved=resolved,
        reference_features=features_file(cfg),
        remarks=(
            *own_samplers(entries, resolved["sampler"]),
            *in_vain(settings),
            *other_making(cfg, references.method, references.settings, backbone),
        ),
    )


def in_vain(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """What was set and changes nothing, each once."""
    lines = (without_effect(each) for each in settings.values())
    return tuple(dict.fromkeys(line for line in lines if line is not None))


def own_samplers(entries: tuple[Entry, ...], chosen: str) -> tuple[str, ...]:
    """Which rows do not take the run's sampler, where one was chosen, since they have one of their own."""
    if chosen == RunSchema.sampler:
        return ()
    return tuple(
        f"sampler={chosen}: {entry.label} keeps its own, {entry.settings['sampler']}; "
        "name that setting of it to change it"
        for entry in entries
        if not facts(entry.method, "sampler").shared and entry.settings["sampler"] != chosen
    )


def folder_of(cfg: DictConfig) -> Path:
    """The run folder; UsageError where it is none, for a run would fill the current one."""
    if not str(cfg.run_dir).strip() or not str(cfg.name).strip():
        raise UsageError("run_dir: is empty; give run_dir=FOLDER and a name")
    return place_of(cfg.run_dir)


def parse_shard(text: str | None) -> tuple[int, int] | None:
    """
    >>> parse_shard("2/4"), parse_shard(None)
    ((2, 4), None)
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    i, n = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= i <= n:
        raise UsageError(f"shard={text}: give i/n with i from 1 to n, such as 1/4")
    return i, n


def compared_label(chosen: str | None, entries: tuple[Entry, ...]) -> str:
    labels = [entry.label for entry in entries]
    if chosen is not None and chosen not in labels:
        raise UsageError(f"compare_with={chosen}: no such row; there are {', '.join(labels)}")
    return labels[0] if chosen is None else chosen


def entries_of(cfg: DictConfig) -> tuple[Entry, ...]:
    """The method under study, its variants, the baselines, with all their settings.

    Where there are ablations the method stands once for every value of each of them, not also by its own name.
    """
    chosen: list[tuple[str, str, Any, tuple[str, Any] | None]] = []
    if not cfg.ablations:
        chosen.append(("method", str(cfg.method.name), cfg.method, None))
    for key, values in cfg.ablations.items():
        setting, named = str(key), f"ablations.{key}"
        if setting not in cfg.method or setting == "name":
            raise UsageError(unknown_setting(named, setting, cfg.method.keys()))
        for value in values:
            settings = changed(cfg.method, named, {setting: value})
            known = facts(str(cfg.method.name), setting)
            chosen.append((named, label_of(setting, known, value), settings, (setting, settings[setting])))
    for label, changes in cfg.variants.items():
        setting = f"variants.{label}"
        if "name" in changes:
            raise UsageError(f"{setting}.name={changes['name']}: a variant changes settings, not the method")
        chosen.append((setting, str(label), changed(cfg.method, setting, changes), None))
    chosen += [(f"baselines.{label}", str(label), settings, None) for label, settings in cfg.baselines.items()]
    if not chosen:
        raise UsageError("ablations: no value to try; give one at least, or leave ablations out")
    entries: dict[str, Entry] = {}
    for setting, label, settings, swept in chosen:
        check_label(setting, label, entries)
        entries[label] = entry_of(setting, label, settings, swept)
    reference = reference_entry(cfg)
    if entries.get(reference.label, reference) != reference:
        raise UsageError(f"baselines.{reference.label}: the label is taken by the reference images; choose another")
    return tuple(entries.values())


def reference_entry(cfg: DictConfig) -> Entry:
    settings = cfg.reference.settings
    name = settings.get("name") if isinstance(settings, DictConfig) else None
    return entry_of("reference.settings", str(name), settings)


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
        raise UsageError(f"{setting}: the label '{label}' names a folder; use letters, digits and _ . = + -")
    if len(label) > LONGEST_LABEL:
        raise UsageError(f"{setting}: a label of {len(label)} characters; use {LONGEST_LABEL} at most")


def entry_of(setting: str, label: str, settings: Any, swept: tuple[str, Any] | None = None) -> Entry:
    """All settings of one method, without interpolations; `setting` is where they stand in the configuration."""
    name = settings.get("name") if isinstance(settings, DictConfig) else None
    if name not in METHODS:
        raise UsageError(f"{setting}.name={name}: no such method; there are {', '.join(METHODS)}")
    values = OmegaConf.to_container(settings, resolve=True, throw_on_missing=True)
    assert isinstance(values, dict)
    known = [each.name for each in fields(METHODS[name].settings)]
    if any(key not in (*known, "name") for key in values):
        raise UsageError(
            f"{setting}.name={name}: the settings there are another method's; choose it by {setting}={name}"
        )
    absent = [each for each in known if each not in values]
    if absent:
        raise UsageError(f"{setting}.{absent[0]}: no value; start from a file, +method@{setting}={name}")
    return Entry(label, name, {str(key): value for key, value in values.items() if key != "name"}, swept)


def units_of(entries: tuple[Entry, ...], seeds: Mapping[str, Sequence[int]]) -> tuple[Unit, ...]:
    """Prompt by prompt and seed by seed, all methods of one before the next, so that an unfinished run compares."""
    return tuple(
        Unit(entry.label, entry.method, entry.settings, prompt, seed)
        for prompt, its in seeds.items()
        for seed in its
        for entry in entries
    )


def checked_at_once(number: int) -> int:
    if number < 1:
        raise UsageError(f"panoramas_at_once={number}: use 1 or more")
    return number


def check_folder(backbone: DictConfig) -> None:
    """Refuse a model's folder that is none, and facts about it that are not its own.

    Only what is on this machine can be looked at; a hub repository is checked when it is loaded.
    """
    if backbone.path is None and backbone.name == "folder":
        raise UsageError("backbone.path=null: give the model's folder, backbone.path=FOLDER")
    if backbone.path is None and backbone.model_id != EMBEDDED:
        return
    given = EMBEDDED_FOLDER if backbone.path is None else place_of(backbone.path)
    folder = configurations(given)
    if given.is_file():
        with naming_path(backbone):
            find_model(str(given))
    if not (folder / "model_index.json").is_file():
        reason = "no model_index.json there" if folder.is_dir() else "no such folder"
        raise UsageError(f"backbone.path={backbone.path}: {reason}; give a folder in diffusers' layout")
    if backbone.revision is not None:
        raise UsageError(
            f"backbone.revision={backbone.revision}: this model is a folder; only a hub repository has one"
        )
    with naming_path(backbone):
        square = square_of(folder)
    for name, own in (("factor", square.factor), ("window", square.pixels)):
        if backbone[name] != own:
            raise UsageError(f"backbone.{name}={backbone[name]}: this model's {name} is {own} px; give that")


@contextmanager
def naming_path(backbone: Mapping[str, Any] | DictConfig) -> Iterator[None]:
    """Have a mistake in a model's folder name `backbone.path`, where that is what was given."""
    try:
        yield
    except UsageError as error:
        given = "model_id" if backbone["path"] is None else "path"
        raise UsageError(str(error).replace("backbone.model_id=", f"backbone.{given}=")) from None


def checked_settings(entries: tuple[Entry, ...], backbone: Mapping[str, Any], crop: int) -> dict[str, Any]:
    """Label -> the method's own settings object.

    Refuses values that a method refuses, windows that cannot cover the canvas, crops that do not fit on it.
    """
    square = Square(backbone["window"] // backbone["factor"], backbone["factor"])
    built = {}
    for entry in entries:
        method = METHODS[entry.method]
        try:
            settings = method.settings(**entry.settings)
            check_files(settings)
            corners = method.corners(settings, square)
            method.network_calls(settings, square)  # also refuses a layout that does not suit the canvas
            if hasattr(settings, "anchor"):
                choose_anchors(settings.anchor, len(corners))
        except UsageError as error:
            raise UsageError(f"{entry.label}: {error}") from None
        if crop > min(settings.height, settings.width):
            raise UsageError(
                f"metrics.crop={crop}: {entry.label} has {settings.height}x{settings.width} px; "
                f"use {min(settings.height, settings.width)} or less"
            )
        built[entry.label] = settings
    return built


def check_conditioning(entries: tuple[Entry, ...], prompts: tuple[str, ...], run: Mapping[str, Any]) -> None:
    """Refuse a layout or a picture that a method of the run cannot follow, and a prompt that a layout is not for."""
    able = {"start_image": "start from", "start_strength": "have", "mask": "have"}
    able |= {"layout": "follow", "control_image": "follow"}
    for name, verb in able.items():
        without = [entry.label for entry in entries if name not in entry.settings]
        if run[name] and without:
            raise UsageError(f"{name}={run[name]}: {', '.join(without)} cannot {verb} one; leave that method out")
    for layout in dict.fromkeys(entry.settings["layout"] for entry in entries if entry.settings.get("layout")):
        for prompt in prompts:
            layout_for(layout, prompt)


def precision_of(backbone: Mapping[str, Any]) -> str:
    """The precision by name: what "auto" means on the device that the run will have."""
    if backbone["precision"] in PRECISION_NAMES:
        return backbone["precision"]
    if backbone["precision"] != AUTO:
        names = ", ".join((AUTO, *PRECISION_NAMES))
        raise UsageError(f"backbone.precision={backbone['precision']}: use one of {names}")
    from syncdiffusion.backbones.loading import choose_precision, pick_device

    return choose_precision(AUTO, pick_device(backbone["device"]))
