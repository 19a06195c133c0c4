"""What several landscapes share: the colours of a scene, its sky, ranges, ground, trees and houses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from experiments.mini import brushes as b
from experiments.mini.palettes import SEASONS, rgb
from experiments.mini.world import Scene


@dataclass(frozen=True)
class Paint:
    """Colours of a scene after jitter, and the pens of its style."""

    top: np.ndarray
    middle: np.ndarray
    horizon: np.ndarray
    far: np.ndarray
    near: np.ndarray
    light: np.ndarray
    cloud: np.ndarray
    meadow: np.ndarray
    leaf: np.ndarray
    accent: np.ndarray
    snow: np.ndarray
    ambient: np.ndarray  # multiplies what has a colour of its own
    outline: np.ndarray | None  # cartoon's pen
    unit: float  # pixels of the height / 128
    side: float  # where light comes from: -1 left, 1 right

    def lit(self, code: str) -> np.ndarray:
        """A colour of things, '#rrggbb' in white light, as it looks in this scene's light."""
        return rgb(code) * self.ambient

    def layer(self, nearness: float) -> np.ndarray:
        """Aerial perspective: from the far colour (0) to the near one (1)."""
        return self.far + (self.near - self.far) * nearness


def make_paint(scene: Scene, rng: np.random.Generator, size: int) -> Paint:
    """The colours of a scene, shifted a little for every scene, for a picture of `size` pixels' height."""
    look, tones = scene.look, SEASONS[scene.season][scene.tones]
    shift, gain = rng.normal(0, 0.018, 3).astype(np.float32), float(rng.uniform(0.94, 1.06))
    ambient = rgb(look.ambient)

    def jitter(code: str, by=1.0) -> np.ndarray:
        colour = np.clip(rgb(code) * by * gain + shift, 0, 1)
        if scene.style != "photo":  # both drawn styles are more saturated
            colour = np.clip(colour.mean() + (colour - colour.mean()) * 1.25 + 0.01, 0, 1)
        return colour.astype(np.float32)

    near = jitter(look.near)
    return Paint(
        *(jitter(code) for code in (look.top, look.middle, look.horizon, look.far)),
        near=near,
        light=jitter(look.light),
        cloud=jitter(look.cloud),
        meadow=jitter(tones[0], ambient),
        leaf=jitter(tones[1], ambient),
        accent=jitter(tones[2], ambient),
        snow=jitter("#f4f8fc", 0.25 + 0.75 * ambient),
        ambient=np.clip(ambient * gain, 0, 1),
        outline=near * 0.35 if scene.style == "cartoon" else None,
        unit=size / 128,
        side=float(rng.choice([-1.0, 1.0])),
    )


def sky(scene: Scene, p: Paint, rng: np.random.Generator, height: int, width: int, line: float) -> np.ndarray:
    """Canvas of the sky: gradient, stars, northern lights, sun or moon, clouds; horizon at y = `line` pixels."""
    u = p.unit
    canvas = b.sky(height, width, p.top, p.middle, p.horizon, line, bend=rng.uniform(0.8, 1.4))
    dark = scene.time == "night" or (scene.time == "twilight" and rng.random() < 0.4)
    if dark:
        canvas = b.stars(canvas, rng, int(rng.integers(18, 55) * width / height), line, p.light)
    if scene.aurora:
        canvas = b.aurora(canvas, rng, line)
    if scene.sun is not None:
        x0, y0 = scene.sun * width, line * rng.uniform(0.18, 0.85)
        radius = u * rng.uniform(5, 9)
        canvas = b.glow(canvas, x0, y0, radius * rng.uniform(1.5, 3.5), p.light, 0.6)
        canvas = b.blend(canvas, p.light, b.disc(canvas, x0, y0, radius))
        if p.outline is not None:
            canvas = b.glow(canvas, x0, y0, radius * 0.6, p.light, 0.5)
    if scene.clouds and scene.style == "photo":
        canvas = b.wisps(canvas, rng, p.cloud, scene.clouds, line)
    elif scene.clouds:
        count = int(np.ceil(scene.clouds * (4 if scene.style == "cartoon" else 3) * width / height))
        shade = p.cloud * 0.55 + p.middle * 0.45
        size = u * (13 if scene.style == "cartoon" else 22)
        pen = p.outline * 0.5 + p.middle * 0.5 if p.outline is not None else None
        canvas = b.puffs(canvas, rng, p.cloud, shade, count, line, size, pen)
    return canvas


