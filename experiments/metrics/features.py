"""Inception features of one random crop of each image: what FID, KID and GIQA look at. Nothing here imports torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.metrics.config import MetricsConfig
from experiments.metrics.crops import random_crop
from experiments.metrics.estimates import ImageSet
from experiments.metrics.metric import Measurement

if TYPE_CHECKING:
    from experiments.metrics.inception import FeatureNetwork
    from experiments.metrics.measure import ImageFile, PanoramaImage


def crop_of(file: ImageFile, config: MetricsConfig) -> np.ndarray:
    """The random crop of an image that the set metrics and the CLIP score look at, (size, size, 3) uint8."""
    return random_crop(file.pixels, config.crop, file.item.prompt, file.item.seed, config.seed)


def crop_parameters(item: PanoramaImage, config: MetricsConfig) -> dict[str, Any]:
    """What decides the place of the random crop; the prompt is also what CLIP compares it with."""
    return {"crop": config.crop, "prompt": item.prompt, "seed": item.seed, "salt": config.seed}


def _features(files: Sequence[ImageFile], network: FeatureNetwork, config: MetricsConfig) -> Sequence[np.ndarray]:
    """(d,) float64 of each."""
    return network.features([crop_of(file, config) for file in files], config.batch)


# version 2: (x - 128) / 128 for the registry's network too; 3: one image at a time, which is another rounding
INCEPTION = Measurement("inception", 3, "inception", crop_parameters, _features)


def two_of_each(generated: ImageSet, reference: ImageSet, config: MetricsConfig) -> bool:
    """Whether both sets have two images."""
    return min(len(generated), len(reference)) > 1


def two_of_every_prompt(generated: ImageSet, reference: ImageSet, config: MetricsConfig) -> bool:
    """Whether both sets have two images of each of their prompts."""
    counts = [count for each in (generated, reference) for count in Counter(each.prompts).values()]
    return two_of_each(generated, reference, config) and min(counts) > 1
