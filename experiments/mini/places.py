"""Four more places: beach, desert, village, open sea. Conventions as in `landscapes`."""

from __future__ import annotations

import numpy as np

from experiments.mini import brushes as b
from experiments.mini.elements import Paint, ground, ranges, stroke, trees
from experiments.mini.world import Scene

_PARASOLS = ("#e23b3b", "#f2c230", "#2f7fd6", "#f28cae", "#27a36a", "#f47b2a")
_WALLS = ("#f1e6cf", "#e8d2a6", "#d99a6c", "#f6f3ec", "#c9705a", "#b9c7cf")
_ROOFS = ("#a8402f", "#7d3b2c", "#5b5f68", "#8a5a35", "#3f5a6b")


def _sea(canvas: np.ndarray, p: Paint, rng: np.random.Generator, top: int, strength: float) -> np.ndarray:
    """Water from row `top` down: the sky's mirror with a tint of its own, green-blue where light falls through."""
    own = p.lit(str(rng.choice(["#1f7f9c", "#2aa7a8", "#2b5f94", "#3f9fc0"])))
    return b.water(canvas, rng, top, own * 0.75 + p.near * 0.25, strength, 3 * p.unit)


def _boats(canvas: np.ndarray, p: Paint, rng: np.random.Generator, top: float, bottom: float, count: int) -> np.ndarray:
    """Sailing boats on the water between two rows, far ones smaller."""
    height, width = canvas.shape[:2]
    sails = [p.snow, p.lit("#f3e3c0"), p.lit("#e05a45"), p.lit("#f0b840")]
    for y0 in sorted(rng.uniform(top, bottom, count)):
        near = (y0 - top) / max(1.0, height - top)
        tall, x0 = p.unit * (7 + 24 * near) * rng.uniform(0.85, 1.2), rng.uniform(0, width)
        sail = sails[int(rng.integers(len(sails)))]
        hull = p.near * 0.5
        lean = rng.choice([-1.0, 1.0])
        foot = y0 - 0.16 * tall
        canvas = b.triangle(canvas, x0 + lean * 0.04 * tall, foot, lean * 0.42 * tall, 0.85 * tall, sail)
        canvas = b.triangle(canvas, x0 - lean * 0.04 * tall, foot, -lean * 0.26 * tall, 0.7 * tall, sail * 0.85)
        for step in np.linspace(-0.4, 0.4, 9):
            sag = 0.05 * tall * (1 - (step / 0.4) ** 2)
            canvas = b.spot(canvas, x0 + step * tall, y0 - 0.08 * tall + sag, max(0.8, 0.06 * tall), hull)
    return canvas


def _foam(canvas: np.ndarray, p: Paint, rng: np.random.Generator, line: np.ndarray, thick: float) -> np.ndarray:
    """A band of foam along a line (y for each x), torn."""
    width = canvas.shape[1]
    depth = thick * np.clip(1 + 0.6 * b.profile(rng, width, 9 * width / canvas.shape[0], octaves=3), 0.15, 2)
    mask = b.below(canvas, line) * (1 - b.below(canvas, line + depth))
    return b.blend(canvas, p.snow, mask * 0.9)


def _palm(canvas: np.ndarray, p: Paint, rng: np.random.Generator, x0: float, foot: float, tall: float) -> np.ndarray:
    """A palm of `tall` pixels with a bent trunk."""
    bend = tall * rng.uniform(-0.3, 0.3)
    trunk, leaf = p.lit("#7b5a3a"), p.lit("#2f8a43")
    for t in np.linspace(0, 1, int(3 * tall)):
        radius = max(0.6, tall * (0.045 - 0.02 * t))
        canvas = b.spot(canvas, x0 + bend * t**2, foot - tall * t, radius, trunk * (0.85 + 0.3 * (t * 9 % 1)))
    crown_x, crown_y = x0 + bend, foot - tall
    for angle in np.linspace(-0.35, np.pi + 0.35, 8) + rng.uniform(-0.12, 0.12, 8):
        length = tall * rng.uniform(0.38, 0.5)
        for t in np.linspace(0.05, 1, int(2.4 * length)):
            x = crown_x + np.cos(angle) * length * t
            y = crown_y - np.sin(angle) * length * 0.75 * t + 0.55 * length * t**2
            tone = leaf * (0.8 + 0.35 * t) if np.sin(angle) > 0.3 else leaf * 0.7
            canvas = b.spot(canvas, x, y, max(0.6, tall * 0.055 * (1.1 - t)), np.clip(tone, 0, 1))
    return canvas


