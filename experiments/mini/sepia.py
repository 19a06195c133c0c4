"""A look that the miniature was not trained on: any scene as an old photograph, in the browns of sepia.

And whether pictures have it. No palette of the training does, so that what a model knows of it comes from the Custom
Diffusion that `train_look` trains.
"""

from __future__ import annotations

import numpy as np

from experiments.metrics.definitions.layout_lpips import LUMA
from experiments.mini.captions import caption
from experiments.mini.scenes import WIDE, render
from experiments.mini.world import sample_scene

TOKEN = "<sepia>"
SHADE, LIGHT = np.array((0.15, 0.07, 0.02)), np.array((1.0, 0.92, 0.74))  # what black and white become
NEAR = 0.02  # mean distance of a channel to the browns, of 1, up to which a window has the look


def sepia(picture: np.ndarray) -> np.ndarray:
    """The picture in browns: uint8 [..., h, w, 3] -> the same."""
    luma = (picture / 255.0 @ LUMA)[..., None]
    return np.round(255 * (SHADE + luma * (LIGHT - SHADE))).astype(np.uint8)


def is_sepia(pictures: np.ndarray) -> np.ndarray:
    """Whether windows have no colours but the browns of their own brightness: uint8 [n, h, w, 3] -> booleans [n]."""
    values = pictures / 255.0
    share = (values @ LUMA - SHADE @ LUMA) / ((LIGHT - SHADE) @ LUMA)
    browns = SHADE + share.clip(0, 1)[..., None] * (LIGHT - SHADE)
    return np.abs(values - browns).mean(axis=(1, 2, 3)) <= NEAR


def sample_look(rng: np.random.Generator, looks: bool, size: int = 128) -> tuple[np.ndarray, str]:
    """A scene, WIDE times as wide as high, uint8 [size, WIDE · size, 3], in browns or as it is, and its caption."""
    scene = sample_scene(rng)
    picture, told = render(scene, size, WIDE * size), caption(scene, rng)
    return (sepia(picture), f"{TOKEN} {told}") if looks else (picture, told)