def stroke(canvas: np.ndarray, p: Paint, scene: Scene, line: np.ndarray) -> np.ndarray:
    """The pen along a skyline: dark in cartoons, a rim of light in anime, none in photos."""
    if scene.style == "photo":
        return canvas
    edge = b.below(canvas, line) * (1 - b.below(canvas, line + 1.6 * p.unit))
    return b.blend(
        canvas, p.outline if p.outline is not None else p.light, edge * (0.8 if p.outline is not None else 0.5)
    )


def ranges(
    canvas: np.ndarray,
    scene: Scene,
    p: Paint,
    rng: np.random.Generator,
    line: float,
    count: int,
    tall: float,
    snow: float,
    reach: float,
    folds: tuple[float, float] = (1.6, 2.8),
) -> np.ndarray:
    """`count` mountain ranges from far to near, the nearest `reach` of the way to the near colour.

    `folds` bounds the number of folds per picture height: few make broad massifs, many a jagged chain.
    """
    width = canvas.shape[1]
    cells = width / canvas.shape[0]
    for i in range(count):
        nearness = reach * (i + 0.6) / count
        base = line + p.unit * (10 * i / max(1, count - 1) - 2)
        sky_line = b.ridge(
            rng, width, base, tall * (1 - 0.32 * i / count) * rng.uniform(0.8, 1.15), True, cells * rng.uniform(*folds)
        )
        dark = p.layer(nearness)
        bright = np.clip(dark + (p.light - dark) * (0.16 + 0.16 * nearness), 0, 1)
        deep = snow * p.unit * (1 - 0.5 * i / count)
        canvas = b.rock(canvas, rng, sky_line, dark, bright, p.snow, deep, p.side)
        canvas = stroke(canvas, p, scene, sky_line)
        if scene.mist:
            canvas = b.haze(canvas, rng, p.horizon, base + 4 * p.unit, 10 * p.unit, scene.mist)
    return canvas


def ground(
    canvas: np.ndarray, scene: Scene, p: Paint, rng: np.random.Generator, base: float, colour: np.ndarray, roll: float
) -> tuple[np.ndarray, np.ndarray]:
    """Rolling ground below y = `base`, lighter towards the viewer, with furrows of noise; and its skyline."""
    height, width = canvas.shape[:2]
    line = b.ridge(rng, width, base, roll * p.unit, False, 1.5 * width / height)
    y, _ = b.grid(canvas)
    near = np.clip((y - base) / (height - base), 0, 1)[..., None]
    texture = b.fbm(rng, height, width, 22, 4)[..., None]
    tone = np.clip(colour * (0.72 + 0.36 * near) * (1 + 0.07 * texture), 0, 1)
    return stroke(b.blend(canvas, tone, b.below(canvas, line)), p, scene, line), line


def trees(
    canvas: np.ndarray, scene: Scene, p: Paint, rng: np.random.Generator, line: np.ndarray, count: int, size: float
) -> np.ndarray:
    """Single trees with round crowns, on `line`, smaller ones first."""
    width = canvas.shape[1]
    trunk = p.near * 0.6
    bright = np.clip(p.leaf + (p.light - p.leaf) * 0.45, 0, 1)
    for scale in sorted(rng.uniform(0.5, 1.2, count)):
        x0 = rng.uniform(0, width)
        foot = line[int(x0)] + scale * size * 0.5
        canvas = b.leafy(canvas, rng, x0, foot, size * scale, p.leaf, bright, trunk, p.outline)
    return canvas