def _parasol(canvas: np.ndarray, p: Paint, rng: np.random.Generator, x0: float, foot: float, size: float) -> np.ndarray:
    """A striped parasol with a towel beside it."""
    colour = p.lit(str(rng.choice(_PARASOLS)))
    way = rng.choice([-1.0, 1.0])
    canvas = b.spot(canvas, x0 + way * size * 0.7, foot, size * 0.45, p.lit(str(rng.choice(_PARASOLS))), 1.0, 0.25)
    for t in np.linspace(0, 1, int(2 * size) + 2):
        canvas = b.spot(canvas, x0, foot - size * t, max(0.6, size * 0.04), p.snow * 0.9)
    return b.dome(canvas, x0, foot - size * 0.75, size * 0.62, colour, p.snow, p.outline)


def beach(canvas: np.ndarray, scene: Scene, p: Paint, rng: np.random.Generator, line: float) -> np.ndarray:
    """Sand and surf before the sea; palms and parasols when it is not winter."""
    height, width = canvas.shape[:2]
    horizon = int(line - 4 * p.unit)
    if rng.random() < 0.45:
        canvas = ranges(canvas, scene, p, rng, horizon, 1, rng.uniform(5, 10) * p.unit, 0, 0.4)
    canvas = _sea(canvas, p, rng, horizon, 0.55)
    if rng.random() < 0.4:
        canvas = _boats(canvas, p, rng, horizon + 2, horizon + 0.12 * height, int(rng.integers(1, 3) * width / height))
    shore = b.ridge(rng, width, height * rng.uniform(0.76, 0.82), 3 * p.unit, False, 1.6 * width / height)
    for back in (rng.uniform(9, 13), rng.uniform(4, 6)):
        canvas = _foam(canvas, p, rng, shore - back * p.unit, 1.3 * p.unit)
    sand = p.lit(str(rng.choice(["#efd9a7", "#f3e4c3", "#e2bf86", "#f1e9dc"])))
    y, _ = b.grid(canvas)
    texture = 1 + 0.05 * b.fbm(rng, height, width, 24, 12)[..., None]
    dry = np.clip((y - shore) / (9 * p.unit), 0, 1)[..., None]
    tone = np.clip(sand * (0.74 + 0.26 * dry) * texture, 0, 1)
    canvas = b.blend(canvas, tone, b.below(canvas, shore))
    canvas = _foam(canvas, p, rng, shore - p.unit, 2.2 * p.unit)
    canvas = stroke(canvas, p, scene, shore)
    if scene.season != "winter" and rng.random() < 0.55:
        for y0 in sorted(rng.uniform(shore.max() + 4, height, int(rng.integers(1, 4) * width / height))):
            canvas = _parasol(canvas, p, rng, rng.uniform(0, width), y0, rng.uniform(9, 13) * p.unit)
    if scene.season != "winter" and rng.random() < 0.7:
        for _ in range(int(rng.integers(2, 5) * width / height)):
            tall = rng.uniform(30, 54) * p.unit
            canvas = _palm(canvas, p, rng, rng.uniform(0, width), height * rng.uniform(0.86, 1.0), tall)
    return canvas


def sea(canvas: np.ndarray, scene: Scene, p: Paint, rng: np.random.Generator, line: float) -> np.ndarray:
    """The open sea with whitecaps and sailing boats, sometimes rocks with a lighthouse."""
    height, width = canvas.shape[:2]
    horizon = int(line - rng.uniform(2, 12) * p.unit)
    canvas = _sea(canvas, p, rng, horizon, rng.uniform(0.6, 0.8))
    for _ in range(int(rng.integers(10, 40) * width / height)):
        y0 = horizon + (height - horizon) * rng.uniform(0.05, 1) ** 1.3
        near = (y0 - horizon) / (height - horizon)
        canvas = b.spot(canvas, rng.uniform(0, width), y0, p.unit * (1 + 4 * near), p.snow, 0.3 + 0.4 * near, 0.16)
    if rng.random() < 0.4:
        canvas = _lighthouse(canvas, scene, p, rng, horizon)
    if rng.random() < 0.75:
        bottom = horizon + 0.7 * (height - horizon)
        canvas = _boats(canvas, p, rng, horizon + 3 * p.unit, bottom, int(rng.integers(2, 5) * width / height))
    return canvas


