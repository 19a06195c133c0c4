"""CMMD: 1000 x squared MMD, Gaussian kernel of sigma 10, between CLIP embeddings (Jayasumana et al., CVPR 2024).

From 0, lower is better; without bias, so it may be negative. The embeddings are of unit length, of the random crops of
KID. The paper looks through CLIP ViT-L/14@336 and takes the estimate with each image's kernel with itself: compare with
no number of its own. The network is that of the CLIP score, and named beside the number; through a miniature CLIP it
tells of the miniature's own pictures alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from experiments.metrics.config import MetricsConfig
from experiments.metrics.discrepancies import gaussian, squared_mmd, squared_mmd_difference
from experiments.metrics.estimates import Difference, Estimate, ImageSet
from experiments.metrics.features import CLIP_IMAGE, two_of_every_prompt
from experiments.metrics.metric import Metric, SetMetric

SIGMA, SCALE = 10.0, 1000.0
NOTE = (
    "CMMD is the unbiased estimate, times 1000, through the CLIP that is named here, not the ViT-L/14@336 of its paper."
)


def cmmd(
    generated: np.ndarray,
    reference: np.ndarray,
    prompts: Sequence[str] | None = None,
    reference_prompts: Sequence[str] | None = None,
) -> Estimate:
    """Of embeddings (n, d) and (m, d); see `squared_mmd`."""
    found = squared_mmd(generated, reference, gaussian(SIGMA), prompts, reference_prompts)
    return Estimate(SCALE * found.value, None if found.stderr is None else SCALE * found.stderr)


def _compare(a: ImageSet, b: ImageSet, y: ImageSet, config: MetricsConfig) -> Difference:
    kernel = gaussian(SIGMA)
    found = squared_mmd_difference(a.features, b.features, y.features, kernel, a.prompts, y.prompts)
    return Difference(SCALE * found.value, None if found.stderr is None else SCALE * found.stderr, found.p, found.n)


METRIC = SetMetric(
    name="cmmd",
    place=24,
    measurement=CLIP_IMAGE,
    column=Metric("cmmd", "CMMD", "lower", per_panorama=False, note=NOTE),
    enough=two_of_every_prompt,
    estimate=lambda x, y, config: cmmd(x.features, y.features, x.prompts, y.prompts),
    compare=_compare,
    on_request=True,
)
