"""Skyline contrast: whether colours change at the skyline of the map that a panorama's ControlNet had.

This project's own metric, for maps of white land under a black sky. Of each column the mean colour of the REACH rows
above the map's skyline is compared with that of the REACH rows below: mean absolute difference of the channels in steps
of 8 bits, mean over columns. From it is taken the mean of the same across that skyline moved along by every multiple of
STEP columns, for a busy picture has edges everywhere. High: the map is followed; 0 is what a picture has that knows
nothing of it. Unlike a skyline that is looked for in the picture, it is not misled by other edges, such as a dark shore
below far mountains. Of 16 renders of the miniature's world, two windows wide, with their own maps: 6 to 87, 27 in the
mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from experiments.metrics.metric import Measurement, Metric, PanoramaMetric
from syncdiffusion.files import by_content, contents, open_picture
from syncdiffusion.method_settings import JointSettings
from syncdiffusion.settings import each_of, facts_of

if TYPE_CHECKING:
    from experiments.metrics.config import MetricsConfig
    from experiments.metrics.measure import ImageFile, PanoramaImage

ROWS = 128  # pictures are brought to this height
REACH, STEP = 6, 8  # of its pixels
NOTE = (
    "Skyline contrast is this project's own metric: by how many steps of 8 bits colours change across the skyline of "
    "the ControlNet's map, less what they change across it elsewhere. 0: the map is not followed."
)


def contrast(picture: np.ndarray, line: np.ndarray) -> float:
    """Mean over columns of how far the colours just above and just below a line are apart.

    picture: (h, w, 3). line: (w,) the first row below it, 0 to h.
    """
    height, width, _ = picture.shape
    sums = np.concatenate([np.zeros((1, width, 3)), picture.astype(np.float64).cumsum(axis=0)])
    at, columns = np.clip(line, 1, height - 1), np.arange(width)
    top, bottom = np.maximum(at - REACH, 0), np.minimum(at + REACH, height)
    above = (sums[at, columns] - sums[top, columns]) / (at - top)[:, None]
    below = (sums[bottom, columns] - sums[at, columns]) / (bottom - at)[:, None]
    return float(np.abs(above - below).mean())


def skyline_contrast(picture: np.ndarray, land: np.ndarray) -> float:
    """picture: uint8 (h, w, 3). land: booleans (h, w), True where there is no sky."""
    from experiments.mini.land import skyline

    size = (round(picture.shape[1] * ROWS / picture.shape[0]), ROWS)
    small = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))
    line = skyline(np.asarray(Image.fromarray(land).resize(size, Image.Resampling.NEAREST)))
    elsewhere = [contrast(small, np.roll(line, shift)) for shift in range(STEP, size[0], STEP)]
    return contrast(small, line) - float(np.mean(elsewhere))


def map_of(item: PanoramaImage) -> str | None:
    """The file of the first map that a panorama was made with."""
    return next(iter(each_of(item.made.get("settings", {}).get("control_image"))), None)


def _parameters(item: PanoramaImage, config: MetricsConfig) -> dict[str, Any]:
    path = map_of(item)
    if path is None:
        return {"map": ""}
    return {"map": contents(by_content({"control_image": path}, facts_of(JointSettings))["control_image"])}


def _compute(files: Sequence[ImageFile], network: None, config: MetricsConfig) -> Sequence[np.ndarray]:
    """The contrast (1,) of each; none where there was no map."""
    found = []
    for file in files:
        path = map_of(file.item)
        if path is None:
            found.append(np.empty(0))
        else:
            land = np.asarray(open_picture("control_image", path).convert("L")) > 127
            found.append(np.array([skyline_contrast(file.pixels, land)]))
    return found


METRIC = PanoramaMetric(
    name="skyline_contrast",
    place=76,
    measurement=Measurement("skyline_contrast", 1, None, _parameters, _compute),
    numbers={Metric("skyline_contrast", "Skyline contrast", "higher", per_panorama=True, note=NOTE): np.mean},
    on_request=True,
    takes="a ControlNet's map (control_image)",
)
