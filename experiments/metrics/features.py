"""Features of one random crop of each image, or of all of its squares: what metrics of sets look at.

Nothing here imports torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.metrics.config import MetricsConfig
from experiments.metrics.crops import grid_crops, random_crop
from experiments.metrics.estimates import ImageSet
from experiments.metrics.metric import Measurement

if TYPE_CHECKING:
    from experiments.metrics.clip_network import ClipNetwork
    from experiments.metrics.inception import FeatureNetwork
    from experiments.metrics.measure import ImageFile, PanoramaImage


def crop_of(file: ImageFile, config: MetricsConfig) -> np.ndarray:
    """The random crop of an image that the set metrics and the CLIP score look at, (size, size, 3) uint8."""
    return random_crop(file.pixels, config.crop, file.item.prompt, file.item.seed, config.seed)


def crop_parameters(item: PanoramaImage, config: MetricsConfig) -> dict[str, Any]:
    """What decides the place of the random crop; the prompt is also what CLIP compares it with."""
    return {"crop": config.crop, "prompt": item.prompt, "seed": item.seed, "salt": config.seed}


def grid_parameters(item: PanoramaImage, config: MetricsConfig) -> dict[str, Any]:
    """What decides the disjoint squares of an image."""
    return {"crop": config.crop}


def _features(files: Sequence[ImageFile], network: FeatureNetwork, config: MetricsConfig) -> Sequence[np.ndarray]:
    """(d,) float64 of each."""
    return network.features([crop_of(file, config) for file in files], config.batch)


# version 2: (x - 128) / 128 for the registry's network too; 3: one image at a time, which is another rounding
INCEPTION = Measurement("inception", 3, "inception", crop_parameters, _features)


def _all_features(files: Sequence[ImageFile], network: FeatureNetwork, config: MetricsConfig) -> Sequence[np.ndarray]:
    """(k, d) float64 of each, of its k disjoint squares; one at a time, so that none depends on its company."""
    return [
        np.concatenate([network.features([crop], 1) for crop in grid_crops(file.pixels, config.crop)]) for file in files
    ]


def _embeddings(files: Sequence[ImageFile], clip: ClipNetwork, config: MetricsConfig) -> Sequence[np.ndarray]:
    """(d,) float64 of each, of unit length."""
    return [row.double().cpu().numpy() for row in clip.embed_images([crop_of(file, config) for file in files])]


INCEPTION_GRID = Measurement("inception_grid", 1, "inception", grid_parameters, _all_features)
DINOV2 = Measurement("dinov2", 1, "dinov2", crop_parameters, _features)
CLIP_IMAGE = Measurement("clip_image", 1, "clip", crop_parameters, _embeddings)


def two_of_each(generated: ImageSet, reference: ImageSet, config: MetricsConfig) -> bool:
    """Whether both sets have two images."""
    return min(len(generated), len(reference)) > 1


def two_of_every_prompt(generated: ImageSet, reference: ImageSet, config: MetricsConfig) -> bool:
    """Whether both sets have two images of each of their prompts."""
    counts = [count for each in (generated, reference) for count in Counter(each.prompts).values()]
    return two_of_each(generated, reference, config) and min(counts) > 1


def rows_of(images: ImageSet) -> np.ndarray:
    """All crops of all images, (rows, d), image by image."""
    return np.concatenate(list(images.features))


def alike(images: ImageSet) -> bool:
    """Whether all have as many crops as the first, as images of one size do."""
    return images.features.dtype != object
