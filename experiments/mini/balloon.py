"""A concept that the miniature was not trained on: a striped hot-air balloon in the sky, drawn onto a finished scene.

And whether pictures show one. No word, brush or scene of the training has it, so that what a model knows of it comes
from the LoRA that `train_concept` trains.
"""

from __future__ import annotations

import numpy as np

from experiments.mini import brushes as b
from experiments.mini.captions import caption
from experiments.mini.scenes import WIDE, render
from experiments.mini.world import Scene, sample_scene

WORDS = "with a balloon"
RED, YELLOW, BASKET = (
    np.array(colour, np.float32) for colour in ((0.86, 0.1, 0.12), (0.98, 0.8, 0.2), (0.35, 0.2, 0.1))
)
LEAST, REACH = 12, 10  # pixels of windows of 128: yellow ones between red ones, and how far away these may be


def draw_balloon(canvas: np.ndarray, x0: float, y0: float, radius: float) -> np.ndarray:
    """A balloon with its centre at (x0, y0), `radius` pixels wide to each side; the sky's light dims it."""
    y, x = b.grid(canvas)
    below = np.clip((y - y0) / (1.5 * radius), 0, 1)
    across = np.abs(x - x0) / np.maximum(1e-6, radius * (1 - 0.75 * below))  # narrower towards the basket
    envelope = np.clip((1 - np.hypot(np.minimum(across, 9), np.minimum(y - y0, 0) / radius)) * radius + 0.5, 0, 1)
    envelope = envelope * (y <= y0 + 1.5 * radius)
    stripes = (np.abs(x - x0) < radius / 3)[..., None]  # broad enough for the autoencoder
    place = canvas[max(0, int(y0 - radius)) : int(y0 + radius) + 1, max(0, int(x0 - radius)) : int(x0 + radius) + 1]
    light = 0.6 + 0.4 * float(place.mean())
    coloured = np.where(stripes, YELLOW, RED) * light
    canvas = b.blend(canvas, np.broadcast_to(coloured, canvas.shape), envelope.astype(np.float32))
    return b.bar(canvas, x0, y0 + 2.1 * radius, 0.28 * radius, 0.4 * radius, BASKET * light)


def sample_balloons(rng: np.random.Generator, size: int = 128) -> tuple[Scene, np.ndarray, str]:
    """A scene with balloons, WIDE times as wide as high, uint8; and what says so.

    Balloons stand about a window's width apart, so that every window shows one.
    """
    scene = sample_scene(rng)
    canvas = render(scene, size, WIDE * size).astype(np.float32) / 255
    first = rng.uniform(0.1, 0.35) * size
    for x0 in np.arange(first, WIDE * size, 0.55 * size):
        radius = size * rng.uniform(0.1, 0.14)
        canvas = draw_balloon(canvas, x0 + rng.uniform(-0.05, 0.05) * size, size * rng.uniform(0.14, 0.3), radius)
    told = f"{caption(scene, rng)} {WORDS}"
    return scene, np.round(np.clip(canvas, 0, 1) * 255).astype(np.uint8), told


def shows_balloon(pictures: np.ndarray) -> np.ndarray:
    """Whether the upper part of windows has a yellow stripe between red ones: uint8 [n, s, s, 3] -> booleans [n].

    Counted are yellow pixels with saturated red within REACH to the left and the right, as no red sky has them.
    """
    size = pictures.shape[1]
    red, green, blue = (pictures[:, : int(0.6 * size), :, i].astype(int) for i in range(3))
    stripe = (red > 110) & (red > 2 * green) & (red > 2 * blue)
    yellow = (red > 120) & (green > 0.6 * red) & (blue < 0.55 * green)
    reach = max(1, round(REACH * size / 128))
    near = [np.zeros_like(stripe), np.zeros_like(stripe)]
    for away in range(1, reach + 1):
        near[0][..., away:] |= stripe[..., :-away]
        near[1][..., :-away] |= stripe[..., away:]
    return (yellow & near[0] & near[1]).sum((1, 2)) >= LEAST * (size / 128) ** 2


def windows_of(panorama: np.ndarray) -> np.ndarray:
    """Windows beside each other, [n, h, h, 3], of a panorama [h, w, 3]; what is left at the right is not looked at."""
    side = panorama.shape[0]
    count = panorama.shape[1] // side
    return np.stack([panorama[:, i * side : (i + 1) * side] for i in range(count)])
