"""Estimates from kernels of images that come in groups (prompts): what KID and its test are made of. NumPy alone.

The population: a prompt drawn evenly from a fixed list, and a new seed. Seeds are random, prompts are not. A plain
mean over all pairs of different images would hold too many pairs of one prompt where prompts have few seeds: of 6 x 10
images 15 % of the pairs are of one prompt, of two independent draws of the population 17 %. So pairs are counted
prompt by prompt: the mean over the pairs of one prompt, and of two, each weigh what they weigh in the population.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]  # rows of (n,) and (m,) indices -> (n, m) values

ROWS = 2048  # of a kernel matrix that are held at once, where prompts are not larger
LEAST_FOR_VARIANCE = 4  # images of every prompt, on each side


@dataclass(frozen=True)
class Groups:
    """Images in order of their groups.

    order: (n,) indices that bring the images into that order. starts, counts: (p,) of each group in it.
    """

    order: np.ndarray
    starts: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, names: Sequence[Hashable]) -> Groups:
        """names: the group of each image; groups stand in the order in which they are first met."""
        place = {name: index for index, name in enumerate(dict.fromkeys(names))}
        numbers = np.array([place[name] for name in names], dtype=np.int64)
        counts = np.bincount(numbers, minlength=len(place))
        return cls(np.argsort(numbers, kind="stable"), np.cumsum(counts) - counts, counts)

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def of_rows(self) -> np.ndarray:
        """(n,) the number of each image's group, in order."""
        return np.repeat(np.arange(len(self)), self.counts)

    def sums(self, values: np.ndarray, axis: int = 0) -> np.ndarray:
        """Sums over the images of each group along an axis that is in order."""
        return np.add.reduceat(values, self.starts, axis=axis)


@dataclass(frozen=True)
class Blocks:
    """What the estimates need of the kernel between two sets in order, of n and m images, p and q groups.

    rows: (n, q) mean over the images of a group on the other side; columns: (m, p) the same from the other side.
    squares: (p, q) sum over a pair of groups of the squares of the kernel, centred by rows and columns of that block.
    """

    rows: np.ndarray
    columns: np.ndarray
    squares: np.ndarray


def kernel_blocks(kernel: Kernel, x: Groups, y: Groups) -> Blocks:
    """Goes through the kernel's matrix once, about ROWS of its rows at a time."""
    rows = np.empty((len(x.order), len(y)))
    columns = np.empty((len(y.order), len(x)))
    squares = np.empty((len(x), len(y)))
    for part, mine, chosen in _parts(x):
        values = kernel(x.order[mine], y.order)
        rows[mine] = y.sums(values, axis=1) / y.counts
        of_groups = np.add.reduceat(values, part, axis=0) / x.counts[chosen, None]
        columns[:, chosen] = of_groups.T
        values -= np.repeat(rows[mine], y.counts, axis=1)
        values -= np.repeat(np.add.reduceat(values, part, axis=0) / x.counts[chosen, None], x.counts[chosen], axis=0)
        squares[chosen] = y.sums(np.add.reduceat(np.square(values, out=values), part, axis=0), axis=1)
    return Blocks(rows, columns, squares)


def _parts(x: Groups) -> Iterator[tuple[np.ndarray, slice, slice]]:
    """Runs of whole groups: where each begins within the run, the images of the run, the groups of the run."""
    first = 0
    while first < len(x):
        room = np.searchsorted(np.cumsum(x.counts[first:]), ROWS, side="right")
        last = first + max(1, int(room))
        start = x.starts[first]
        stop = x.starts[last - 1] + x.counts[last - 1]
        yield x.starts[first:last] - start, slice(start, stop), slice(first, last)
        first = last


@dataclass(frozen=True)
class Within:
    """The kernel of one set with itself.

    own: (n,) mean over the other images of an image's own group. others: (n,) sum of the means over the other groups,
    over p. mean: the unbiased estimate of the population's mean. squares: (p, p) unbiased estimates of the mean
    square of the doubly centred kernel; the diagonal is NaN for groups of fewer than LEAST_FOR_VARIANCE.
    """

    own: np.ndarray
    others: np.ndarray
    mean: float
    squares: np.ndarray


