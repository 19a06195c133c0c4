"""The plan of a run that makes no panorama: its pictures exist already, and are scored as a run's own are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import fields
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from baselines import METHODS
from experiments.metrics.catalogue import set_metrics
from experiments.metrics.config import MetricsConfig, check_networks
from experiments.panoramas.store import MADE_ELSEWHERE, Unit, slug
from experiments.plan.pictures import (
    GivenPicture,
    GivenSet,
    coverage_remarks,
    noise_shared,
    read_given,
    reference_folder,
)
from experiments.plan.plan import Entry, Plan, check_label, compared_label, folder_of
from experiments.plan.prompts import check_prompts, ids_of
from experiments.plan.references import features_file, saved_references
from experiments.plan.schema import BackboneSchema, ReferenceSchema, RunSchema, SeedsSchema
from syncdiffusion.errors import UsageError
from syncdiffusion.files import content_of, place_of

CHOICE = "pictures"  # the file of conf/backbone that stands for no model
SECTIONS = "name run_dir stage strict shared_dir plugins compare_with pictures shared_noise metrics tracking".split()
OF_MAKING = (
    *("shard", "panoramas_at_once", "negative_prompt", "sampler", "start_image", "start_strength", "mask", "layout"),
    *("bootstrapping", "control_image", "controlnet", "control_scale", "control_start", "control_end"),
    *("baselines", "variants", "ablations"),
)
OF_BACKBONE = (
    *("path", "precision", "compiled", "offload"),
    *("lora", "lora_scale", "custom_diffusion", "textual_inversion"),
)
OF_MODEL = ("height", "width", "stride", "steps", "guidance_scale", "window_batch", "gradient_batch")
# What conf/config.yaml chooses, so that nobody need have typed it.
USUAL_METHODS = {"method": "syncdiffusion", "reference.settings": "stable_diffusion"}
USUAL_PROMPTS = "paper"

Size = tuple[int, int]  # height, width


def plan_pictures(cfg: DictConfig) -> Plan:
    """Raises UsageError for a folder that cannot be read, or a setting that says how pictures would be made."""
    check_unmade(cfg)
    source = place_of(cfg.pictures)
    texts = short_names(cfg)
    given = with_references(cfg, read_given(source, texts), texts)
    every = [*given.pictures, *given.references]
    sizes = {each.path: size for each in every if (size := size_of(each.path)) is not None}
    if not sizes:
        raise UsageError(f"pictures={source}: none of {len(every)} files is a picture")
    if OmegaConf.is_missing(cfg.backbone, "window"):
        cfg.backbone.window = min(min(size) for size in sizes.values())
    resolved = {name: plain(cfg[name]) for name in SECTIONS}
    remarks = [*given.remarks, *coverage_remarks(given.pictures), *size_remarks(given.pictures, sizes)]
    metrics, left_out = without_references(resolved["metrics"], cfg, given)
    check_networks(MetricsConfig(**metrics))
    check_crop(metrics["crop"], sizes)
    prompts = tuple(dict.fromkeys(each.prompt for each in given.pictures))
    check_prompts(prompts)
    check_named(cfg, prompts)
    entries = entries_of(given.pictures, sizes)
    saved = saved_references(cfg, prompts)
    references = () if saved is not None else given.references
    every = [*given.pictures, *references]
    sources = {unit_of(each): each.path for each in every}
    labels = [entry.label for entry in entries]
    place = {prompt: index for index, prompt in enumerate(prompts)}
    units = [unit_of(each) for each in given.pictures]
    return Plan(
        name=cfg.name,
        folder=folder_of(cfg),
        shared=None if cfg.shared_dir is None else place_of(cfg.shared_dir),
        stage=cfg.stage,
        strict=cfg.strict,
        dry_run=cfg.dry_run,
        shard=None,
        panoramas_at_once=1,
        backbone=no_model(cfg, metrics["crop"]),
        prompts=prompts,
        prompt_ids={},
        entries=entries,
        compare_with=compared_label(cfg.compare_with, entries),
        units=tuple(sorted(units, key=lambda unit: (place[unit.prompt], unit.seed, labels.index(unit.label)))),
        references=tuple(unit_of(each) for each in references),
        settings={},
        metrics=metrics,
        tracking=resolved["tracking"],
        resolved=resolved | canvas_of(given, sizes, prompts, saved),
        sources=sources,
        shared_noise=noise_shared(given.pictures, cfg.shared_noise),
        reference_features=features_file(cfg),
        remarks=(*remarks, *left_out),
    )


def check_unmade(cfg: DictConfig) -> None:
    """Refuse settings that only a run which makes panoramas follows."""
    if cfg.backbone.name != CHOICE:
        raise UsageError(f"pictures={cfg.pictures}: goes with experiment=score, which loads no model; add it")
    known = {each.name: each for each in fields(RunSchema)}
    usual = {name: known[name].default for name in OF_MAKING if known[name].default is not NO_DEFAULT}
    typed = [name for name in OF_MAKING if plain(cfg[name]) != usual.get(name, {})]
    typed += [name for name in OF_MODEL if not OmegaConf.is_interpolation(cfg, name)]
    usual_model = {each.name: each.default for each in fields(BackboneSchema)}
    for name in OF_BACKBONE:
        if plain(cfg.backbone[name]) != usual_model[name]:
            value = plain(cfg.backbone[name])
            raise UsageError(f"backbone.{name}={value}: pictures={cfg.pictures} are there already; leave it out")
    for section, name in USUAL_METHODS.items():
        check_usual(cfg, section, name)
    if typed:
        value = plain(cfg[typed[0]])
        raise UsageError(f"{typed[0]}={value}: pictures={cfg.pictures} are there already; leave it out")
    for section, schema in (("seeds", SeedsSchema), ("reference", ReferenceSchema)):
        for each in fields(schema):
            if each.type == "int" and cfg[section][each.name] != each.default:
                value = cfg[section][each.name]
                raise UsageError(f"{section}.{each.name}={value}: all of pictures={cfg.pictures} count; leave it out")


def check_usual(cfg: DictConfig, section: str, name: str) -> None:
    """Refuse another method than the usual one of a section, or a setting of it with a value of its own."""
    method = OmegaConf.select(cfg, section)
    usual: dict[str, Any] = {"name": name}
    usual |= {each.name: each.default for each in fields(METHODS[name].settings)}
    for key in method:
        if not OmegaConf.is_interpolation(method, key) and plain(method[key]) != usual.get(str(key)):
            setting = section if key == "name" else f"{section}.{key}"
            value = plain(method[key])
            raise UsageError(f"{setting}={value}: pictures={cfg.pictures} are there already; leave it out")


def check_named(cfg: DictConfig, prompts: Sequence[str]) -> None:
    """Refuse prompts that were chosen and that no picture is of."""
    if cfg.prompts.name != USUAL_PROMPTS and not set(cfg.prompts.texts) & set(prompts):
        raise UsageError(
            f"prompts: no picture of pictures={cfg.pictures} is of '{cfg.prompts.texts[0]}'"
            f"{' or another of them' if len(cfg.prompts.texts) > 1 else ''}; leave it out, or name the folders so"
        )


def plain(value: Any) -> Any:
    if not OmegaConf.is_config(value):
        return getattr(value, "value", value)
    return OmegaConf.to_container(value, resolve=True, throw_on_missing=True, enum_to_str=True)


def short_names(cfg: DictConfig) -> dict[str, str]:
    """Folder's name -> prompt, of the prompts that the run was given: their short names and their ids."""
    texts = {slug(text): text for text in cfg.prompts.texts}
    return texts | {name: text for text, name in ids_of(plain(cfg.prompts)).items()}


