"""Precision and recall by nearest neighbours (Kynkäänniemi et al., NeurIPS 2019, equations 1 to 3). NumPy alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from experiments.metrics.estimates import Difference, checked_features

SWAPS = 999  # random ways to swap the labels within pairs, where there are more
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

    p: the share of SWAPS random ways to swap labels within pairs whose difference is as large, either way round, with
    the observed one counted among them.
    """
    a, y = checked_features(a, reference)
    b, _ = checked_features(b, reference)
    n, both = len(a), np.concatenate([a, b])
    own, across = distances(both, both), distances(y, both)

    def recall(chosen: np.ndarray) -> float:
        reach = radii(own[np.ix_(chosen, chosen)], neighbours)
        return float(within_balls(across[:, chosen], reach).mean())

    value, p = _swapped(n, lambda first, second: recall(first) - recall(second), seed)
    return Difference(value, None, p, n)


def _swapped(n: int, difference: Callable[[np.ndarray, np.ndarray], float], seed: int) -> tuple[float, float]:
    """The difference of rows 0 to n - 1 and n to 2n - 1, and its p."""
    places, rng = np.arange(n), np.random.default_rng(seed)
    value, as_large = difference(places, places + n), 1
    for _ in range(SWAPS):
        swap = rng.random(n) < 0.5
        found = difference(places + n * swap, places + n * ~swap)
        as_large += abs(found) >= abs(value) - 1e-12
    return value, as_large / (SWAPS + 1)
