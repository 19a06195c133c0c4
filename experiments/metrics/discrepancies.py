"""Squared maximum mean discrepancies between two sets of features, prompt by prompt: KID, CMMD and their kin."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from experiments.metrics.estimates import Difference, Estimate, checked_features
from experiments.metrics.kernels import Groups, Kernel, discrepancy, kernel_blocks, within
from experiments.results.inference import sign_flip_p, t_p

KernelOf = Callable[[np.ndarray, np.ndarray], Kernel]  # two sets of features -> the kernel of their rows, by indices


def squared_mmd(
    generated: np.ndarray,
    reference: np.ndarray,
    kernel: KernelOf,
    prompts: Sequence[str] | None = None,
    reference_prompts: Sequence[str] | None = None,
) -> Estimate:
    """Squared MMD of features (n, d) and (m, d), or (n, k, d) of k crops of each image; unbiased, maybe negative.

    The population is a prompt drawn evenly from the set's prompts and a new seed of it: see `kernels`. Each prompt
    weighs the same, however many images it has. Without prompts all images are independent draws of one population,
    and the estimate is the U-statistic over all rows (Gretton et al., 2012).

    The standard error is over new seeds of the same prompts, in both sets; at equal distributions it is right on the
    median, and up to a fifth too large in the root mean square. It needs four images of every prompt in each set.

    Raises:
        ValueError: fewer than two images in all or of a prompt, unequal d, or a value that is no finite number.
    """
    x, y = checked_images(generated, reference)
    own, others = _groups(len(x), prompts), _groups(len(y), reference_prompts)
    between = kernel_blocks(kernel(x, y), own, others)
    found = discrepancy(within(kernel(x, x), own), within(kernel(y, y), others), between, own, others)
    return Estimate(found.value, None if found.variance is None else float(np.sqrt(found.variance)))


def squared_mmd_difference(
    a: np.ndarray,
    b: np.ndarray,
    reference: np.ndarray,
    kernel: KernelOf,
    prompts: Sequence[str] | None = None,
    reference_prompts: Sequence[str] | None = None,
) -> Difference:
    """Squared MMD of a less that of b, n images each, where image i of both is of the same prompt and noise.

    The reference's own part is the same for both and drops out. p: Student's, of the difference and its standard error,
    with as many degrees of freedom as there are pairs less prompts.

    Without a standard error p is that of swapping labels within pairs, which asks whether the two sets differ, not
    whether their distances to the reference do. What is left of the difference is a sum with one term for each pair,
    which changes its sign where the labels of that pair are swapped, and does not change otherwise. So the test is the
    sign-flip test of these terms, exactly. Where the sets differ and their distances do not, the terms have a part in
    common, and it refuses far more often than at its level: hence no more than a makeshift.

    Raises:
        ValueError: as `squared_mmd`, or unequal shapes.
    """
    a, y = checked_images(a, reference)
    b, _ = checked_images(b, reference)
    if a.shape != b.shape:
        raise ValueError(f"pairs of shapes {a.shape} and {b.shape}: equal ones wanted")
    own, others = _groups(len(a), prompts), _groups(len(y), reference_prompts)
    of_pairs = within(_less(kernel(a, a), kernel(b, b)), own)
    between = kernel_blocks(_less(kernel(a, y), kernel(b, y)), own, others)
    found = discrepancy(of_pairs, None, between, own, others)
    # <f(a_i) - f(b_i), f(a_j) + f(b_j)>, odd in the labels of pair i and even in those of pair j
    odd = within(_less(_plus(kernel(a, a), kernel(a, b)), _plus(kernel(b, a), kernel(b, b))), own)
    terms = (odd.own / len(own) + odd.others - 2 * between.rows.mean(axis=1)) / (len(own) * own.counts[own.of_rows])
    if found.variance is None:
        return Difference(found.value, None, sign_flip_p(terms), len(a))
    stderr = float(np.sqrt(found.variance))
    return Difference(found.value, stderr, t_p(found.value, stderr, len(a) - len(own.counts)), len(a))


def cubic(x: np.ndarray, y: np.ndarray) -> Kernel:
    """KID's kernel of rows of x and rows of y, given by their indices: (x . y / d + 1)^3."""
    return lambda i, j: (x[i] @ y[j].T / x.shape[1] + 1) ** 3


def gaussian(sigma: float) -> KernelOf:
    """exp(-|x - y|^2 / (2 sigma^2))."""

    def kernel(x: np.ndarray, y: np.ndarray) -> Kernel:
        squares = [np.square(each).sum(axis=1) for each in (x, y)]

        def values(i: np.ndarray, j: np.ndarray) -> np.ndarray:
            apart = squares[0][i][:, None] + squares[1][j][None] - 2 * x[i] @ y[j].T
            return np.exp(-np.maximum(apart, 0) / (2 * sigma**2))

        return values

    return kernel


def of_crops(kernel: KernelOf) -> KernelOf:
    """The kernel of images (n, k, d) and (m, l, d) that is the mean of `kernel` over their crops.

    An image is then one draw, whatever its number of crops: pairs of crops of one image are no pair of draws, and the
    variance is that of new images.
    """

    def made(x: np.ndarray, y: np.ndarray) -> Kernel:
        parts = [kernel(x[:, a], y[:, b]) for a in range(x.shape[1]) for b in range(y.shape[1])]
        return lambda i, j: sum(part(i, j) for part in parts) / len(parts)

    return made


def checked_images(generated: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `checked_features`, of several rows for each image too."""
    x, y = np.asarray(generated, np.float64), np.asarray(reference, np.float64)
    if x.ndim == y.ndim == 3:
        checked_features(x[:, 0], y[:, 0])  # two images of each
        checked_features(x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1]))
        return x, y
    return checked_features(x, y)


def _less(first: Kernel, second: Kernel) -> Kernel:
    return lambda i, j: first(i, j) - second(i, j)


def _plus(first: Kernel, second: Kernel) -> Kernel:
    return lambda i, j: first(i, j) + second(i, j)


def _groups(n: int, prompts: Sequence[str] | None) -> Groups:
    return Groups.of(("",) * n if prompts is None else prompts)
