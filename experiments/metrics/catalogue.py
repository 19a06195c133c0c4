"""The metrics by name: how each is shown and read. Nothing here imports torch."""

from dataclasses import dataclass

ALL_PROMPTS = "all"  # in a `prompt` column: the whole set


@dataclass(frozen=True)
class Metric:
    """How a metric is read.

    better: "lower" or "higher"; per_panorama: it is a mean over images; note: the sentence that a table explains it
    with, where its name says nothing to a reader of the paper.
    """

    name: str
    display: str
    better: str
    per_panorama: bool
    note: str = ""


LAYOUT_NOTE = (
    "Layout-LPIPS is this project's own metric, not the paper's: LPIPS between the crops of Intra-LPIPS without their "
    "colour and tone (luminance, mean 0.5, deviation 0.2). Low: the parts repeat one layout, which Intra-LPIPS rewards."
)

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
        Metric("layout_lpips", "Layout-LPIPS", "higher", True, LAYOUT_NOTE),
    )
}
