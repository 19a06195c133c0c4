"""Numbers of pictures that need no network: finest detail, spread of colour, and how alike two sets are in such."""

from __future__ import annotations

import numpy as np

from experiments.metrics.estimates import Estimate


def detail(images: np.ndarray) -> np.ndarray:
    """Energy of the finest detail of each of uint8 [n, h, w, 3]: [n], in squared levels of luma (Rec. 709).

    The mean square of what a blur over 3x3 pixels takes away: edges, lit windows, outlines; nearly nothing of fog.
    """
    luma = images.astype(np.float64) @ np.array([0.2126, 0.7152, 0.0722])
    inner = sum(luma[:, y : y + luma.shape[1] - 2, x : x + luma.shape[2] - 2] for y in range(3) for x in range(3)) / 9
    return ((luma[:, 1:-1, 1:-1] - inner) ** 2).mean((1, 2))


def likeness(values: np.ndarray, reference: np.ndarray, groups: int) -> Estimate:
    """How alike two sets of numbers are in mean, group by group: the mean of min(a / b, b / a), 1 for alike.

    Args:
        values, reference: [groups * k], group after group, positive.
    """
    a, b = (part.reshape(groups, -1).mean(1) for part in (values, reference))
    return Estimate(float(np.minimum(a / b, b / a).mean()), None)


def colour_spread(images: np.ndarray) -> float:
    """Root mean square distance of the pictures' mean colours from their own mean, in levels; uint8 [n, h, w, 3]."""
    colours = images.reshape(len(images), -1, 3).mean(1)
    return float(np.sqrt(((colours - colours.mean(0)) ** 2).sum(1).mean()))
