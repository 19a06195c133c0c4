"""Region CLIP score: 100 x cosine between each region of a layout and its own prompt. High: each is what it is to be.

This project's own metric, for panoramas with a layout (`syncdiffusion.conditioning.layout`). A region is looked at in
the smallest square that holds its bounding box: surroundings are seen with it, as in a photograph. Of a region that is
wider than the picture is high CLIP sees the middle, a square as high as the picture: its preprocessing cuts the sides.
The background has no score of its own here: the CLIP score's crop is of the whole panorama. A panorama without a
layout has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.metrics.definitions.clip_score import clip_scores
from experiments.metrics.metric import Measurement, Metric, PanoramaMetric
from experiments.metrics.regions import cells_digest, layout_of, region_pixels

if TYPE_CHECKING:
    from experiments.metrics.clip_network import ClipNetwork
    from experiments.metrics.config import MetricsConfig
    from experiments.metrics.measure import ImageFile

NOTE = (
    "The region CLIP score is this project's own metric: the CLIP score of each region of a layout with the region's "
    "own prompt, their mean; of a region wider than the picture is high, of its middle."
)


def square_around(region: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of the smallest square that holds the True pixels of (h, w), moved into the picture.

    Where the picture is less high or wide than that square, all of it.
    """
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    side = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    return tuple(_span(line, side, length) for line, length in zip((rows, columns), region.shape, strict=True))


def _span(line: np.ndarray, side: int, length: int) -> slice:
    side = min(side, length)
    first = int(np.clip((line[0] + line[-1] + 1 - side) // 2, 0, length - side))
    return slice(first, first + side)


def _compute(files: Sequence[ImageFile], clip: ClipNetwork, config: MetricsConfig) -> Sequence[np.ndarray]:
    """A score for each region of each file."""
    found = []
    for file in files:
        layout = layout_of(file.item)
        if layout is None:
            found.append(np.empty(0))
            continue
        regions = region_pixels(file.item, file.pixels.shape[:2])
        crops = [file.pixels[square_around(each)] for each in regions]
        found.append(clip_scores(clip, crops, [region.prompt for region in layout.regions], config.batch))
    return found


def _parameters(item: Any, config: MetricsConfig) -> dict[str, Any]:
    layout = layout_of(item)
    return {"layout": cells_digest(item), "prompts": [] if layout is None else [each.prompt for each in layout.regions]}


PAPER = Metric("region_clip_score", "Region CLIP score", "higher", per_panorama=True, note=NOTE)
MINI = Metric("region_mini_clip_score", "Region mini-CLIP score", "higher", per_panorama=True, note=NOTE)

METRIC = PanoramaMetric(
    name="region_clip_score",
    place=45,
    measurement=Measurement("region_clip", 1, "clip", _parameters, _compute),
    numbers={PAPER: np.mean, MINI: np.mean},
    chosen=lambda clip: [PAPER.name if clip.metric == "clip_score" else MINI.name],
    on_request=True,
    takes="a layout",
)
