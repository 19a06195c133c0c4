"""Six landscapes: mountains, ski slope, forest, city, meadow, lake.

Each function draws what stands below the sky onto a canvas float32 [height, width, 3] and returns it; `line` is the
height of the horizon in pixels from the top.
"""

from __future__ import annotations

import numpy as np

from experiments.mini import brushes as b
from experiments.mini.elements import Paint, ground, ranges, trees
from experiments.mini.palettes import rgb
from experiments.mini.world import Scene


def flowers(canvas, p: Paint, rng, top: float, count: int):
    height, width = canvas.shape[:2]
    for y0 in sorted(top + (height - top) * rng.random(count) ** 0.7):
        nearness = (y0 - top) / (height - top)
        canvas = b.spot(canvas, rng.uniform(0, width), y0, p.unit * (0.7 + 1.3 * nearness), p.accent, flat=0.8)
    return canvas


def skiers(canvas, p: Paint, rng, top: float, count: int):
    """Skiers on the slope: coat, head, legs, and the track behind each."""
    height, width = canvas.shape[:2]
    coats = [rgb(code) for code in ("#d8262c", "#1f55c8", "#e8a11c", "#1a1a22", "#18924c", "#c22fa0")]
    for y0 in sorted(rng.uniform(top + 8, height - 8, count)):
        x0, unit = rng.uniform(4, width - 4), p.unit * (0.75 + 0.9 * (y0 - top) / (height - top))
        way = rng.choice([-1.0, 1.0])
        for step in np.arange(2, 26, 1.5):
            canvas = b.spot(
                canvas, x0 + way * step * unit, y0 - (step * 0.55 - 3) * unit, 0.6 * unit, p.snow * 0.74, 0.8
            )
        coat = coats[int(rng.integers(len(coats)))]
        canvas = b.spot(canvas, x0, y0 + 2.4 * unit, 1.1 * unit, p.near * 0.5, flat=1.3)
        canvas = b.spot(canvas, x0, y0, 1.6 * unit, coat, flat=1.4)
        canvas = b.spot(canvas, x0, y0 - 2.9 * unit, 1.0 * unit, rgb("#3a2a22"))
        canvas = b.spot(canvas, x0 - way * unit, y0 + 3.9 * unit, 2.6 * unit, p.near * 0.4, flat=0.2)
    return canvas


def mountains(canvas: np.ndarray, scene: Scene, p: Paint, rng: np.random.Generator, line: float) -> np.ndarray:
    height, width = canvas.shape[:2]
    snow = 26 if scene.season == "winter" else float(rng.choice([0, 9, 14]))
    canvas = ranges(canvas, scene, p, rng, line, int(rng.integers(3, 5)), rng.uniform(15, 24) * p.unit, snow, 1.0)
    soil = p.snow * 0.96 if scene.season == "winter" else p.meadow * 0.55 + p.near * 0.45
    canvas, foot = ground(canvas, scene, p, rng, height * rng.uniform(0.76, 0.88), soil, 3)
    if rng.random() < 0.5:
        tree = p.near * 0.55 + p.leaf * (0.25 if scene.season != "winter" else 0.05)
        canvas = b.conifers(canvas, rng, foot + 3, 15 * p.unit, tree, tree * 1.35, 7 * p.unit)
    return canvas


def peak(canvas: np.ndarray, scene: Scene, p: Paint, rng: np.random.Generator, line: float) -> np.ndarray:
    height, width = canvas.shape[:2]
    canvas = ranges(canvas, scene, p, rng, line, 2, rng.uniform(21, 29) * p.unit, 40, 0.55, folds=(0.6, 1.3))
    canvas, foot = ground(canvas, scene, p, rng, height * rng.uniform(0.6, 0.68), p.snow, 4)
    tree = p.near * 0.7 + p.leaf * 0.1
    canvas = b.conifers(canvas, rng, foot + 2, 13 * p.unit, tree, tree * 1.3, rng.uniform(7, 22) * p.unit)
    return skiers(canvas, p, rng, height * 0.66, int(rng.integers(2, 5) * width / height))


