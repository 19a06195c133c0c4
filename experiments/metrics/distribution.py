"""FID, KID and KNN-GIQA as functions of feature arrays, in float64.

`generated` and `reference` are (n, d) and (m, d) arrays with one image's features per row.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

Array = np.ndarray


@dataclass(frozen=True)
class Estimate:
    """A value with its standard error, None where there is no honest one."""

    value: float
    stderr: float | None


def mean_estimate(values: Array) -> Estimate:
    """Mean of independent values and its standard error (None for a single value)."""
    values = np.asarray(values, dtype=np.float64)
    if values.size == 0:
        raise ValueError("the mean of no values")
    stderr = values.std(ddof=1) / np.sqrt(values.size) if values.size > 1 else None
    return Estimate(float(values.mean()), None if stderr is None else float(stderr))


def fid(generated: Array, reference: Array) -> float:
    """Frechet distance between Gaussians fitted to both feature sets (Heusel et al., 2017).

    |m1 - m2|^2 + Tr C1 + Tr C2 - 2 Tr (C1 C2)^(1/2). With C = A^T A, where the rows of A are the
    centred features over sqrt(n - 1), the last trace is the sum of the singular values of A1 A2^T:
    exact also where the covariances are singular (n <= d, always so for small n at d = 2048), and
    no larger than n x m. It falls with n, for sets alike: compare only at equal n.

    Raises:
        ValueError: fewer than two rows, or unequal d.
    """
    x, y = _checked(generated, reference)
    shift = x.mean(axis=0) - y.mean(axis=0)
    a, b = _covariance_root(x), _covariance_root(y)
    cross = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return float(shift @ shift + np.square(a).sum() + np.square(b).sum() - 2 * cross)


def _covariance_root(x: Array) -> Array:
    """A with A^T A = cov(x) and min(n, d) rows."""
    centred = (x - x.mean(axis=0)) / np.sqrt(len(x) - 1)
    return np.linalg.qr(centred, mode="r") if len(x) > x.shape[1] else centred


def kid(generated: Array, reference: Array, subsets: int = 100, subset_size: int = 1000, seed: int = 0) -> Estimate:
    """Kernel distance: unbiased squared MMD, kernel (x . y / d + 1)^3 (Binkowski et al., 2018).

    The mean over random subsets of `subset_size` rows of each set, drawn without replacement by a
    generator of its own; where neither set is larger than that, one estimate from all rows, which
    is what the subsets are random parts of. An unbiased estimate may be negative.

    The standard error is the delete-one jackknife over all rows of both sets. (The deviation
    between overlapping subsets, often quoted, does not see how few images there are.) It is right
    for distributions that differ clearly and about sqrt(2) too large for equal ones, where the
    statistic degenerates. It needs three rows in each set, and is None below that.

    Raises:
        ValueError: fewer than two rows, or unequal d.
    """
    x, y = _checked(generated, reference)
    whole = _KernelSums.of(x, y)
    if max(len(x), len(y)) <= subset_size:
        return Estimate(whole.mmd(), whole.jackknife())
    generator = np.random.default_rng(seed)
    values = []
    for _ in range(subsets):
        rows_x = generator.choice(len(x), min(len(x), subset_size), replace=False)
        rows_y = generator.choice(len(y), min(len(y), subset_size), replace=False)
        values.append(_KernelSums.of(x[rows_x], y[rows_y]).mmd())
    return Estimate(float(np.mean(values)), whole.jackknife())


@dataclass(frozen=True)
class _KernelSums:
    """For each row, its kernel summed over the other rows of its set and over the other set."""

    xx: Array
    yy: Array
    xy: Array
    yx: Array

    @classmethod
    def of(cls, x: Array, y: Array) -> "_KernelSums":
        xx, yy = _kernel_rows(x, x) - _kernel_diagonal(x), _kernel_rows(y, y) - _kernel_diagonal(y)
        return cls(xx, yy, _kernel_rows(x, y), _kernel_rows(y, x))

    def mmd(self) -> float:
        n, m = len(self.xx), len(self.yy)
        within = self.xx.sum() / (n * (n - 1)) + self.yy.sum() / (m * (m - 1))
        return float(within - 2 * self.xy.sum() / (n * m))

    def jackknife(self) -> float | None:
        if min(len(self.xx), len(self.yy)) < 3:
            return None
        variance = _deletion_variance(self.xx, self.xy, len(self.yy))
        variance += _deletion_variance(self.yy, self.yx, len(self.xx))
        return float(np.sqrt(variance))


def _deletion_variance(own: Array, other: Array, m: int) -> float:
    """Jackknife variance from leaving out one row of one set; the other set's own term is constant."""
    n = len(own)
    without = (own.sum() - 2 * own) / ((n - 1) * (n - 2))
    without -= 2 * (other.sum() - other) / ((n - 1) * m)
    return (n - 1) / n * np.square(without - without.mean()).sum()


def _kernel_rows(x: Array, y: Array, chunk: int = 2048) -> Array:
    """Row sums of the kernel matrix, never holding more than `chunk` of its rows."""
    return np.concatenate(
        [((x[i : i + chunk] @ y.T / x.shape[1] + 1) ** 3).sum(axis=1) for i in range(0, len(x), chunk)]
    )


def _kernel_diagonal(x: Array) -> Array:
    return (np.square(x).sum(axis=1) / x.shape[1] + 1) ** 3


def giqa_scores(generated: Array, reference: Array, neighbours: int = 8) -> Array:
    """KNN-GIQA of each generated image (Gu et al., ECCV 2020): (n,) scores, higher is better.

    The sum, over its `neighbours` nearest reference features, of 1 / L1 distance. A reference at
    distance zero is the very same picture; it would make the score infinite and says nothing of
    the others, so it is passed over and the next nearest counts.

    Raises:
        ValueError: fewer references than neighbours, or fewer than two rows, or unequal d.
    """
    x, y = _checked(generated, reference)
    distances = np.concatenate([cdist(x[i : i + 256], y, "cityblock") for i in range(0, len(x), 256)])
    distances[distances == 0] = np.inf
    nearest = np.sort(distances, axis=1)[:, :neighbours]
    if nearest.shape[1] < neighbours or np.isinf(nearest).any():
        raise ValueError(f"{len(y)} reference rows for {neighbours} neighbours at non-zero distance")
    return (1 / nearest).sum(axis=1)


def _checked(generated: Array, reference: Array) -> tuple[Array, Array]:
    x, y = np.asarray(generated, np.float64), np.asarray(reference, np.float64)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"features of shapes {x.shape} and {y.shape}: (n, d) and (m, d) wanted")
    if min(len(x), len(y)) < 2:
        raise ValueError(f"{len(x)} generated and {len(y)} reference rows: two of each at least")
    return x, y
