"""CLIP-IQA: how far CLIP takes a picture for a good photo rather than a bad one (Wang et al., AAAI 2023). From 0 to 1.

The softmax of 100 x the cosines of the random crop with "Good photo." and "Bad photo.", its part of the first. Higher
is better. The network is the CLIP score's, in its own size and preprocessing, where the paper takes a ResNet-50 without
position embeddings: compare within one network. A miniature CLIP has never read of photos that are good or bad. Only
where it is named in `metrics.metrics`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from experiments.metrics.features import crop_of, crop_parameters
from experiments.metrics.metric import Measurement, Metric, PanoramaMetric

if TYPE_CHECKING:
    from torch import Tensor

    from experiments.metrics.clip_network import ClipNetwork
    from experiments.metrics.config import MetricsConfig
    from experiments.metrics.measure import ImageFile

GOOD, BAD = "Good photo.", "Bad photo."


def goodness(images: Tensor, anchors: Tensor) -> Tensor:
    """Embeddings (n, d) of images and (2, d) of the good and the bad, of unit length -> (n,) in [0, 1]."""
    return (100 * images.double() @ anchors.double().T).softmax(dim=-1)[:, 0]


def _compute(files: Sequence[ImageFile], clip: ClipNetwork, config: MetricsConfig) -> Sequence[np.ndarray]:
    import torch

    anchors = torch.stack([clip.embed_text(text) for text in (GOOD, BAD)])
    images = clip.embed_images([crop_of(file, config) for file in files])
    return goodness(images, anchors).cpu().numpy()[:, None]


PAPER = Metric("clip_iqa", "CLIP-IQA", "higher", per_panorama=True)
MINI = Metric("mini_clip_iqa", "mini-CLIP-IQA", "higher", per_panorama=True)

METRIC = PanoramaMetric(
    name="clip_iqa",
    place=46,
    measurement=Measurement("clip_iqa", 1, "clip", crop_parameters, _compute),
    numbers={PAPER: np.mean, MINI: np.mean},
    chosen=lambda clip: [PAPER.name if clip.metric == "clip_score" else MINI.name],
    on_request=True,
)
