"""What can be configured: names and types, over which Hydra composes the YAML files of ``conf/``.

An unknown key or a value of the wrong type is refused here, before torch is imported, and what help says of a setting
stands here. A method's part is made from its settings dataclass: a setting that the run has one value of for all
methods refers to that value, and every other has the dataclass' own default. The YAML files choose, and say what
differs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import dataclass, field, fields, make_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, get_type_hints

from hydra.core.config_store import ConfigStore
from omegaconf import II, MISSING, DictConfig, OmegaConf

from experiments.common.shipped import shipped
from syncdiffusion.backbones.adapters import Adapters
from syncdiffusion.method import Method
from syncdiffusion.method_settings import BOOTSTRAPPING
from syncdiffusion.settings import PRECISION_NAMES, Facts, facts_of, setting

LOADED = facts_of(Adapters)  # what is loaded onto a model


class Stage(Enum):
    all = "all"
    generate = "generate"
    score = "score"
    report = "report"


class TrackingMode(Enum):
    auto = "auto"
    online = "online"
    offline = "offline"
    disabled = "disabled"


MOST_SEEDS = 10**5  # per prompt in one run: a list of more would take minutes and the memory
LARGEST_SEED = 2**62


def part(make: Callable[[], Any], means: str = "") -> Any:
    """A field whose default is a list, a dictionary, or a section of settings of its own."""
    return field(default_factory=make, metadata={"facts": Facts(means)})


@dataclass
class BackboneSchema:
    """A frozen latent diffusion model, and the scale at which methods run on it."""

    name: str = setting(MISSING, "what tables and figures call the model")
    model_id: str = setting(MISSING, "a hub repository, or embedded")
    revision: str | None = setting(None, "of the hub repository; part of every result")
    path: str | None = setting(None, "a diffusers folder or a .safetensors file on this machine, in place of model_id")
    precision: str = setting(
        "auto", "auto: float16 under autocast on a GPU, else float32", choices=("auto", *PRECISION_NAMES)
    )
    device: str = setting("auto", "auto: cuda where there is one; or cpu, cuda, cuda:N")
    compiled: bool = setting(False, "predictions without a gradient through torch.compile: speed, not the result")
    offload: bool = setting(
        False, "networks move to the GPU as they are used, for models that do not fit: not the result"
    )
    lora: Any = setting(None, LOADED["lora"].means, null="none")
    lora_scale: Any = setting(1.0, LOADED["lora_scale"].means)
    custom_diffusion: str | None = setting(None, LOADED["custom_diffusion"].means, null="none")
    textual_inversion: Any = setting(None, LOADED["textual_inversion"].means, null="none")
    window: int = setting(MISSING, "pixels, the side of the squares that the model was trained on")
    factor: int = setting(8, "pixels per latent cell")
    height: int = setting(MISSING, "what suits the model")
    width: int = setting(MISSING, "what suits the model")
    stride: int = setting(MISSING, "what suits the model")
    # As the model folder's sampling.json has it, else what suits Stable Diffusion.
    steps: int = setting("${suited:every_method,steps}", "what suits the model")
    guidance_scale: float = setting("${suited:every_method,guidance_scale}", "what suits the model")
    window_batch: int | str = setting("${suited:every_method,window_batch}", "what suits the model")
    gradient_batch: int | str = setting("${suited:every_method,gradient_batch}", "what suits the model")


@dataclass
class PromptsSchema:
    name: str = setting(MISSING, "what records and W&B call the set of prompts")
    texts: list[str] = setting(MISSING, "the prompts themselves; prompt=TEXT is easier to type")
    seeds: list[list[int]] = part(list, "the first seeds of each prompt, in place of seeds.first; empty for that")
    ids: list[str] = part(list, "a name of each prompt, for records; '' for none")


@dataclass
class SeedsSchema:
    first: int = setting(0, "the first seed; seed and prompt fix a panorama's noise", least=0, most=LARGEST_SEED)
    count: int = setting(1, "panoramas per prompt and method", least=1, most=MOST_SEEDS)


@dataclass
class ReferenceSchema:
    """The images that FID, KID and GIQA compare with; their seeds lie apart from the panoramas'."""

    count: int = setting(50, "squares per prompt that FID, KID and GIQA compare with", least=0, most=MOST_SEEDS)
    first_seed: int = setting(100_000, "their first seed, apart from the panoramas'", least=0, most=LARGEST_SEED)
    settings: Any = setting(MISSING, "the method that makes them")
    pictures: str | None = setting(
        None, "a folder PROMPT/*.png or a run folder, beside pictures=", null="`reference` in the folder of pictures"
    )
    features: str | None = setting(
        None, "a file of their features: read where it is there, written where it is not", null="no file"
    )


@dataclass
class TrackingSchema:
    mode: TrackingMode = setting(TrackingMode.disabled, "auto: WANDB_MODE if set, online if logged in, else offline")
    project: str = setting("${oc.env:WANDB_PROJECT,syncdiffusion}", "the project in W&B")
    entity: str | None = setting(None, "the user or team in W&B", null="your own")


