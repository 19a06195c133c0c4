"""CLIP score: 100 x cosine between a crop and its prompt (Hessel et al., 2021), through open_clip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from experiments.metrics.config import MetricsConfig
from experiments.metrics.features import crop_of, crop_parameters
from experiments.metrics.metric import Measurement, Metric, PanoramaMetric

if TYPE_CHECKING:
    from experiments.metrics.clip_network import ClipNetwork
    from experiments.metrics.measure import ImageFile


def clip_scores(clip: ClipNetwork, crops: Sequence[np.ndarray], prompts: Sequence[str], batch: int) -> np.ndarray:
    """100 x cosine of each crop with its own prompt, (n,) float64 (Hessel et al., 2021, unclipped)."""
    import torch

    texts = {prompt: clip.embed_text(prompt) for prompt in dict.fromkeys(prompts)}
    scores = []
    for start in range(0, len(crops), batch):
        images = clip.embed_images(crops[start : start + batch])
        own = torch.stack([texts[prompt] for prompt in prompts[start : start + batch]])
        scores.append(100 * (images.double() * own.double()).sum(dim=-1))
    return torch.cat(scores).cpu().numpy()


def scores_of(files: Sequence[ImageFile], clip: ClipNetwork, config: MetricsConfig) -> Sequence[np.ndarray]:
    """The score (1,) of each file's random crop and its prompt."""
    crops = [crop_of(file, config) for file in files]
    return clip_scores(clip, crops, [file.item.prompt for file in files], config.batch)[:, None]


PAPER = Metric("clip_score", "CLIP score", "higher", per_panorama=True, panel=40)
# a miniature CLIP's score must never pass for OpenAI's
MINI = Metric("mini_clip_score", "mini-CLIP score", "higher", per_panorama=True, panel=50, published_as="clip_score")

METRIC = PanoramaMetric(
    name="clip_score",
    place=40,
    # version 2: one image and one prompt at a time, which is another rounding
    measurement=Measurement("clip", 2, "clip", crop_parameters, scores_of),
    numbers={PAPER: np.mean, MINI: np.mean},
    chosen=lambda clip: [clip.metric],
)