def with_references(cfg: DictConfig, given: GivenSet, texts: Mapping[str, str]) -> GivenSet:
    """The pictures with those that `reference.pictures` names; of prompts that the run has."""
    references = given.references
    if cfg.reference.pictures is not None:
        references = reference_folder(Path(cfg.reference.pictures), texts)
    prompts = {each.prompt for each in given.pictures}
    mine = tuple(each for each in references if each.prompt in prompts)
    remarks = list(given.remarks)
    lacking = [
        prompt
        for prompt in dict.fromkeys(each.prompt for each in given.pictures)
        if prompt not in {each.prompt for each in mine}
    ]
    if references and lacking:
        remarks.append(f"{len(lacking)} prompts have no reference picture, such as '{lacking[0]}'")
    if len(mine) < len(references):
        remarks.append(f"{len(references) - len(mine)} reference pictures of other prompts are left out")
    return GivenSet(given.pictures, mine, tuple(remarks))


def without_references(
    metrics: Mapping[str, Any], cfg: DictConfig, given: GivenSet
) -> tuple[dict[str, Any], list[str]]:
    """The metrics that can be had, and a line on those that cannot for want of a reference."""
    path = features_file(cfg)
    if given.references or (path is not None and path.exists()):
        return dict(metrics), []
    wanting = [each.name for each in set_metrics(metrics["metrics"])]
    if not wanting:
        return dict(metrics), []
    line = (
        f"no reference pictures: {', '.join(wanting)} are left out; give reference.pictures=FOLDER, "
        f"or reference.features=FILE"
    )
    return {**metrics, "metrics": [name for name in metrics["metrics"] if name not in wanting]}, [line]