def within(kernel: Kernel, x: Groups) -> Within:
    """Needs two images of every group. A kernel that is not symmetric has means of its rows, its squares mean nothing.

    Raises:
        ValueError: a group of one image.
    """
    if x.counts.min() < 2:
        raise ValueError("one image of a prompt makes no pair: two of every prompt at least")
    blocks, mine = kernel_blocks(kernel, x, x), x.of_rows
    in_own = blocks.rows[np.arange(len(mine)), mine]
    parts = np.array_split(x.order, -(-len(mine) // 256))
    diagonal = np.concatenate([np.diag(kernel(rows, rows)) for rows in parts])
    count = x.counts[mine]
    own = (in_own * count - diagonal) / (count - 1)
    others = (blocks.rows.sum(axis=1) - in_own) / len(x)
    mean = float((x.sums(own / len(x) + others) / x.counts).mean())
    centred = diagonal - 2 * in_own + (x.sums(in_own) / x.counts)[mine]
    squares = blocks.squares / np.outer(x.counts - 1, x.counts - 1)
    np.fill_diagonal(squares, _mean_square(x.counts, blocks.squares.diagonal(), x.sums(centred), x.sums(centred**2)))
    return Within(own, others, mean, squares)


def _mean_square(n: np.ndarray, squares: np.ndarray, trace: np.ndarray, diagonal: np.ndarray) -> np.ndarray:
    """Unbiased estimate of E[h(a, b)^2] for independent a, b and a centred h (Himeno and Yamada, 2014, of tr S^2).

    squares, trace, diagonal: of the kernel centred by the sample's own means, the sum of its squares, its trace and
    the sum of its diagonal's squares.
    """
    n = np.where(n < LEAST_FOR_VARIANCE, np.nan, n.astype(np.float64))
    s2, s1, q = squares / (n - 1) ** 2, trace / (n - 1), diagonal / (n - 1)
    return (n - 1) / (n * (n - 2) * (n - 3)) * ((n - 1) * (n - 2) * s2 + s1**2 - n * q)


@dataclass(frozen=True)
class Discrepancy:
    """within(x) + within(y) - 2 between, over groups of equal weight: its value and the variance of that over seeds.

    variance: None where a group has fewer than LEAST_FOR_VARIANCE images.
    """

    value: float
    variance: float | None


def discrepancy(of_x: Within, of_y: Within | None, between: Blocks, x: Groups, y: Groups) -> Discrepancy:
    """The unbiased estimate of a squared maximum mean discrepancy (Gretton et al., 2012), stratified by groups.

    of_y: None for a set whose own part is left out, as in the difference of two discrepancies from it.

    The variance is that of Hoeffding's decomposition. Each image has a first-order part, its mean kernel against all
    others; the variance of those within the groups holds the linear part of the variance and, twice, what the pairs
    of images add. The pairs' part is estimated on its own without bias, taken off twice and added once. A linear part
    below zero counts as zero. Unlike the jackknife it is right also for distributions that are alike.
    """
    value = of_x.mean + (of_y.mean if of_y else 0.0) - 2 * float(_group_means(between.rows, x).mean())
    if min(x.counts.min(), y.counts.min()) < LEAST_FOR_VARIANCE:
        return Discrepancy(value, None)
    cross = between.squares / np.outer(x.counts - 1, y.counts - 1)
    linear, pairs = _side(of_x, between.rows, cross, x, y)
    more, further = _side(of_y, between.columns, cross.T, y, x)
    shared = 4 * float((cross / np.outer(x.counts, y.counts)).sum()) / (len(x) * len(y)) ** 2
    return Discrepancy(value, max(linear + more, 0.0) + pairs + further + shared)


def _group_means(rows: np.ndarray, x: Groups) -> np.ndarray:
    return x.sums(rows) / x.counts[:, None]


def _side(of_x: Within | None, across: np.ndarray, cross: np.ndarray, x: Groups, y: Groups) -> tuple[float, float]:
    """One side's linear part of the variance, and what the pairs of its own images add."""
    mine, count, groups = x.of_rows, x.counts, len(x)
    first = -across.mean(axis=1)
    if of_x is not None:
        # leaving an image out of its own group's mean takes 1 / (r - 1) off its slope
        own = of_x.own - (x.sums(of_x.own) / count)[mine]
        first = first + own * ((count - 1) / (count - 2))[mine] / groups + of_x.others
    spread = x.sums(np.square(first - (x.sums(first) / count)[mine])) / (count - 1)
    linear = 4 * (spread / count).sum() / groups**2
    linear -= 4 * (cross / np.outer(count, y.counts)).sum() / (groups * len(y)) ** 2
    if of_x is None:
        return float(linear), 0.0
    same = np.maximum(of_x.squares.diagonal(), 0)
    apart = of_x.squares / np.outer(count, count)
    different = apart.sum() - apart.trace()
    linear -= 4 * ((same / (count * (count - 2))).sum() + different) / groups**4
    pairs = 2 * ((same / (count * (count - 1))).sum() + different) / groups**4
    return float(linear), float(pairs)
