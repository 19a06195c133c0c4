"""Seam score: how much more neighbouring columns differ where windows, or a loop's ends, meet than elsewhere.

This project's own metric, not the paper's. The difference of two neighbouring columns of pixels is the mean of
|left - right| over rows and channels, in steps of 8 bits. The score is its mean at the borders of windows less its mean
at the other borders of latent cells, since a decoder may leave a trace at every cell; where all of those are borders of
windows, less its mean at all other columns. Nothing to see: 0. A closed panorama has its first and last column for
neighbours, and they count as a border.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from baselines import METHODS
from experiments.metrics.metric import Measurement, Metric, PanoramaMetric
from syncdiffusion.cost import Square

if TYPE_CHECKING:
    from experiments.metrics.config import MetricsConfig
    from experiments.metrics.measure import ImageFile, PanoramaImage

NOTE = (
    "Seam score is this project's own metric, not the paper's: by how many steps of 8 bits neighbouring columns of "
    "pixels differ more at the borders of windows (in a closed loop also across its ends) than at other borders of "
    "latent cells."
)


def seam_score(picture: np.ndarray, borders: Sequence[int], factor: int, closed: bool) -> float:
    """The score of a (height, width, 3) uint8 picture, in steps of 8 bits.

    borders: columns at which windows begin or end, each the right one of two neighbours; 0 stands for the first column
    and the last, and counts in a closed loop alone.
    factor: pixels per latent cell. closed: whether the last column is the neighbour of the first.

    Raises:
        ValueError: no border, or no other column to compare with.
    """
    values = picture.astype(np.float64)
    apart = np.abs(values - np.roll(values, 1, axis=1)).mean(axis=(0, 2))  # of each column and the one before it
    columns = np.arange(picture.shape[1])
    there = columns > 0 if not closed else np.full(columns.shape, True)
    meeting = there & np.isin(columns, borders)
    others = there & ~meeting
    at_cells = others & (columns % factor == 0)
    others = at_cells if at_cells.any() else others
    if not meeting.any() or not others.any():
        raise ValueError(f"{meeting.sum()} borders and {others.sum()} other columns: one of each at least")
    return float(apart[meeting].mean() - apart[others].mean())


def borders_of(made: Mapping[str, Any]) -> tuple[list[int], bool]:
    """Columns at which the windows of a panorama begin or end, in pixels, and whether it is closed to a loop.

    made: as in PanoramaImage. No columns where its method has no windows, or others at every step.
    """
    method = METHODS.get(made.get("method", ""))
    if method is None or method.moving:
        return [], False
    settings, factor = made["settings"], made["factor"]
    square, width = Square(made["window"] // factor, factor), settings["width"] // factor
    corners = method.corners(method.settings(**settings), square)
    ends = {end % width for _, left in corners for end in (left, left + square.window)}
    closed = method.closed(settings)
    return sorted(end * factor for end in ends if end or closed), closed


def _parameters(item: PanoramaImage, config: MetricsConfig) -> dict[str, Any]:
    borders, closed = borders_of(item.made)
    return {"borders": borders, "closed": closed, "factor": item.made.get("factor")}


def _compute(files: Sequence[ImageFile], network: None, config: MetricsConfig) -> Sequence[np.ndarray]:
    """The score (1,) of each, (0,) where no windows meet."""
    found = []
    for file in files:
        borders, closed = borders_of(file.item.made)
        scores = [seam_score(file.pixels, borders, file.item.made["factor"], closed)] if borders else []
        found.append(np.array(scores, dtype=np.float64))
    return found


METRIC = PanoramaMetric(
    name="seam_score",
    place=80,
    measurement=Measurement("seam_score", 1, None, _parameters, _compute),
    numbers={Metric("seam_score", "Seam score", "lower", per_panorama=True, note=NOTE): np.mean},
    takes="windows that meet and stand still, of a method of this repository",
)
