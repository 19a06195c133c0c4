"""FID: the Frechet distance between Gaussians fitted to the Inception features of two sets (Heusel et al., 2017)."""

from __future__ import annotations

import numpy as np

from experiments.metrics.estimates import Difference, Estimate, checked_features
from experiments.metrics.features import INCEPTION, two_of_each
from experiments.metrics.metric import Metric, SetMetric
from experiments.metrics.swaps import swap_p

SWAPS, MORE = 1999, 18_000  # random ones, where there are more patterns than that (n > 10); and where p is at its least
FEWER, MANY = 499, 300  # swaps, of more rows than that: each asks for the eigenvalues of two n x n matrices
AT_ONCE = 2**22  # numbers of such matrices: 32 MiB each of a few arrays


def fid(generated: np.ndarray, reference: np.ndarray) -> float:
    """Frechet distance of (n, d) and (m, d) features.

    |m1 - m2|^2 + Tr C1 + Tr C2 - 2 Tr (C1 C2)^(1/2). With C = A^T A, where the rows of A are the centred features over
    sqrt(n - 1), the last trace is the sum of the singular values of A1 A2^T: exact also where the covariances are
    singular (n <= d, always so for small n at d = 2048), and no larger than n x m. It falls with n, for sets alike:
    compare only at equal n.

    Raises:
        ValueError: fewer than two rows, unequal d, or a value that is no finite number.
    """
    x, y = checked_features(generated, reference)
    shift = x.mean(axis=0) - y.mean(axis=0)
    a, b = _covariance_root(x), _covariance_root(y)
    cross = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return float(shift @ shift + np.square(a).sum() + np.square(b).sum() - 2 * cross)


def _covariance_root(x: np.ndarray) -> np.ndarray:
    """A with A^T A = cov(x) and min(n, d) rows."""
    centred = (x - x.mean(axis=0)) / np.sqrt(len(x) - 1)
    return np.linalg.qr(centred, mode="r") if len(x) > x.shape[1] else centred


def fid_difference(a: np.ndarray, b: np.ndarray, reference: np.ndarray, seed: int = 0, crops: int = 1) -> Difference:
    """FID of a less FID of b, (n, d) each, where row i of both is of the same prompt and noise; reference (m, d).

    crops: rows that are of one image, one after the other: they change their label together, and n counts images.

    p: of swapping the labels within pairs (`swaps`), SWAPS ways and MORE, or FEWER of more than MANY rows. There is no
    standard error: no unbiased estimate of an FID's variance exists.

    Raises:
        ValueError: fewer than two rows, unequal shapes, or a value that is no finite number.
    """
    a, y = checked_features(a, reference)
    b, _ = checked_features(b, reference)
    if a.shape != b.shape:
        raise ValueError(f"pairs of shapes {a.shape} and {b.shape}: (n, d) and (n, d) wanted")
    n, rows = len(a), np.concatenate([a, b]) - y.mean(axis=0)
    gram, across = rows @ rows.T, rows @ _covariance_root(y).T
    cross = across @ across.T

    def differences(patterns: np.ndarray) -> np.ndarray:
        swapped = np.repeat(patterns, crops, axis=1)
        found = np.empty(len(swapped))
        step = max(1, AT_ONCE // n**2)
        for start in range(0, len(swapped), step):
            part = swapped[start : start + step]
            first = np.where(part, n, 0) + np.arange(n)
            second = np.where(part, 0, n) + np.arange(n)
            ours, theirs = (_without_reference(gram, cross, chosen) for chosen in (first, second))
            found[start : start + len(part)] = ours - theirs
        return found

    ways = (SWAPS, MORE) if n <= MANY else (FEWER, 0)
    return Difference(fid(a, y) - fid(b, y), None, swap_p(n // crops, differences, *ways, seed), n // crops)


def _without_reference(gram: np.ndarray, cross: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """FID less the reference's own trace, of the rows chosen by each of (k, n) index lists: (k,).

    gram: products of rows less the reference's mean. cross: the same of what is left of them along the reference's
    covariance root, whose doubly centred eigenvalues are the squares of the singular values that `fid` sums.
    """
    n = chosen.shape[1]
    picked = chosen[:, :, None], chosen[:, None, :]
    products, along = gram[picked], cross[picked]
    shift = products.mean(axis=(1, 2))
    trace = (np.trace(products, axis1=1, axis2=2) - n * shift) / (n - 1)
    along = along - along.mean(axis=1, keepdims=True)
    along = along - along.mean(axis=2, keepdims=True)
    singular = np.sqrt(np.linalg.eigvalsh(along / (n - 1)).clip(0))
    return shift + trace - 2 * singular.sum(axis=1)


METRIC = SetMetric(
    name="fid",
    place=10,
    measurement=INCEPTION,
    column=Metric("fid", "FID", "lower", per_panorama=False, depends_on_n=True),
    enough=two_of_each,
    estimate=lambda generated, reference, config: Estimate(fid(generated.features, reference.features), None),
    compare=lambda a, b, reference, config: fid_difference(a.features, b.features, reference.features),
)
