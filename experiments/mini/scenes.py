"""Procedural landscapes: the data that the embedded model is trained on.

A `Scene` says everything about one picture; `render` draws it. The same scene drawn at a larger width
is a true panorama: one place, one light.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from experiments.mini import brushes as b
from experiments.mini.palettes import SEASONS, SKIES, Palette, rgb

KINDS = ("mountains", "peak", "forest", "city", "meadow", "lake")
STYLES = ("photo", "cartoon", "anime")


@dataclass(frozen=True)
class Scene:
    """One picture of the procedural world."""

    kind: str  # one of KINDS
    time: str  # a key of SKIES
    palette: int  # which of SKIES[time]
    season: str  # a key of SEASONS
    tones: int  # which of SEASONS[season]
    style: str  # one of STYLES
    sun: bool  # sun by day, moon by night
    clouds: float  # 0 none … 1 covered
    mist: float  # 0 none … 1 thick
    seed: int  # shapes

    @property
    def look(self) -> Palette:
        return SKIES[self.time][self.palette]


def sample_scene(
    rng: np.random.Generator,
    kind: str | None = None,
    time: str | None = None,
    season: str | None = None,
    style: str | None = None,
    mist: float | None = None,
) -> Scene:
    """A random scene; what is given stays fixed."""

    def choose(names) -> str:
        return names[int(rng.integers(len(names)))]

    time = time or choose(list(SKIES))
    season = season or choose(list(SEASONS))
    kind = kind or choose(KINDS)
    thick = (0.35, 0.9) if kind == "forest" else (0.1, 0.5)
    return Scene(
        kind=kind,
        time=time,
        palette=int(rng.integers(len(SKIES[time]))),
        season=season,
        tones=int(rng.integers(len(SEASONS[season]))),
        style=style or str(rng.choice(STYLES, p=(0.6, 0.2, 0.2))),
        sun=bool(rng.random() < 0.35) and time != "overcast",
        clouds=float(rng.choice([0.0, rng.uniform(0.2, 0.9)], p=(0.3, 0.7))),
        mist=float(rng.choice([0.0, rng.uniform(*thick)], p=(0.6, 0.4))) if mist is None else mist,
        seed=int(rng.integers(2**31)),
    )


@dataclass(frozen=True)
class _Paint:
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
    outline: np.ndarray | None  # cartoon's pen
    unit: float  # pixels of the height / 128
    side: float  # where light comes from: -1 left, 1 right

    def layer(self, nearness: float) -> np.ndarray:
        """Aerial perspective: from the far colour (0) to the near one (1)."""
        return self.far + (self.near - self.far) * nearness


def _paint(scene: Scene, rng: np.random.Generator, size: int) -> _Paint:
    look, tones = scene.look, SEASONS[scene.season][scene.tones]
    shift, gain = rng.normal(0, 0.018, 3).astype(np.float32), float(rng.uniform(0.94, 1.06))
    ambient = rgb(look.ambient)

    def jitter(code: str, by=1.0) -> np.ndarray:
        colour = np.clip(rgb(code) * by * gain + shift, 0, 1)
        if scene.style != "photo":  # both drawn styles are more saturated
            colour = np.clip(colour.mean() + (colour - colour.mean()) * 1.25 + 0.01, 0, 1)
        return colour.astype(np.float32)

    near = jitter(look.near)
    return _Paint(
        *(jitter(code) for code in (look.top, look.middle, look.horizon, look.far)),
        near=near,
        light=jitter(look.light),
        cloud=jitter(look.cloud),
        meadow=jitter(tones[0], ambient),
        leaf=jitter(tones[1], ambient),
        accent=jitter(tones[2], ambient),
        snow=jitter("#f4f8fc", 0.25 + 0.75 * ambient),
        outline=near * 0.35 if scene.style == "cartoon" else None,
        unit=size / 128,
        side=float(rng.choice([-1.0, 1.0])),
    )


def _sky(scene: Scene, p: _Paint, rng: np.random.Generator, height: int, width: int, line: float) -> np.ndarray:
    u = p.unit
    canvas = b.sky(height, width, p.top, p.middle, p.horizon, line, bend=rng.uniform(0.8, 1.4))
    dark = scene.time == "night" or (scene.time == "twilight" and rng.random() < 0.4)
    if dark:
        canvas = b.stars(canvas, rng, int(rng.integers(18, 55) * width / height), line, p.light)
    if scene.sun:
        x0, y0 = rng.uniform(0.08, 0.92) * width, line * rng.uniform(0.18, 0.85)
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


def _stroke(canvas: np.ndarray, p: _Paint, scene: Scene, line: np.ndarray) -> np.ndarray:
    """The pen along a skyline: dark in cartoons, a rim of light in anime, none in photos."""
    if scene.style == "photo":
        return canvas
    edge = b.below(canvas, line) * (1 - b.below(canvas, line + 1.6 * p.unit))
    return b.blend(
        canvas, p.outline if p.outline is not None else p.light, edge * (0.8 if p.outline is not None else 0.5)
    )


def _ranges(
    canvas,
    scene: Scene,
    p: _Paint,
    rng,
    line: float,
    count: int,
    tall: float,
    snow: float,
    reach: float,
    folds=(1.6, 2.8),
):
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
        canvas = _stroke(canvas, p, scene, sky_line)
        if scene.mist:
            canvas = b.haze(canvas, rng, p.horizon, base + 4 * p.unit, 10 * p.unit, scene.mist)
    return canvas


def _ground(canvas, scene: Scene, p: _Paint, rng, base: float, colour, roll: float):
    """Rolling ground below y = `base`, lighter towards the viewer, with furrows of noise."""
    height, width = canvas.shape[:2]
    line = b.ridge(rng, width, base, roll * p.unit, False, 1.5 * width / height)
    y, _ = b.grid(canvas)
    near = np.clip((y - base) / (height - base), 0, 1)[..., None]
    texture = b.fbm(rng, height, width, 22, 4)[..., None]
    tone = np.clip(colour * (0.72 + 0.36 * near) * (1 + 0.07 * texture), 0, 1)
    return _stroke(b.blend(canvas, tone, b.below(canvas, line)), p, scene, line), line


def _trees(canvas, scene: Scene, p: _Paint, rng, line, count: int, size: float):
    """Single trees with round crowns, on `line`, smaller ones first."""
    width = canvas.shape[1]
    trunk = p.near * 0.6
    bright = np.clip(p.leaf + (p.light - p.leaf) * 0.45, 0, 1)
    for scale in sorted(rng.uniform(0.5, 1.2, count)):
        x0 = rng.uniform(0, width)
        foot = line[int(x0)] + scale * size * 0.5
        canvas = b.leafy(canvas, rng, x0, foot, size * scale, p.leaf, bright, trunk, p.outline)
    return canvas


def _flowers(canvas, p: _Paint, rng, top: float, count: int):
    height, width = canvas.shape[:2]
    for y0 in sorted(top + (height - top) * rng.random(count) ** 0.7):
        nearness = (y0 - top) / (height - top)
        canvas = b.spot(canvas, rng.uniform(0, width), y0, p.unit * (0.7 + 1.3 * nearness), p.accent, flat=0.8)
    return canvas


def _skiers(canvas, p: _Paint, rng, top: float, count: int):
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


def _mountains(canvas, scene, p, rng, line):
    height, width = canvas.shape[:2]
    snow = 26 if scene.season == "winter" else float(rng.choice([0, 9, 14]))
    canvas = _ranges(canvas, scene, p, rng, line, int(rng.integers(3, 5)), rng.uniform(15, 24) * p.unit, snow, 1.0)
    ground = p.snow * 0.96 if scene.season == "winter" else p.meadow * 0.55 + p.near * 0.45
    canvas, foot = _ground(canvas, scene, p, rng, height * rng.uniform(0.76, 0.88), ground, 3)
    if rng.random() < 0.5:
        tree = p.near * 0.55 + p.leaf * (0.25 if scene.season != "winter" else 0.05)
        canvas = b.conifers(canvas, rng, foot + 3, 15 * p.unit, tree, tree * 1.35, 7 * p.unit)
    return canvas


def _peak(canvas, scene, p, rng, line):
    height, width = canvas.shape[:2]
    canvas = _ranges(canvas, scene, p, rng, line, 2, rng.uniform(21, 29) * p.unit, 40, 0.55, folds=(0.6, 1.3))
    canvas, foot = _ground(canvas, scene, p, rng, height * rng.uniform(0.6, 0.68), p.snow, 4)
    tree = p.near * 0.7 + p.leaf * 0.1
    canvas = b.conifers(canvas, rng, foot + 2, 13 * p.unit, tree, tree * 1.3, rng.uniform(7, 22) * p.unit)
    return _skiers(canvas, p, rng, height * 0.66, int(rng.integers(2, 5) * width / height))


def _forest(canvas, scene, p, rng, line):
    height, width = canvas.shape[:2]
    canvas = _ranges(canvas, scene, p, rng, line, 1, 12 * p.unit, 0, 0.15)
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


def _city(canvas, scene, p, rng, line):
    height, width = canvas.shape[:2]
    dark = scene.time in ("night", "twilight")
    base = int(height * rng.uniform(0.74, 0.84))
    canvas = _ranges(canvas, scene, p, rng, line, 1, 8 * p.unit, 0, 0.2)
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
    return _ground(canvas, scene, p, rng, base, street, 0.3)[0]


def _meadow(canvas, scene, p, rng, line):
    height, width = canvas.shape[:2]
    if rng.random() < 0.5:
        canvas = _ranges(canvas, scene, p, rng, line, 2, 11 * p.unit, 0 if scene.season != "winter" else 9, 0.5)
    for i in range(3):
        base = line + (height - line) * (0.08 + 0.27 * i)
        green = p.far + (p.meadow * (0.8 + 0.1 * i) - p.far) * (0.55 + 0.22 * i)
        canvas, foot = _ground(canvas, scene, p, rng, base, green, 4.5)
        count = int(rng.integers(1, 5) * width / height)
        canvas = _trees(canvas, scene, p, rng, foot, count, (9 + 9 * i) * p.unit)
    if scene.season in ("spring", "summer"):
        canvas = _flowers(canvas, p, rng, height * 0.72, int(rng.integers(20, 60) * width / height))
    return canvas


def _lake(canvas, scene, p, rng, line):
    height, width = canvas.shape[:2]
    snow = 22 if scene.season == "winter" else float(rng.choice([0, 10]))
    canvas = _ranges(
        canvas, scene, p, rng, line - 4 * p.unit, int(rng.integers(2, 4)), rng.uniform(11, 19) * p.unit, snow, 0.9
    )
    shore = int(height * rng.uniform(0.62, 0.72))
    bank = np.full(width, shore - 1.5, np.float32)
    green = p.leaf * 0.45 + p.near * 0.4
    canvas = b.blend(canvas, green, b.below(canvas, bank - 2 * p.unit))
    canvas = b.conifers(canvas, rng, bank, 10 * p.unit, green, green * 1.3, rng.uniform(4, 12) * p.unit)
    return b.water(canvas, rng, shore, p.top * 0.5 + p.middle * 0.3, 0.35, 3.5 * p.unit)


_DRAW = {"mountains": _mountains, "peak": _peak, "forest": _forest, "city": _city, "meadow": _meadow, "lake": _lake}


def render(scene: Scene, size: int = 128, width: int | None = None) -> np.ndarray:
    """Draw a scene: uint8 RGB [size, width or size, 3]."""
    rng = np.random.default_rng(scene.seed)
    paint = _paint(scene, rng, size)
    line = size * rng.uniform(0.56, 0.68)
    canvas = _sky(scene, paint, rng, size, width or size, line)
    canvas = np.clip(_DRAW[scene.kind](canvas, scene, paint, rng, line), 0, 1)
    if scene.style == "anime":  # bloom: bright parts bleed softly
        bright = Image.fromarray((np.clip(canvas - 0.6, 0, 1) * 255).astype(np.uint8))
        soft = np.asarray(
            bright.resize((max(2, canvas.shape[1] // 10), max(2, size // 10)), Image.BOX).resize(
                bright.size, Image.BICUBIC
            )
        )
        canvas = 1 - (1 - canvas) * (1 - soft.astype(np.float32) / 255 * 0.6)
    return np.round(np.clip(canvas, 0, 1) * 255).astype(np.uint8)
