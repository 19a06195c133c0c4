"""KID: the kernel distance between the Inception features of two sets (Binkowski et al., 2018), prompt by prompt."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from experiments.metrics.discrepancies import cubic, squared_mmd, squared_mmd_difference
from experiments.metrics.estimates import Difference, Estimate
from experiments.metrics.features import INCEPTION, two_of_every_prompt
from experiments.metrics.metric import Metric, SetMetric


def kid(
    generated: np.ndarray,
    reference: np.ndarray,
    prompts: Sequence[str] | None = None,
    reference_prompts: Sequence[str] | None = None,
) -> Estimate:
    """Squared MMD with the kernel (x . y / d + 1)^3 of (n, d) and (m, d) features: see `squared_mmd`.

    Without prompts it is the U-statistic of the paper and of clean-fid over all rows (which clean-fid averages over
    random parts).
    """
    return squared_mmd(generated, reference, cubic, prompts, reference_prompts)


def kid_difference(
    a: np.ndarray,
    b: np.ndarray,
    reference: np.ndarray,
    prompts: Sequence[str] | None = None,
    reference_prompts: Sequence[str] | None = None,
) -> Difference:
    """KID of a less KID of b, where row i of both is of the same prompt and noise: see `squared_mmd_difference`."""
    return squared_mmd_difference(a, b, reference, cubic, prompts, reference_prompts)


METRIC = SetMetric(
    name="kid",
    place=20,
    measurement=INCEPTION,
    column=Metric("kid", "KID", "lower", per_panorama=False, panel=60, headline=True),
    enough=two_of_every_prompt,
    estimate=lambda x, y, config: kid(x.features, y.features, x.prompts, y.prompts),
    compare=lambda a, b, y, config: kid_difference(a.features, b.features, y.features, a.prompts, y.prompts),
)
