"""The metrics by name: how each is shown and read. Nothing here imports torch."""

from dataclasses import dataclass

ALL_PROMPTS = "all"  # in a `prompt` column: the whole set


@dataclass(frozen=True)
class Metric:
    """How a metric is read. better: "lower" or "higher"; per_panorama: it is a mean over images."""

    name: str
    display: str
    better: str
    per_panorama: bool


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("fid", "FID", "lower", False),
        Metric("kid", "KID", "lower", False),
        Metric("giqa", "Mean-GIQA", "higher", False),
        Metric("clip_score", "CLIP score", "higher", True),
        Metric("mini_clip_score", "mini-CLIP score", "higher", True),
        Metric("intra_lpips", "Intra-LPIPS", "lower", True),
        Metric("intra_style_sum", "Intra-Style-L (sum)", "lower", True),
        Metric("intra_style_mean", "Intra-Style-L (mean)", "lower", True),
    )
}