def _lighthouse(canvas: np.ndarray, scene: Scene, p: Paint, rng: np.random.Generator, horizon: int) -> np.ndarray:
    """Rocks that rise from the sea, a banded lighthouse on each."""
    height, width = canvas.shape[:2]
    x = np.arange(width, dtype=np.float32)
    for place in range(width // height):
        centre = (place + rng.uniform(0.15, 0.85)) * height
        foot, wide, rise = horizon + 12 * p.unit, rng.uniform(16, 26) * p.unit, rng.uniform(12, 16) * p.unit
        bumps = 1.5 * p.unit * b.profile(rng, width, 12 * width / height, octaves=3)
        line = foot - (rise + bumps) * np.clip(1.3 - np.abs(x - centre) / wide, 0, 1) ** 0.6
        rock = p.near * 0.75 + p.lit("#5f5a55") * 0.25
        light = np.clip(rock + (p.light - rock) * 0.2, 0, 1)
        mask = b.below(canvas, line) * (1 - b.below(canvas, np.full(width, foot)))
        shade = np.clip(0.5 + 0.5 * p.side * (x - centre) / wide, 0, 1)[None, :, None]
        canvas = b.blend(canvas, rock + (light - rock) * shade, mask)
        canvas = stroke(canvas, p, scene, np.minimum(line, height)) if p.outline is not None else canvas
        top, tall = foot - rise, rng.uniform(24, 32) * p.unit
        band = p.lit(str(rng.choice(["#d3382f", "#2f5f9c", "#3a3a3a"])))
        for row in np.arange(0, 1, 1 / (2 * tall)):
            half = p.unit * (3.4 - 1.3 * row)
            tone = band if int(row * 5) % 2 else p.snow
            canvas = b.bar(canvas, centre, top + 2 * p.unit - row * tall, half, 0.6, tone)
        head = top + 2 * p.unit - tall
        if scene.time in ("night", "twilight", "sunset"):
            canvas = b.glow(canvas, centre, head - 2 * p.unit, 9 * p.unit, p.light, 0.8)
        canvas = b.bar(canvas, centre, head - 1.5 * p.unit, 1.8 * p.unit, 1.8 * p.unit, p.light)
        canvas = b.triangle(canvas, centre, head - 3 * p.unit, 2.6 * p.unit, 3 * p.unit, band)
        canvas = b.triangle(canvas, centre, head - 3 * p.unit, -2.6 * p.unit, 3 * p.unit, band)
    return canvas


def desert(canvas: np.ndarray, scene: Scene, p: Paint, rng: np.random.Generator, line: float) -> np.ndarray:
    """Dunes with a lit and a shaded side; table mountains, pyramids and cactuses now and then."""
    height, width = canvas.shape[:2]
    across = width / height
    sand = p.lit(str(rng.choice(["#e8b768", "#dd9a55", "#f0d095", "#cf7748", "#e6c9a0"])))
    what = rng.random()
    if what < 0.35:
        level = np.clip(1.6 * b.profile(rng, width, 2.4 * across, octaves=4), -0.2, 0.9)
        mesas = line + 3 * p.unit - 15 * p.unit * level
        rock = sand * 0.45 + p.far * 0.55
        canvas = b.rock(canvas, rng, mesas, rock * 0.85, np.clip(rock * 1.2, 0, 1), p.snow, 0, p.side)
        canvas = stroke(canvas, p, scene, mesas)
    elif what < 0.5:
        for x0 in rng.uniform(0, width, int(rng.integers(1, 4) * across)):
            size = rng.uniform(14, 26) * p.unit
            lit, dark = sand * 0.7 + p.far * 0.3, sand * 0.4 + p.far * 0.3
            canvas = b.triangle(canvas, x0, line + 6 * p.unit, p.side * size, size, lit)
            canvas = b.triangle(canvas, x0, line + 6 * p.unit, -p.side * size * 0.7, size, dark)
    for i in range(4):
        near = (i + 0.5) / 4
        base = line + (height - line) * (0.05 + 0.26 * i)
        fold = np.abs(b.profile(rng, width, (2.6 - 0.35 * i) * across, octaves=2, gain=0.25))
        crest = base - (4 + 3.5 * i) * p.unit * (0.9 - fold)
        smooth = np.convolve(np.pad(crest, 2, mode="edge"), np.ones(5) / 5, mode="valid")
        slope = np.tanh(3.0 * p.side * np.gradient(smooth))[None]
        y, _ = b.grid(canvas)
        ripple = 0.025 * b.fbm(rng, height, width, 30, 5)
        # The two sides of a crest run into each other lower down.
        shade = 0.16 * slope * np.exp(-np.maximum(y - crest, 0) / (10 * p.unit))
        tone = p.far * (1 - near) * 0.45 + sand * (1 - 0.45 * (1 - near))
        tone = np.clip(tone * (0.92 + shade + ripple)[..., None], 0, 1)
        canvas = stroke(b.blend(canvas, tone, b.below(canvas, crest)), p, scene, crest)
    if rng.random() < 0.5:
        for y0 in sorted(rng.uniform(height * 0.8, height, int(rng.integers(2, 5) * across))):
            tall = p.unit * rng.uniform(14, 26) * (0.3 + (y0 / height - 0.8) * 3.5 + 0.3)
            canvas = _cactus(canvas, p, rng, rng.uniform(0, width), y0, tall)
    return canvas


def _cactus(canvas: np.ndarray, p: Paint, rng: np.random.Generator, x0: float, foot: float, tall: float) -> np.ndarray:
    """A branched cactus of `tall` pixels."""
    green = p.lit("#3f7f4a")

    def stem(x: float, low: float, high: float, radius: float) -> None:
        for y in np.arange(high, low, 0.5):
            b.spot(canvas, x, y, radius, green)
            b.spot(canvas, x + p.side * radius * 0.4, y, radius * 0.35, np.clip(green * 1.35, 0, 1))

    radius = max(0.9, 0.085 * tall)
    stem(x0, foot, foot - tall, radius)
    for way in (-1, 1):
        if rng.random() < 0.85:
            reach, joint = way * tall * 0.24, foot - tall * rng.uniform(0.35, 0.55)
            for t in np.linspace(0, 1, 8):
                canvas = b.spot(canvas, x0 + reach * t, joint, radius * 0.75, green)
            stem(x0 + reach, joint, joint - tall * rng.uniform(0.22, 0.36), radius * 0.75)
    return canvas


def village(canvas: np.ndarray, scene: Scene, p: Paint, rng: np.random.Generator, line: float) -> np.ndarray:
    """Gabled houses and a church on rolling ground, snow on the roofs in winter, lit windows in the dark."""
    height, width = canvas.shape[:2]
    across, snowy = width / height, scene.season == "winter"
    if rng.random() < 0.65:
        canvas = ranges(canvas, scene, p, rng, line, 2, rng.uniform(10, 17) * p.unit, 16 if snowy else 0, 0.6)
    soil = p.snow * 0.95 if snowy else p.meadow
    for i, (low, size) in enumerate(((0.12, 11.0), (0.42, 15.0), (0.74, 20.0))):
        base = line + (height - line) * low
        tone = p.far * 0.25 * (2 - i) / 2 + soil * (1 - 0.25 * (2 - i) / 2)
        canvas, foot = ground(canvas, scene, p, rng, base, tone, 3)
        if i == 1:
            count = int(np.ceil(across * 0.8))
            for place in range(count):
                x0 = (place + rng.uniform(0.2, 0.8)) * width / count
                canvas = _church(canvas, scene, p, rng, x0, foot[int(x0)] + 2, size * p.unit)
        x0 = rng.uniform(-20, 10) * p.unit
        while x0 < width + 10 * p.unit:
            at = foot[int(np.clip(x0, 0, width - 1))] + size * p.unit * rng.uniform(0.15, 0.4)
            if rng.random() < (0.8, 0.7, 0.5)[i]:
                canvas = _house(canvas, scene, p, rng, x0, at, size * p.unit * rng.uniform(0.8, 1.15))
            elif rng.random() < 0.6:
                tree = p.leaf * 0.5 + p.near * 0.3
                canvas = b.conifers(
                    canvas[:, :], rng, np.full(width, at), size * p.unit, tree, np.clip(tree * 1.3, 0, 1), 4.0 * width
                )
                canvas = trees(canvas, scene, p, rng, foot, 1, size * 0.8 * p.unit)
            x0 += size * p.unit * rng.uniform(1.1, 2.2)
    return canvas


def _house(
    canvas: np.ndarray, scene: Scene, p: Paint, rng: np.random.Generator, x0: float, foot: float, size: float
) -> np.ndarray:
    """A house about `size` pixels wide, its gable towards the viewer or its long side."""
    dark = scene.time in ("night", "twilight")
    wall = p.lit(str(rng.choice(_WALLS))) * rng.uniform(0.9, 1.05)
    roof = p.snow if scene.season == "winter" else p.lit(str(rng.choice(_ROOFS)))
    half, tall = size / 2, size * rng.uniform(0.5, 0.7)
    top, rise = foot - tall, size * rng.uniform(0.35, 0.55)
    if p.outline is not None:
        canvas = b.bar(canvas, x0, foot - tall / 2, half + 1, tall / 2 + 1, p.outline)
        for way in (-1, 1):
            canvas = b.triangle(canvas, x0, top + 1.5, way * (half * 1.15 + 2), rise + 3, p.outline)
    if rng.random() < 0.5:
        canvas = b.bar(canvas, x0 + half * 0.5, top - rise * 0.6, max(0.8, size * 0.06), rise * 0.35, wall * 0.6)
    canvas = b.bar(canvas, x0, foot - tall / 2, half, tall / 2, wall)
    canvas = b.bar(canvas, x0 - p.side * half * 0.75, foot - tall / 2, half * 0.25, tall / 2, wall * 0.82)
    for way in (-1, 1):
        tone = roof * (1.0 if way == p.side else 0.82)
        canvas = b.triangle(canvas, x0, top + 0.5, way * half * 1.15, rise, tone)
    pane = np.clip(p.light * rng.uniform(0.85, 1), 0, 1) if dark and rng.random() < 0.85 else p.near * 0.6
    unit = max(0.8, size * 0.07)
    for dx in (-0.5, 0.5):
        canvas = b.bar(canvas, x0 + dx * half, foot - tall * 0.62, unit, unit * 1.15, pane)
    return b.bar(canvas, x0, foot - tall * 0.22, unit * 0.9, tall * 0.22, p.near * 0.5)


def _church(
    canvas: np.ndarray, scene: Scene, p: Paint, rng: np.random.Generator, x0: float, foot: float, size: float
) -> np.ndarray:
    """A church: nave, tower with a clock, spire."""
    canvas = _house(canvas, scene, p, rng, x0 + size * 0.8, foot, size * 1.3)
    wall = p.lit("#efe7d8")
    spire = p.lit(str(rng.choice(["#4f6b62", "#5b4a43", "#8a3b30"])))
    half, tall = size * 0.22, size * 1.35
    if p.outline is not None:
        canvas = b.bar(canvas, x0, foot - tall / 2, half + 1, tall / 2 + 1, p.outline)
    canvas = b.bar(canvas, x0, foot - tall / 2, half, tall / 2, wall)
    canvas = b.bar(canvas, x0 - p.side * half * 0.6, foot - tall / 2, half * 0.4, tall / 2, wall * 0.8)
    for way in (-1, 1):
        canvas = b.triangle(
            canvas, x0, foot - tall, way * half * 1.3, size * 0.9, spire * (1 if way == p.side else 0.75)
        )
    return b.spot(canvas, x0, foot - tall * 0.8, max(0.9, size * 0.09), p.near * 0.5)
