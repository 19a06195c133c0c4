"""Precision and recall by nearest neighbours (Kynkäänniemi et al., NeurIPS 2019, equations 1 to 3). NumPy alone."""

from __future__ import annotations

import numpy as np

from experiments.metrics.estimates import Difference, checked_features
from experiments.metrics.swaps import swap_p

SWAPS, MORE = 999, 9_000  # random ways to swap the labels within pairs; the latter where p is at its least
ROWS = 512  # of a matrix of distances at once


def covered(points: np.ndarray, manifold: np.ndarray, neighbours: int = 3) -> np.ndarray:
    """Which of (n, d) points lie in the manifold of (m, d) features, (n,) bool.

    The manifold is the union of a ball around each feature, which reaches to its `neighbours`-th nearest other one.

    Raises:
        ValueError: `neighbours` features or fewer, unequal d, or a value that is no finite number.
    """
    x, y = checked_features(points, manifold)
    if len(y) <= neighbours:
        raise ValueError(f"{len(y)} features have no {neighbours}th nearest other one")
    return within_balls(distances(x, y), radii(distances(y, y), neighbours))


def distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Euclidean, (n, m)."""
    from scipy.spatial.distance import cdist

    return np.concatenate([cdist(x[i : i + ROWS], y) for i in range(0, len(x), ROWS)])


def radii(own: np.ndarray, neighbours: int) -> np.ndarray:
    """Distance of each to its `neighbours`-th nearest other one, from the distances of a set to itself.

    The nearest of all is a feature itself, at distance zero, so equal pictures count as neighbours of each other.
    """
    return np.partition(own, neighbours, axis=1)[:, neighbours]


def within_balls(apart: np.ndarray, reach: np.ndarray) -> np.ndarray:
    return (apart <= reach).any(axis=1)


def recall_difference(
    a: np.ndarray, b: np.ndarray, reference: np.ndarray, neighbours: int = 3, seed: int = 0
) -> Difference:
    """Recall of a less recall of b, (n, d) each, where row i of both is of the same prompt and noise.

    p: of swapping the labels within pairs (`swaps`).
    """
    a, y = checked_features(a, reference)
    b, _ = checked_features(b, reference)
    n, both = len(a), np.concatenate([a, b])
    own, across = distances(both, both), distances(y, both)

    def recall(chosen: np.ndarray) -> float:
        reach = radii(own[np.ix_(chosen, chosen)], neighbours)
        return float(within_balls(across[:, chosen], reach).mean())

    places = np.arange(n)

    def differences(patterns: np.ndarray) -> np.ndarray:
        return np.array([recall(places + n * swap) - recall(places + n * ~swap) for swap in patterns])

    value = recall(places) - recall(places + n)
    return Difference(value, None, swap_p(n, differences, SWAPS, MORE, seed), n)
