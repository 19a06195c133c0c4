"""What can be configured: names and types, over which Hydra composes the YAML files of ``conf/``.

An unknown key or a value of the wrong type is refused here, before torch is imported. A method's part is made from its
settings dataclass: a setting that the run has one value of for all methods refers to that value, and every other has
the dataclass' own default. The YAML files choose, and say what differs.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import dataclass, field, fields, make_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, get_type_hints

from hydra.core.config_store import ConfigStore
from omegaconf import II, MISSING, DictConfig, OmegaConf

from experiments.common.shipped import shipped
from syncdiffusion.method import Method
from syncdiffusion.settings import BOOTSTRAPPING, facts_of


class Stage(Enum):
    all = "all"
    generate = "generate"
    score = "score"
    report = "report"


class TrackingMode(Enum):
    auto = "auto"  # WANDB_MODE where it is set, else online where a login is found, else offline
    online = "online"
    offline = "offline"
    disabled = "disabled"


@dataclass
class BackboneSchema:
    """A frozen latent diffusion model, and the scale at which methods run on it."""

    name: str = MISSING
    model_id: str = MISSING  # "embedded" or a hub repository
    revision: str | None = None  # of the hub repository; part of every result
    path: str | None = None  # a diffusers folder on this machine, in place of model_id
    precision: str = "auto"  # float16 under autocast on a GPU, else float32; or one of them by name, bfloat16, float64
    device: str = "auto"  # cuda where there is one
    compiled: bool = False  # noise predictions without a gradient through torch.compile: speed, not the result
    window: int = MISSING  # pixels, the side of the squares that the model was trained on
    factor: int = 8  # pixels per latent cell
    height: int = MISSING  # pixels
    width: int = MISSING  # pixels
    stride: int = MISSING  # latent cells
    # What suits the model, as its folder's sampling.json has it, else what suits Stable Diffusion.
    steps: int = "${suited:every_method,steps}"  # type: ignore[assignment]
    guidance_scale: float = "${suited:every_method,guidance_scale}"  # type: ignore[assignment]
    window_batch: int | str = "${suited:every_method,window_batch}"  # windows through the UNet at once: speed alone
    gradient_batch: int | str = "${suited:every_method,gradient_batch}"  # the same where a gradient is taken


@dataclass
class PromptsSchema:
    name: str = MISSING
    texts: list[str] = MISSING


@dataclass
class SeedsSchema:
    first: int = 0
    count: int = 1


@dataclass
class ReferenceSchema:
    """The images that FID, KID and GIQA compare with; their seeds lie apart from the panoramas'."""

    count: int = 50  # per prompt
    first_seed: int = 100_000
    settings: Any = MISSING  # the method that makes them


@dataclass
class TrackingSchema:
    mode: TrackingMode = TrackingMode.auto
    project: str = "syncdiffusion"
    entity: str | None = None


@dataclass
class RunSchema:
    name: str = MISSING
    run_dir: str = MISSING
    stage: Stage = Stage.all
    strict: bool = False  # refuse to score while panoramas are missing
    shared_dir: str | None = None  # where panoramas and features are found again by their content
    dry_run: bool = False  # count and price what would be made, without loading a model
    shard: str | None = None  # "i/n": this process makes every n-th panorama, from the i-th on (from 1)
    plugins: list[str] = field(default_factory=list)  # Python files with methods or metrics of your own
    height: int = MISSING
    width: int = MISSING
    stride: int = MISSING
    steps: int = MISSING
    guidance_scale: float = MISSING
    window_batch: int | str = MISSING
    gradient_batch: int | str = MISSING
    negative_prompt: str = ""
    layout: str | None = None  # a prompt for each region: a file or a folder of them
    bootstrapping: float = BOOTSTRAPPING
    control_image: Any = None  # a picture of the panorama's size, or a list of them
    controlnet: Any = None  # a folder or hub id of each
    control_scale: Any = 1.0
    control_start: Any = 0.0
    control_end: Any = 1.0
    seeds: SeedsSchema = field(default_factory=SeedsSchema)
    reference: ReferenceSchema = field(default_factory=ReferenceSchema)
    backbone: BackboneSchema = field(default_factory=BackboneSchema)
    method: Any = MISSING  # the method under study
    baselines: dict[str, Any] = field(default_factory=dict)  # label: name and settings of another method
    variants: dict[str, dict[str, Any]] = field(default_factory=dict)  # label: what differs from `method`
    ablations: dict[str, list[Any]] = field(default_factory=dict)  # setting of `method`: its values, one at a time
    compare_with: str | None = None  # label that every other is compared with, pair by pair; null for `method`
    prompts: PromptsSchema = field(default_factory=PromptsSchema)
    metrics: Any = MISSING
    tracking: TrackingSchema = field(default_factory=TrackingSchema)


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
    from syncdiffusion.backbones.model_files import EMBEDDED, EMBEDDED_FOLDER
    from syncdiffusion.backbones.sampling import EVERY_METHOD, sampling_defaults

    backbone = _root_.backbone
    folder = EMBEDDED_FOLDER if backbone.model_id == EMBEDDED else None
    folder = folder if backbone.path is None else Path(backbone.path).expanduser()
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