def forest(canvas: np.ndarray, scene: Scene, p: Paint, rng: np.random.Generator, line: float) -> np.ndarray:
    height, width = canvas.shape[:2]
    canvas = ranges(canvas, scene, p, rng, line, 1, 12 * p.unit, 0, 0.15)
    rows = int(rng.integers(3, 6))
    green = p.leaf * 0.55 + p.near * 0.45
    fog = p.horizon * 0.8 + p.cloud * 0.2
    for i in range(rows):
        nearness = (i + 0.7) / rows
        base = line + (height * 0.97 - line) * nearness**1.2
        foot = b.ridge(rng, width, base, 2.5 * p.unit, False, 2 * width / height)
        tone = p.far + (green * (0.95 - 0.35 * nearness) - p.far) * nearness**0.7
        canvas = b.blend(canvas, tone * 0.92, b.below(canvas, foot - 2))
        bright = np.clip(tone + (p.light - tone) * 0.2, 0, 1)
        size = (15 + 25 * nearness) * p.unit
        canvas = b.conifers(canvas, rng, foot, size, tone, bright, size * rng.uniform(0.24, 0.42))
        canvas = b.haze(
            canvas, rng, fog, base + 2, (7 + 8 * nearness) * p.unit, (0.15 + scene.mist) * (1 - 0.45 * nearness)
        )
    return canvas


def city(canvas: np.ndarray, scene: Scene, p: Paint, rng: np.random.Generator, line: float) -> np.ndarray:
    height, width = canvas.shape[:2]
    dark = scene.time in ("night", "twilight")
    base = int(height * rng.uniform(0.74, 0.84))
    canvas = ranges(canvas, scene, p, rng, line, 1, 8 * p.unit, 0, 0.2)
    for nearness in (0.25, 0.6, 1.0):
        wall = p.layer(nearness)
        if not dark:
            wall = wall * 0.7 + 0.3 * (p.meadow if nearness == 0.6 else p.leaf)
        lamp = np.clip(p.light * (0.45 + 0.55 * nearness), 0, 1)
        tall = (58 - 16 * nearness) * p.unit
        lit = (0.55 if dark else 0.12) * (0.3 + 0.7 * nearness)
        canvas = b.buildings(canvas, rng, base, tall, (9 + 7 * nearness) * p.unit, wall, lamp, lit, p.outline)
        if scene.mist:
            canvas = b.haze(canvas, rng, p.horizon, base, 14 * p.unit, scene.mist * (1 - nearness))
    if rng.random() < 0.6:
        return b.water(canvas, rng, base, p.near * 0.9 + p.top * 0.1, 0.45, 3 * p.unit)
    street = p.near * 0.8 if scene.season != "winter" else p.snow * 0.8
    return ground(canvas, scene, p, rng, base, street, 0.3)[0]


def meadow(canvas: np.ndarray, scene: Scene, p: Paint, rng: np.random.Generator, line: float) -> np.ndarray:
    height, width = canvas.shape[:2]
    if rng.random() < 0.5:
        canvas = ranges(canvas, scene, p, rng, line, 2, 11 * p.unit, 0 if scene.season != "winter" else 9, 0.5)
    for i in range(3):
        base = line + (height - line) * (0.08 + 0.27 * i)
        green = p.far + (p.meadow * (0.8 + 0.1 * i) - p.far) * (0.55 + 0.22 * i)
        canvas, foot = ground(canvas, scene, p, rng, base, green, 4.5)
        count = int(rng.integers(1, 5) * width / height)
        canvas = trees(canvas, scene, p, rng, foot, count, (9 + 9 * i) * p.unit)
    if scene.season in ("spring", "summer"):
        canvas = flowers(canvas, p, rng, height * 0.72, int(rng.integers(20, 60) * width / height))
    return canvas


def lake(canvas: np.ndarray, scene: Scene, p: Paint, rng: np.random.Generator, line: float) -> np.ndarray:
    height, width = canvas.shape[:2]
    snow = 22 if scene.season == "winter" else float(rng.choice([0, 10]))
    canvas = ranges(
        canvas, scene, p, rng, line - 4 * p.unit, int(rng.integers(2, 4)), rng.uniform(11, 19) * p.unit, snow, 0.9
    )
    shore = int(height * rng.uniform(0.62, 0.72))
    bank = np.full(width, shore - 1.5, np.float32)
    green = p.leaf * 0.45 + p.near * 0.4
    canvas = b.blend(canvas, green, b.below(canvas, bank - 2 * p.unit))
    canvas = b.conifers(canvas, rng, bank, 10 * p.unit, green, green * 1.3, rng.uniform(4, 12) * p.unit)
    return b.water(canvas, rng, shore, p.top * 0.5 + p.middle * 0.3, 0.35, 3.5 * p.unit)
