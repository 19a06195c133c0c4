"""What to measure, and with which networks: the `metrics` section of a run's configuration."""

from dataclasses import dataclass, field

from syncdiffusion.errors import UsageError


def metric_names() -> list[str]:
    """What `metrics` may hold: every metric there is, those of plugins too."""
    from experiments.metrics.catalogue import DEFINED

    return list(DEFINED)


@dataclass(frozen=True)
class MetricsConfig:
    """Settings of the metrics; only primitives, so that it can be a Hydra structured schema.

    networks: "paper" is the published set (LPIPS-VGG, clean-fid's Inception, torchvision VGG-19,
        OpenAI's CLIP ViT-B/16); "mini" is what can be had without download hosts (LPIPS-VGG, FID
        Inception, VGG-16 for the style term, the embedded miniature CLIP).
    metrics: which metrics to compute, a subset of `metric_names`. "intra_style" yields two columns,
        `intra_style_sum` (as released) and `intra_style_mean`; "clip_score" is called
        `mini_clip_score` where the network is the embedded one.
    crop: side of the square crops in pixels; the width of a diffusion window (512 for Stable
        Diffusion, 128 for the embedded model).
    giqa_neighbours: K of KNN-GIQA.
    replicates: FID, KID and GIQA are also computed on this many disjoint blocks of equally many
        seeds, two at least; fewer blocks where there are fewer seeds.
    clip_folder: an open_clip folder used in place of the set's own CLIP; None keeps the set's.
    device: "auto", "cpu", "cuda" or "cuda:N".
    """

    networks: str = "mini"
    metrics: list[str] = field(default_factory=metric_names)
    crop: int = 128
    giqa_neighbours: int = 8
    replicates: int = 5
    clip_folder: str | None = None
    batch: int = 16
    seed: int = 0
    device: str = "auto"


def check_config(config: MetricsConfig) -> None:
    """Refuse settings that no scoring pass could use.

    Raises:
        UsageError: names the first bad setting, its value and what would do.
    """
    if config.networks not in ("paper", "mini"):
        raise UsageError(f"metrics.networks={config.networks}: choose paper or mini")
    known = metric_names()
    unknown = [name for name in config.metrics if name not in known]
    if unknown:
        raise UsageError(f"metrics.metrics={unknown[0]}: choose from {', '.join(known)}")
    least = {"crop": 16, "giqa_neighbours": 1, "replicates": 2, "batch": 1}
    for name, bound in least.items():
        if getattr(config, name) < bound:
            raise UsageError(f"metrics.{name}={getattr(config, name)}: {bound} or more")