def size_of(path: Path) -> Size | None:
    """What the head of a file says; None for no picture. Whether the rest is whole shows when it is taken."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.height, image.width
    except Exception:  # of a damaged file Pillow raises what its decoder met
        return None


def size_remarks(pictures: Sequence[GivenPicture], sizes: Mapping[Path, Size]) -> list[str]:
    counts = Counter(sizes[each.path] for each in pictures if each.path in sizes)
    if len(counts) < 2:
        return []
    text = ", ".join(f"{height}x{width} px ({count})" for (height, width), count in sorted(counts.items()))
    return [f"pictures of different sizes: {text}; what is measured between the parts of one depends on its width"]


def check_crop(crop: int, sizes: Mapping[Path, Size]) -> None:
    path, size = min(sizes.items(), key=lambda each: min(each[1]))
    if crop > min(size):
        raise UsageError(f"metrics.crop={crop}: {path} has {size[0]}x{size[1]} px; use {min(size)} or less")


def entries_of(pictures: Sequence[GivenPicture], sizes: Mapping[Path, Size]) -> tuple[Entry, ...]:
    """A row for each method; its settings are the size of its pictures, where they have one."""
    entries: dict[str, Entry] = {}
    for label in dict.fromkeys(each.method for each in pictures):
        check_label("pictures", label, entries)
        its = {sizes[each.path] for each in pictures if each.method == label and each.path in sizes}
        settings = dict(zip(("height", "width"), its.pop(), strict=True)) if len(its) == 1 else {}
        entries[label] = Entry(label, MADE_ELSEWHERE, settings)
    return tuple(entries.values())


def unit_of(given: GivenPicture) -> Unit:
    """Its settings are what decides the picture: what its file holds; "" where that cannot be read."""
    try:
        digest = content_of(given.path)  # read once, however often a plan asks
    except OSError:
        digest = ""
    return Unit(given.method, MADE_ELSEWHERE, {"sha256": digest}, given.prompt, given.seed)


def no_model(cfg: DictConfig, window: int) -> dict[str, Any]:
    """What stands in place of a model: nothing is known of the one that made the pictures."""
    return {
        "name": MADE_ELSEWHERE,
        "model_id": "unknown",
        "revision": None,
        "path": None,
        "precision": "unknown",
        "device": cfg.backbone.device,
        "compiled": False,
        "window": window,
        "factor": cfg.backbone.factor,
    }


def canvas_of(
    given: GivenSet, sizes: Mapping[Path, Size], prompts: tuple[str, ...], saved: int | None
) -> dict[str, Any]:
    """The part of a configuration that tables tell of, as far as pictures show it."""
    common = Counter(sizes[each.path] for each in given.pictures if each.path in sizes).most_common(1)
    height, width = common[0][0] if common else next(iter(sizes.values()))
    seeds = {each.seed for each in given.pictures}
    most = max(Counter((each.method, each.prompt) for each in given.pictures).values())
    references = Counter(each.prompt for each in given.references).values()
    return {
        "height": height,
        "width": width,
        "stride": None,
        "steps": None,
        "guidance_scale": None,
        "seeds": {"first": min(seeds), "count": most},
        "reference": {"count": min(references, default=0) if saved is None else saved},
        "prompts": {"name": "pictures", "texts": list(prompts)},
    }
