"""Procedural landscapes: the data that the embedded model is trained on.

A `Scene` says everything about one picture; `render` draws it. The same scene drawn at a larger width
is a true panorama: one place, one light.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from experiments.mini import landscapes, places
from experiments.mini.elements import make_paint, sky
from experiments.mini.world import KINDS, STYLES, Scene, sample_scene

__all__ = ["KINDS", "STYLES", "Scene", "render", "render_window", "sample_scene"]

# Training pictures are twice as wide as a window: a window may begin anywhere, as a panorama's do.
WIDE = 2
_DRAW = {kind: getattr(places if hasattr(places, kind) else landscapes, kind) for kind in KINDS}


def render(scene: Scene, size: int = 128, width: int | None = None) -> np.ndarray:
    """Draw a scene: uint8 RGB [size, width or size, 3]."""
    rng = np.random.default_rng(scene.seed)
    paint = make_paint(scene, rng, size)
    line = size * rng.uniform(0.56, 0.68)
    canvas = sky(scene, paint, rng, size, width or size, line)
    canvas = np.clip(_DRAW[scene.kind](canvas, scene, paint, rng, line), 0, 1)
    if scene.style == "anime":
        canvas = _bloom(canvas)
    return np.round(np.clip(canvas, 0, 1) * 255).astype(np.uint8)


def render_window(scene: Scene, rng: np.random.Generator, size: int = 128) -> np.ndarray:
    """A window anywhere in a scene drawn WIDE windows wide: uint8 [size, size, 3]."""
    first, last = scene.window_range(size, WIDE * size)
    left = int(rng.integers(first, last + 1))
    return render(scene, size, WIDE * size)[:, left : left + size]


def _bloom(canvas: np.ndarray) -> np.ndarray:
    """Bright parts bleed softly."""
    height, width = canvas.shape[:2]
    bright = Image.fromarray((np.clip(canvas - 0.6, 0, 1) * 255).astype(np.uint8))
    small = bright.resize((max(2, width // 10), max(2, height // 10)), Image.BOX)
    soft = np.asarray(small.resize(bright.size, Image.BICUBIC)).astype(np.float32) / 255
    return 1 - (1 - canvas) * (1 - soft * 0.6)
