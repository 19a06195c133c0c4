"""KID: the kernel distance between the Inception features of two sets (Binkowski et al., 2018), prompt by prompt."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from experiments.metrics.estimates import Difference, Estimate, checked_features
from experiments.metrics.features import INCEPTION, two_of_every_prompt
from experiments.metrics.kernels import Groups, Kernel, discrepancy, kernel_blocks, within
from experiments.metrics.metric import Metric, SetMetric
from experiments.results.inference import sign_flip_p


def kid(
    generated: np.ndarray,
    reference: np.ndarray,
    prompts: Sequence[str] | None = None,
    reference_prompts: Sequence[str] | None = None,
) -> Estimate:
    """Squared MMD with the kernel (x . y / d + 1)^3 of (n, d) and (m, d) features, without bias; it may be negative.

    The population is a prompt drawn evenly from the set's prompts and a new seed of it: see `kernels`. Each prompt
    weighs the same, however many images it has. Without prompts all images are independent draws of one population,
    and the estimate is the U-statistic of the paper and of clean-fid over all rows (which clean-fid averages over
    random parts).

    The standard error is over new seeds of the same prompts, in both sets; at equal distributions it is right on the
    median, and up to a fifth too large in the root mean square. It needs four images of every prompt in each set.

    Raises:
        ValueError: fewer than two rows in all or of a prompt, unequal d, or a value that is no finite number.
    """
    x, y = checked_features(generated, reference)
    own, others = _groups(len(x), prompts), _groups(len(y), reference_prompts)
    found = discrepancy(
        within(cubic(x, x), own), within(cubic(y, y), others), kernel_blocks(cubic(x, y), own, others), own, others
    )
    return Estimate(found.value, None if found.variance is None else float(np.sqrt(found.variance)))


def kid_difference(
    a: np.ndarray,
    b: np.ndarray,
    reference: np.ndarray,
    prompts: Sequence[str] | None = None,
    reference_prompts: Sequence[str] | None = None,
) -> Difference:
    """KID of a less KID of b, (n, d) each, where row i of both is of the same prompt and noise; reference (m, d).

    The reference's own part is the same for both and drops out. What is left is a sum with one term for each pair,
    which changes its sign where the labels of that pair are swapped, and does not change otherwise. So the test that
    swaps labels within pairs is the sign-flip test of these terms, exactly.

    Raises:
        ValueError: as `kid`, or unequal shapes.
    """
    a, y = checked_features(a, reference)
    b, _ = checked_features(b, reference)
    if a.shape != b.shape:
        raise ValueError(f"pairs of shapes {a.shape} and {b.shape}: (n, d) and (n, d) wanted")
    own, others = _groups(len(a), prompts), _groups(len(y), reference_prompts)
    of_pairs = within(_less(cubic(a, a), cubic(b, b)), own)
    between = kernel_blocks(_less(cubic(a, y), cubic(b, y)), own, others)
    found = discrepancy(of_pairs, None, between, own, others)
    # <f(a_i) - f(b_i), f(a_j) + f(b_j)>, odd in the labels of pair i and even in those of pair j
    odd = within(_less(_plus(cubic(a, a), cubic(a, b)), _plus(cubic(b, a), cubic(b, b))), own)
    terms = (odd.own / len(own) + odd.others - 2 * between.rows.mean(axis=1)) / (len(own) * own.counts[own.of_rows])
    stderr = None if found.variance is None else float(np.sqrt(found.variance))
    return Difference(found.value, stderr, sign_flip_p(terms), len(a))


def cubic(x: np.ndarray, y: np.ndarray) -> Kernel:
    """KID's kernel of rows of x and rows of y, given by their indices."""
    return lambda i, j: (x[i] @ y[j].T / x.shape[1] + 1) ** 3


def _less(first: Kernel, second: Kernel) -> Kernel:
    return lambda i, j: first(i, j) - second(i, j)


def _plus(first: Kernel, second: Kernel) -> Kernel:
    return lambda i, j: first(i, j) + second(i, j)


def _groups(n: int, prompts: Sequence[str] | None) -> Groups:
    return Groups.of(("",) * n if prompts is None else prompts)


METRIC = SetMetric(
    name="kid",
    place=20,
    measurement=INCEPTION,
    column=Metric("kid", "KID", "lower", per_panorama=False, panel=60, headline=True),
    enough=two_of_every_prompt,
    estimate=lambda x, y, config: kid(x.features, y.features, x.prompts, y.prompts),
    compare=lambda a, b, y, config: kid_difference(a.features, b.features, y.features, a.prompts, y.prompts),
)
