"""The test that swaps labels within pairs, for numbers of whole sets that are no means. NumPy alone."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np

ROUNDING = 1e-9  # of the largest difference: what float64 leaves of patterns that come to the same


def swap_p(n: int, differences: Callable[[np.ndarray], np.ndarray], most: int, more: int, seed: int = 0) -> float:
    """Two-sided p of the hypothesis that the two labels of each of n pairs might as well be swapped.

    It asks whether the two sets differ in any way. Exact over all 2^n ways where those are most + 1 or fewer. Else
    `most` random ones, and `more` after them where none of those came to as much as the observed: p is never 0, and
    looking on only where it is at its least leaves it valid.

    Args:
        differences: patterns (k, n) bool, which pairs are swapped -> the difference of the two numbers, (k,).
        seed: of a generator of its own.
    """
    if 2**n <= most + 1:
        return share_as_large(differences(np.array(list(product((False, True), repeat=n)))))
    rng = np.random.default_rng(seed)
    as_it_is = np.zeros((1, n), dtype=bool)
    found = differences(np.concatenate([as_it_is, rng.random((most, n)) < 0.5]))
    if share_as_large(found) * len(found) < 2 and more:
        found = np.concatenate([found, differences(rng.random((more, n)) < 0.5)])
    return share_as_large(found)


def share_as_large(found: np.ndarray) -> float:
    """Of differences those as large as the first, which is the observed one, either way round."""
    return float(np.mean(np.abs(found) >= abs(found[0]) - ROUNDING * np.abs(found).max()))
