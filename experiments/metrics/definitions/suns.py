"""Suns and moons: how many bright discs stand in the sky of one panorama. A landscape has one at most.

This project's own metric, for drawn landscapes such as the embedded miniature's. Windows that are denoised apart each
bring a sun of their own, which no distance between crops counts. A disc is evenly coloured, brighter than all that
surrounds it, and surrounded evenly: a bright cloud or a blossoming tree is not. Of 160 renders of the miniature's
world, two windows wide, 32 of the 43 with a sun count one or more (the others' sun is hidden in part), three of them
two (its image in water), and 6 of the 117 without one count one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from experiments.metrics.definitions.layout_lpips import LUMA
from experiments.metrics.metric import Measurement, Metric, PanoramaMetric

if TYPE_CHECKING:
    from experiments.metrics.config import MetricsConfig
    from experiments.metrics.measure import ImageFile, PanoramaImage

ROWS = 128  # pictures are brought to this height: radii below are in its pixels
RADII = (5.0, 6.2, 7.6, 9.2)
SKY = 0.62  # share of the height, from above, in which discs are looked for
SECTORS = 8
# Of values from 0 to 1: the disc's colour deviates by less, its mean is that much above the brightest sector of the
# ring around it, and the sectors differ by less than this share of how far the disc is above them.
EVEN, ABOVE, ROUND = 0.03, 0.05, 0.5

NOTE = (
    "Suns and moons is this project's own metric: how many bright discs stand in the sky of a panorama, where a "
    "landscape has one at most. About one window in 40 without any counts one."
)


def masks(radius: float) -> tuple[np.ndarray, list[np.ndarray]]:
    """Weights of a disc just within `radius`, and of the sectors of the ring around it; each sums to 1."""
    reach = int(np.ceil(1.8 * radius))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    away, sector = np.hypot(x, y), (np.arctan2(y, x) / (2 * np.pi) % 1 * SECTORS).astype(int) % SECTORS
    ring = (away >= radius + 1.5) & (away <= 1.8 * radius)
    shapes = [away <= radius - 1, *(ring & (sector == each) for each in range(SECTORS))]
    disc, *sectors = [shape / shape.sum() for shape in shapes]
    return disc, sectors


def find_suns(picture: np.ndarray) -> list[tuple[float, float, float]]:
    """The discs of a picture uint8 [h, w, 3]: row, column and radius of each, in its pixels, the clearest first."""
    from scipy.signal import fftconvolve

    scale = picture.shape[0] / ROWS
    small = Image.fromarray(picture).resize((round(picture.shape[1] / scale), ROWS), Image.Resampling.BOX)
    colours = np.asarray(small).astype(np.float64) / 255
    luma = colours @ np.array(LUMA)
    clearest, radii = np.full(luma.shape, -1.0), np.zeros(luma.shape)

    def mean(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
        reach = mask.shape[0] // 2
        # A correlation is a convolution with the turned mask; beyond the edge the picture goes on as it ends.
        return fftconvolve(np.pad(values, reach, mode="edge"), mask[::-1, ::-1], mode="valid")

    for radius in RADII:
        disc, sectors = masks(radius)
        channels = [colours[..., channel] for channel in range(3)]
        means = [mean(each, disc) for each in channels]
        variance = sum(mean(each**2, disc) - own**2 for each, own in zip(channels, means, strict=True)) / 3
        around = np.stack([mean(luma, sector) for sector in sectors])
        within, brightest = np.tensordot(LUMA, means, 1), around.max(axis=0)
        even = (variance < EVEN**2) & (brightest - around.min(axis=0) < ROUND * (within - around.mean(axis=0)))
        above = np.where(even, within - brightest, -1.0)
        radii = np.where(above > clearest, radius, radii)
        clearest = np.maximum(above, clearest)
    clearest[int(SKY * ROWS) :] = -1.0
    found: list[tuple[float, float, float]] = []
    rows, columns = np.nonzero(clearest > ABOVE)
    for i in np.argsort(-clearest[rows, columns]):
        y, x, radius = float(rows[i]), float(columns[i]), float(radii[rows[i], columns[i]])
        if all(np.hypot(y - b, x - a) > 1.5 * max(radius, other) for b, a, other in found):
            found.append((y, x, radius))
    return [(y * scale, x * scale, radius * scale) for y, x, radius in found]


def _parameters(item: PanoramaImage, config: MetricsConfig) -> dict[str, object]:
    return {}


def _compute(files: Sequence[ImageFile], network: None, config: MetricsConfig) -> Sequence[np.ndarray]:
    """The count (1,) of each."""
    return [np.array([len(find_suns(file.pixels))], dtype=np.float64) for file in files]


METRIC = PanoramaMetric(
    name="suns",
    place=75,
    measurement=Measurement("suns", 1, None, _parameters, _compute),
    numbers={Metric("suns", "Suns and moons", "lower", per_panorama=True, note=NOTE): np.mean},
    on_request=True,
)
