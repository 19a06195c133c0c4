"""What to measure, and with which networks: the `metrics` section of a run's configuration."""

from dataclasses import dataclass, field

from syncdiffusion.errors import UsageError
from syncdiffusion.files import place_of
from syncdiffusion.settings import Facts, facts_of, setting


def metric_names() -> list[str]:
    """What `metrics` may hold: every metric there is, those of plugins too."""
    from experiments.metrics.catalogue import DEFINED

    return list(DEFINED)


def usual_metrics() -> list[str]:
    """Those that are measured where none is named: what everyone can have, and says something of every panorama."""
    from experiments.metrics.catalogue import DEFINED

    return [name for name, metric in DEFINED.items() if not metric.on_request]


NETWORKS = ("paper", "mini")


@dataclass(frozen=True)
class MetricsConfig:
    """Settings of the metrics; only primitives, so that it can be a Hydra structured schema.

    networks: "paper" is the published set (LPIPS-VGG, clean-fid's Inception, torchvision VGG-19,
        OpenAI's CLIP ViT-B/16); "mini" is what can be had without download hosts (LPIPS-VGG, FID
        Inception, VGG-16 for the style term, the embedded miniature CLIP).
    metrics: which metrics to compute, a subset of `metric_names`. "intra_style" yields two columns,
        `intra_style_sum` (as released) and `intra_style_mean`; "clip_score" is called
        `mini_clip_score` where the network is the embedded one.
    crop: 512 for Stable Diffusion, 128 for the embedded model.
    replicates: fewer blocks where there are fewer seeds.
    """

    networks: str = setting("mini", "the paper's, or those that need no download host", choices=NETWORKS)
    metrics: list[str] = field(
        default_factory=usual_metrics, metadata={"facts": Facts("which metrics to compute, such as [kid,intra_lpips]")}
    )
    crop: int = setting(128, "pixels, the side of the square crops: a window of the model", least=16)
    giqa_neighbours: int = setting(8, "K of KNN-GIQA", least=1)
    manifold_neighbours: int = setting(3, "k of precision and recall: a ball reaches to the k-th neighbour", least=1)
    replicates: int = setting(5, "disjoint blocks of seeds that FID, KID and GIQA are repeated on", least=2)
    clip_folder: str | None = setting(None, "an open_clip folder in place of the set's CLIP", null="the set's own")
    hps_file: str | None = setting(None, "HPSv2's checkpoint, for the metric hps", null="none")
    dino: str = setting("facebook/dinov2-large", "DINOv2's folder in transformers' layout, or a hub repository")
    batch: int = setting(16, "images through a network at once: speed alone", least=1)
    seed: int = setting(0, "of the random crops")
    device: str = setting("auto", "auto: cuda where there is one; or cpu, cuda, cuda:N")


def check_config(config: MetricsConfig) -> None:
    """Refuse settings that no scoring pass could use.

    Raises:
        UsageError: names the first bad setting, its value and what would do.
    """
    if config.networks not in NETWORKS:
        raise UsageError(f"metrics.networks={config.networks}: choose paper or mini")
    known = metric_names()
    unknown = [name for name in config.metrics if name not in known]
    if unknown:
        raise UsageError(f"metrics.metrics={unknown[0]}: choose from {', '.join(known)}")
    for name, facts in facts_of(MetricsConfig).items():
        if facts.least is not None and getattr(config, name) < facts.least:
            raise UsageError(f"metrics.{name}={getattr(config, name)}: {facts.least} or more")


def check_networks(config: MetricsConfig) -> None:
    """`check_config`, and what networks are made of must be there; of a hub repository that is told when it loads."""
    check_config(config)
    if "hps" in config.metrics and config.hps_file is None:
        raise UsageError("metrics.hps_file=null: the metric hps needs HPSv2's checkpoint; give metrics.hps_file=FILE")
    if config.hps_file is not None and not place_of(config.hps_file).is_file():
        raise UsageError(f"metrics.hps_file={config.hps_file}: no such file; give HPSv2's checkpoint")
    if config.clip_folder is not None and not place_of(config.clip_folder).is_dir():
        raise UsageError(f"metrics.clip_folder={config.clip_folder}: no such folder; give an open_clip folder")
    is_path = config.dino.startswith(("/", "~", "."))
    if is_path and not place_of(config.dino).is_dir():
        raise UsageError(f"metrics.dino={config.dino}: no such folder; give a DINOv2 folder or a hub repository")
