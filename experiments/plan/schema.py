"""What can be configured: names and types, over which Hydra composes the YAML files of ``conf/``.

An unknown key or a value of the wrong type is refused here, before torch is imported. Values stand in ``conf/``; the
methods' settings mirror the frozen dataclasses that the methods take, and a test holds the two equal.
"""

from dataclasses import MISSING as NO_DEFAULT
from dataclasses import dataclass, field, fields, make_dataclass
from enum import Enum
from typing import Any, get_type_hints

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING


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
class Backbone:
    """A frozen latent diffusion model, and the scale at which methods run on it."""

    name: str = MISSING
    model_id: str = MISSING  # "embedded" or a hub repository
    revision: str | None = None  # of the hub repository; part of every result
    path: str | None = None  # a diffusers folder on this machine, in place of model_id
    precision: str = "float32"  # float16 and bfloat16 run the networks under autocast
    device: str = "auto"  # cuda where there is one
    compiled: bool = False  # noise predictions without a gradient through torch.compile: speed, not the result
    window: int = MISSING  # pixels, the side of the squares that the model was trained on
    factor: int = 8  # pixels per latent cell
    height: int = MISSING  # pixels
    width: int = MISSING  # pixels
    stride: int = MISSING  # latent cells
    steps: int = MISSING
    guidance_scale: float = MISSING
    weight: float = MISSING  # SyncDiffusion's w at this scale
    style_weight: float = MISSING  # the same for the style loss, whose values are smaller
    first_n: int | None = MISSING  # gradient steps in the first n steps only; null for all
    strides: list[int] = MISSING  # latent cells, for the ablation over them
    window_batch: int | str = MISSING  # windows through the UNet at once, or auto: memory and speed, not the result
    gradient_batch: int | str = MISSING  # the same where a gradient is taken


@dataclass
class Prompts:
    name: str = MISSING
    texts: list[str] = MISSING


@dataclass
class Seeds:
    first: int = 0
    count: int = 1


@dataclass
class Reference:
    """The images that FID, KID and GIQA compare with; their seeds lie apart from the panoramas'."""

    count: int = 50  # per prompt
    first_seed: int = 100_000
    settings: Any = MISSING  # the method that makes them


@dataclass
class Tracking:
    mode: TrackingMode = TrackingMode.auto
    project: str = "syncdiffusion"
    entity: str | None = None


@dataclass
class Run:
    name: str = MISSING
    run_dir: str = MISSING
    stage: Stage = Stage.all
    strict: bool = False  # refuse to score while panoramas are missing
    shared_dir: str | None = None  # where panoramas and features are found again by their content
    dry_run: bool = False  # count and price what would be made, without loading a model
    shard: str | None = None  # "i/n": this process makes every n-th panorama, from the i-th on (from 1)
    height: int = MISSING
    width: int = MISSING
    stride: int = MISSING
    steps: int = MISSING
    guidance_scale: float = MISSING
    window_batch: int | str = MISSING
    gradient_batch: int | str = MISSING
    negative_prompt: str = ""
    seeds: Seeds = field(default_factory=Seeds)
    reference: Reference = field(default_factory=Reference)
    backbone: Backbone = field(default_factory=Backbone)
    method: Any = MISSING  # the method under study
    baselines: dict[str, Any] = field(default_factory=dict)  # label: name and settings of another method
    variants: dict[str, dict[str, Any]] = field(default_factory=dict)  # label: what differs from `method`
    ablations: dict[str, list[Any]] = field(default_factory=dict)  # setting of `method`: its values, one at a time
    compare_with: str | None = None  # label that every other is compared with, pair by pair; null for `method`
    prompts: Prompts = field(default_factory=Prompts)
    metrics: Any = MISSING
    tracking: Tracking = field(default_factory=Tracking)


@dataclass
class StableDiffusion:
    name: str = MISSING
    height: int = MISSING
    width: int = MISSING
    steps: int = MISSING
    guidance_scale: float = MISSING
    negative_prompt: str = MISSING


@dataclass
class BlendedLatent(StableDiffusion):
    overlap: float = MISSING
    start: float = MISSING


@dataclass
class MultiDiffusion(StableDiffusion):
    stride: int = MISSING
    loop_closure: str = MISSING
    window_batch: int | str = MISSING


@dataclass
class SyncDiffusion(MultiDiffusion):
    weight: float = MISSING
    decay: float = MISSING
    every_n: int = MISSING
    first_n: int | None = MISSING
    anchor: int | None = MISSING
    loss: str = MISSING
    unet_gradient: bool = MISSING
    gradient_batch: int | str = MISSING
    checkpointing: bool = MISSING


@dataclass
class ProfileMatching(MultiDiffusion):
    strength: float = MISSING
    decay: float = MISSING
    match: str = MISSING
    first_n: int | None = MISSING
    anchor: int | None = MISSING


METHOD_SCHEMAS: dict[str, type] = {
    "syncdiffusion": SyncDiffusion,
    "profile_matching": ProfileMatching,
    "multidiffusion": MultiDiffusion,
    "blended_latent": BlendedLatent,
    "stable_diffusion": StableDiffusion,
}


def register() -> None:
    """Put the schemas where the YAML files of ``conf/`` find them."""
    from experiments.metrics.config import MetricsConfig

    store = ConfigStore.instance()
    store.store(group="schema", name="run", node=Run)
    store.store(group="schema", name="backbone", node=Backbone)
    store.store(group="schema", name="metrics", node=_thawed(MetricsConfig))
    for name, schema in METHOD_SCHEMAS.items():
        store.store(group="schema/method", name=name, node=schema)


def _thawed(settings: type) -> type:
    """The same dataclass, not frozen: OmegaConf would let no YAML file or command line change a frozen one."""
    hints = get_type_hints(settings)
    columns = [(f.name, hints[f.name], _copied(f)) for f in fields(settings)]
    return make_dataclass(settings.__name__, columns)


def _copied(each: Any) -> Any:
    if each.default_factory is not NO_DEFAULT:
        return field(default_factory=each.default_factory)
    return field(default=each.default)