@dataclass
class RunSchema:
    name: str = setting(MISSING, "of the run: its folder's, and in tables")
    run_dir: str = setting(MISSING, "the run folder; one that holds panoramas is gone on with")
    stage: Stage = setting(Stage.all, "do all, or this stage alone on what is on disk")
    strict: bool = setting(False, "refuse to score while panoramas are missing")
    shared_dir: str | None = setting(
        None, "where panoramas and features of all runs are found again by their content", null="sharing nothing"
    )
    dry_run: bool = setting(False, "count and price what would be made, and end")
    shard: str | None = setting(None, "i/n: this process makes every n-th panorama, from the i-th on", null="all")
    panoramas_at_once: int = setting(
        1, "panoramas of one method through the networks together; decides their last digits", least=1
    )
    pictures: str | None = setting(
        None, "a folder METHOD/PROMPT/SEED.png or a CSV file of pictures to score; with experiment=score", null="none"
    )
    shared_noise: bool | None = setting(
        None, "whether pictures of one prompt and seed were made from one noise, by every method", null="as noise tells"
    )
    plugins: list[str] = part(list, "Python files with methods or metrics of your own")
    height: int = MISSING
    width: int = MISSING
    stride: int = MISSING
    steps: int = MISSING
    guidance_scale: float = MISSING
    window_batch: int | str = MISSING
    gradient_batch: int | str = MISSING
    negative_prompt: str = ""
    sampler: str = "ddim"
    size_conditioning: str = "window"
    start_image: str | None = None
    start_strength: float | None = None
    mask: str | None = None
    layout: str | None = None  # a prompt for each region: a file or a folder of them
    bootstrapping: float = BOOTSTRAPPING
    control_image: Any = None  # a picture of the panorama's size, or a list of them
    controlnet: Any = None  # a folder or hub id of each
    control_scale: Any = 1.0
    control_start: Any = 0.0
    control_end: Any = 1.0
    seeds: SeedsSchema = part(SeedsSchema)
    reference: ReferenceSchema = part(ReferenceSchema)
    backbone: BackboneSchema = part(BackboneSchema)
    method: Any = setting(MISSING, "the method under study")
    baselines: dict[str, Any] = part(dict, "other methods beside it: +method@baselines.LABEL=NAME")
    variants: dict[str, dict[str, Any]] = part(
        dict, "the method with some settings changed: '+variants.LABEL={setting: value}'"
    )
    ablations: dict[str, list[Any]] = part(
        dict, "values of a setting of the method, one at a time: '+ablations.SETTING=[value,value]'"
    )
    compare_with: str | None = setting(
        None, "label that every other is compared with, pair by pair", null="the first row"
    )
    prompts: PromptsSchema = part(PromptsSchema)
    metrics: Any = MISSING
    tracking: TrackingSchema = part(TrackingSchema)


def method_schema(method: Method) -> type:
    """The schema of a method's part of the configuration: its name, and its settings with their types and defaults."""
    hints, facts = get_type_hints(method.settings), facts_of(method.settings)
    columns: list[Any] = [("name", str, field(default=method.name))]
    for each in fields(method.settings):
        default = II(each.name) if facts[each.name].shared else each.default
        # OmegaConf has no type for "a value or a list of them": the settings check it.
        columns.append((each.name, Any if facts[each.name].many else hints[each.name], field(default=default)))
    return make_dataclass(f"{method.name}_settings", columns)


def register() -> None:
    """Put the schemas where the YAML files of ``conf/`` find them."""
    from baselines import METHODS
    from experiments.metrics.config import MetricsConfig

    store = ConfigStore.instance()
    store.store(group="schema", name="run", node=RunSchema)
    store.store(group="schema", name="backbone", node=BackboneSchema)
    store.store(group="schema", name="metrics", node=_thawed(MetricsConfig))
    OmegaConf.register_new_resolver("window_shares", window_shares, replace=True)
    OmegaConf.register_new_resolver("suited", suited, replace=True)
    OmegaConf.register_new_resolver("shipped", shipped_path, replace=True)
    for method in METHODS.values():
        register_method(method)


def register_method(method: Method, choice: bool = False) -> None:
    """The schema of a method; with `choice` also `method=NAME`, for one that has no file in ``conf/method``."""
    node, store = method_schema(method), ConfigStore.instance()
    store.store(group="schema/method", name=method.name, node=node)
    if choice:
        store.store(group="method", name=method.name, node=node)


def window_shares(shares: Sequence[float], *, _root_: DictConfig) -> list[int]:
    """Shares of the model's window as latent cells: `${window_shares:[0.25,1]}` is [16, 64] for Stable Diffusion."""
    cells = _root_.backbone.window // _root_.backbone.factor
    return [max(1, round(share * cells)) for share in shares]


def shipped_path(name: str) -> str:
    """Where a file or folder of ``conf/`` is, in a checkout or installed; relative where that leads to it."""
    found = shipped("conf") / name
    return os.path.relpath(found) if found.is_relative_to(Path.cwd()) else str(found)


def suited(method: str, setting: str, *, _root_: DictConfig) -> Any:
    """The value of a method's setting that suits the run's model: `${suited:syncdiffusion,first_n}`.

    From the model folder's sampling.json where it has one, else the default of the settings dataclass.
    """
    from baselines import METHODS
    from syncdiffusion.backbones.model_files import EMBEDDED_FOLDER
    from syncdiffusion.backbones.sampling import EVERY_METHOD, sampling_defaults
    from syncdiffusion.files import EMBEDDED, place_of

    backbone = _root_.backbone
    folder = EMBEDDED_FOLDER if backbone.model_id == EMBEDDED else None
    folder = folder if backbone.path is None else place_of(backbone.path)
    # SyncDiffusion's settings hold all that methods share.
    settings = METHODS["syncdiffusion" if method == EVERY_METHOD else method].settings
    default = {each.name: each.default for each in fields(settings)}[setting]
    return default if folder is None else sampling_defaults(folder, method, settings).get(setting, default)


def _thawed(settings: type) -> type:
    """The same dataclass, not frozen: OmegaConf would let no YAML file or command line change a frozen one."""
    hints = get_type_hints(settings)
    columns = [(f.name, hints[f.name], _copied(f)) for f in fields(settings)]
    return make_dataclass(settings.__name__, columns)


def _copied(each: Any) -> Any:
    if each.default_factory is not NO_DEFAULT:
        return field(default_factory=each.default_factory)
    return field(default=each.default)
