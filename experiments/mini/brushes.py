"""Brushes of the procedural renderer: noise, sky, clouds, ridges, trees, buildings, water.

All work on a float32 canvas [height, width, 3] in [0, 1] and return a new or changed canvas. Edges
are antialiased analytically (coverage of a pixel by the shape), so nothing is drawn larger and shrunk.
"""

import numpy as np
from PIL import Image

Canvas = np.ndarray  # float32[height, width, 3] in [0, 1]
Mask = np.ndarray  # float32[height, width] in [0, 1]


def fbm(rng: np.random.Generator, height: int, width: int, cells_y: float, cells_x: float, octaves: int = 4) -> Mask:
    """Fractal value noise [height, width], mean 0 and standard deviation 1; both numbers of cells are a height's."""
    total = np.zeros((height, width), np.float32)
    across = cells_x * width / height
    for octave in range(octaves):
        grid = (max(2, round(cells_y * 2**octave)) + 1, max(2, round(across * 2**octave)) + 1)
        noise = Image.fromarray(rng.standard_normal(grid).astype(np.float32))
        total += np.asarray(noise.resize((width, height), Image.BICUBIC)) * 0.5**octave
    return (total - total.mean()) / (total.std() + 1e-6)


def profile(rng: np.random.Generator, width: int, cells: float, octaves: int = 5, gain: float = 0.5) -> np.ndarray:
    """Fractal noise along x, float32[width], mean 0 and standard deviation 1."""
    total = np.zeros(width, np.float32)
    at = np.linspace(0, 1, width, dtype=np.float32)
    for octave in range(octaves):
        knots = max(3, round(cells * 2**octave) + 2)
        total += np.interp(at, np.linspace(0, 1, knots), rng.standard_normal(knots)) * gain**octave
    return (total - total.mean()) / (total.std() + 1e-6)


def blend(canvas: Canvas, colour: np.ndarray, mask: Mask) -> Canvas:
    """Lay `colour` (one RGB or a canvas) over `canvas` where `mask` says."""
    return canvas + (colour - canvas) * mask[..., None]


def grid(canvas: Canvas) -> tuple[np.ndarray, np.ndarray]:
    """Pixel coordinates (y [height, 1], x [1, width]) as float32."""
    height, width = canvas.shape[:2]
    return np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)[None]


def below(canvas: Canvas, line: np.ndarray) -> Mask:
    """Coverage of each pixel by what lies below the height line (y in pixels for each x)."""
    y, _ = grid(canvas)
    # Dividing by the slope keeps steep edges as soft as flat ones.
    return np.clip((y - line) / np.sqrt(1 + np.gradient(line) ** 2) + 0.5, 0, 1).astype(np.float32)


def disc(canvas: Canvas, x0: float, y0: float, radius: float) -> Mask:
    """Coverage by a disc."""
    y, x = grid(canvas)
    return np.clip(radius - np.hypot(x - x0, y - y0) + 0.5, 0, 1)


def sky(height: int, width: int, top, middle, horizon, line: float, bend: float) -> Canvas:
    """Vertical gradient from `top` through `middle` to `horizon` at y = `line` pixels."""
    t = np.clip(np.arange(height, dtype=np.float32) / line, 0, 1) ** bend
    stops = np.stack([top, middle, horizon])
    column = np.stack([np.interp(t, [0, 0.55, 1], stops[:, c]) for c in range(3)], -1)
    return np.repeat(column[:, None].astype(np.float32), width, 1)


def glow(canvas: Canvas, x0: float, y0: float, radius: float, colour, strength: float) -> Canvas:
    """Light around a source, added as a screen so that it never exceeds white."""
    y, x = grid(canvas)
    light = strength * np.exp(-np.hypot(x - x0, y - y0) / radius)
    return 1 - (1 - canvas) * (1 - light[..., None] * colour)


def stars(canvas: Canvas, rng: np.random.Generator, count: int, line: float, colour) -> Canvas:
    """Stars above y = `line`; a few large enough to survive an eight-fold compression."""
    for _ in range(count):
        x0, y0 = rng.uniform(0, canvas.shape[1]), rng.uniform(0, line * 0.9)
        radius = 0.55 + 0.9 * rng.random() ** 4
        canvas = spot(canvas, x0, y0, radius, colour, 0.5 + 0.5 * rng.random())
    return canvas


def aurora(canvas: Canvas, rng: np.random.Generator, line: float) -> Canvas:
    """Northern lights above y = `line`: curtains with upright rays, green below and violet above."""
    height, width = canvas.shape[:2]
    y, _ = grid(canvas)
    below_colours = [(0.25, 1.0, 0.55), (0.3, 0.95, 0.75), (0.45, 1.0, 0.4)]
    above = np.array([0.65, 0.3, 0.95], np.float32)
    below_colour = np.array(below_colours[int(rng.integers(3))], np.float32)
    for _ in range(int(rng.integers(2, 4))):
        foot = line * rng.uniform(0.35, 0.85) + line * 0.13 * profile(rng, width, 1.6 * width / height, octaves=2)
        rays = 0.62 + 0.38 * np.tanh(profile(rng, width, 14 * width / height, octaves=3))
        shine = rays * (0.65 + 0.35 * np.tanh(profile(rng, width, 1.5 * width / height, octaves=2)))
        up = (foot - y) / (line * rng.uniform(0.25, 0.45))
        light = np.where(up > 0, np.exp(-1.6 * np.maximum(up, 0)), np.exp(14 * np.minimum(up, 0))) * shine
        tint = below_colour + (above - below_colour) * np.clip(up, 0, 1)[..., None]
        canvas = 1 - (1 - canvas) * (1 - 0.85 * light[..., None] * tint)
    return canvas.astype(np.float32)


def spot(
    canvas: Canvas, x0: float, y0: float, radius: float, colour, strength: float = 1.0, flat: float = 1.0
) -> Canvas:
    """A small disc (or ellipse, height/width = `flat`), drawn in place within its own box."""
    height, width = canvas.shape[:2]
    y1, y2 = max(0, int(y0 - radius * flat - 1)), min(height, int(y0 + radius * flat + 2))
    x1, x2 = max(0, int(x0 - radius - 1)), min(width, int(x0 + radius + 2))
    if y1 >= y2 or x1 >= x2:
        return canvas
    y = np.arange(y1, y2, dtype=np.float32)[:, None]
    x = np.arange(x1, x2, dtype=np.float32)[None]
    mask = np.clip(radius - np.hypot(x - x0, (y - y0) / flat) + 0.5, 0, 1) * strength
    canvas[y1:y2, x1:x2] += (colour - canvas[y1:y2, x1:x2]) * mask[..., None]
    return canvas


def bar(canvas: Canvas, x0: float, y0: float, half: float, tall: float, colour) -> Canvas:
    """A rectangle of half width `half` and half height `tall` around (`x0`, `y0`), drawn in place."""
    height, width = canvas.shape[:2]
    y1, y2 = max(0, int(y0 - tall - 1)), min(height, int(y0 + tall + 2))
    x1, x2 = max(0, int(x0 - half - 1)), min(width, int(x0 + half + 2))
    if y1 >= y2 or x1 >= x2:
        return canvas
    y = np.arange(y1, y2, dtype=np.float32)[:, None]
    x = np.arange(x1, x2, dtype=np.float32)[None]
    mask = np.clip(half - np.abs(x - x0) + 0.5, 0, 1) * np.clip(tall - np.abs(y - y0) + 0.5, 0, 1)
    canvas[y1:y2, x1:x2] += (colour - canvas[y1:y2, x1:x2]) * mask[..., None]
    return canvas


def triangle(canvas: Canvas, x0: float, foot: float, run: float, rise: float, colour) -> Canvas:
    """A right triangle drawn in place: upright edge at `x0`, `rise` pixels high above `foot`, `run` to the side.

    `run` may be negative: two of them, one each way, make a gable, a pyramid or a sail and jib.
    """
    height, width = canvas.shape[:2]
    way, run = (1.0, run) if run > 0 else (-1.0, -run)
    y1, y2 = max(0, int(foot - rise - 1)), min(height, int(foot + 2))
    left, right = (x0 - 1, x0 + run + 2) if way > 0 else (x0 - run - 1, x0 + 2)
    x1, x2 = max(0, int(left)), min(width, int(right))
    if y1 >= y2 or x1 >= x2:
        return canvas
    y = np.arange(y1, y2, dtype=np.float32)[:, None]
    side = way * (np.arange(x1, x2, dtype=np.float32)[None] - x0)
    down = (y - (foot - rise)) / rise
    # Distance to the slanting edge, across it.
    slant = (down * run - side) * rise / np.hypot(run, rise)
    mask = np.clip(slant + 0.5, 0, 1) * np.clip(side + 0.5, 0, 1) * np.clip(foot - y + 0.5, 0, 1)
    canvas[y1:y2, x1:x2] += (colour - canvas[y1:y2, x1:x2]) * mask[..., None]
    return canvas


def dome(canvas: Canvas, x0: float, foot: float, radius: float, colour, stripe, outline) -> Canvas:
    """A striped half disc on y = `foot`, drawn in place; `outline` is an RGB or None."""
    height, width = canvas.shape[:2]
    y1, y2 = max(0, int(foot - radius - 2)), min(height, int(foot + 2))
    x1, x2 = max(0, int(x0 - radius - 2)), min(width, int(x0 + radius + 3))
    if y1 >= y2 or x1 >= x2:
        return canvas
    y = np.arange(y1, y2, dtype=np.float32)[:, None]
    x = np.arange(x1, x2, dtype=np.float32)[None]
    reach = np.hypot(x - x0, (y - foot) / 0.75)
    half = np.clip(foot - y + 0.5, 0, 1)
    if outline is not None:
        mask = np.clip(radius - reach + 1.5, 0, 1) * np.clip(foot - y + 1.5, 0, 1)
        canvas[y1:y2, x1:x2] += (outline - canvas[y1:y2, x1:x2]) * mask[..., None]
    ribs = ((np.arctan2(foot - y, x - x0) * 5 / np.pi).astype(int) % 2)[..., None]
    canvas[y1:y2, x1:x2] += (np.where(ribs, stripe, colour) - canvas[y1:y2, x1:x2]) * (
        np.clip(radius - reach + 0.5, 0, 1) * half
    )[..., None]
    return canvas


def wisps(canvas: Canvas, rng: np.random.Generator, colour, amount: float, line: float) -> Canvas:
    """Streaky clouds from stretched fractal noise, thinning out towards the horizon."""
    height, width = canvas.shape[:2]
    noise = fbm(rng, height, width, 6, 2.2)
    mask = np.clip((noise - 1.1 + 1.3 * amount) / 1.2, 0, 1)
    y, _ = grid(canvas)
    return blend(canvas, colour, mask * np.clip(1.15 - y / line, 0, 1) * 0.85)


def puffs(
    canvas: Canvas, rng: np.random.Generator, colour, shade, count: int, line: float, size: float, outline
) -> Canvas:
    """Heaped clouds of overlapping discs, lit from above; `outline` is an RGB or None."""
    y, _ = grid(canvas)
    for _ in range(count):
        x0, base = rng.uniform(-5, canvas.shape[1] + 5), line * rng.uniform(0.2, 0.9)
        span = size * rng.uniform(0.6, 1.4)
        mask = np.zeros(canvas.shape[:2], np.float32)
        lit = np.zeros_like(mask)
        for _ in range(rng.integers(5, 9)):
            dx = rng.uniform(-1, 1)
            radius = span * (0.22 + 0.28 * (1 - abs(dx)) * rng.random())
            cx, cy = x0 + dx * span, base - radius * rng.uniform(0.3, 0.9)
            mask = np.maximum(mask, disc(canvas, cx, cy, radius))
            lit = np.maximum(lit, disc(canvas, cx - 0.12 * radius, cy - 0.25 * radius, radius * 0.9))
        foot = np.clip(base - y + 0.5, 0, 1)
        if outline is not None:
            grown = np.maximum.reduce([np.roll(mask, s, a) for s, a in ((1, 0), (-1, 0), (1, 1), (-1, 1))])
            canvas = blend(canvas, outline, grown * np.clip(base - y + 1.5, 0, 1))
        canvas = blend(canvas, shade, mask * foot)
        canvas = blend(canvas, colour, mask * lit * foot)
    return canvas


def ridge(rng: np.random.Generator, width: int, base: float, height: float, sharp: bool, cells: float) -> np.ndarray:
    """Skyline of one range: y in pixels for each x, peaks up to about 2·`height` above `base`."""
    if not sharp:
        return base - height * profile(rng, width, cells, octaves=3, gain=0.35)
    # Folded noise has creases at its maxima: summits rather than hills.
    peaks = 1 - 1.3 * np.abs(profile(rng, width, cells, octaves=2, gain=0.4))
    return base - height * (peaks + 0.16 * profile(rng, width, cells * 4, octaves=4, gain=0.55))


def rock(
    canvas: Canvas, rng: np.random.Generator, line: np.ndarray, dark, bright, snow, snow_depth: float, sun: float
) -> Canvas:
    """A range below `line`: two-tone flanks lit from the side `sun` (-1 left, 1 right), snow on top.

    `snow_depth` in pixels below the skyline, 0 for none.
    """
    height, width = canvas.shape[:2]
    y, _ = grid(canvas)
    depth = np.maximum(y - line, 0)
    smooth = np.convolve(np.pad(line, 4, mode="edge"), np.ones(9) / 9, mode="valid")
    flank = fbm(rng, height, width, 4, 9, octaves=3)
    light = 0.5 + 0.5 * np.tanh(2.2 * (sun * np.gradient(smooth)[None] + 0.45 * flank))
    colour = dark + (bright - dark) * light[..., None]
    if snow_depth > 0:
        edge = snow_depth * (1 + 0.45 * fbm(rng, height, width, 5, 14, octaves=3))
        colour = blend(colour, snow * (0.72 + 0.28 * light[..., None]), np.clip((edge - depth) / 1.5, 0, 1))
    return blend(canvas, colour, below(canvas, line))


def conifers(
    canvas: Canvas, rng: np.random.Generator, base: np.ndarray, size: float, colour, bright, gap: float
) -> Canvas:
    """A row of conifers of about `size` pixels, standing on `base` (y for each x), `gap` pixels apart."""
    height, width = canvas.shape[:2]
    x0 = -size * rng.random()
    while x0 < width + size / 2:
        tall, half = size * rng.uniform(0.65, 1.25), size * rng.uniform(0.17, 0.25)
        foot = base[int(np.clip(x0, 0, width - 1))] + 1
        y1, y2 = max(0, int(foot - tall)), min(height, int(foot) + 1)
        x1, x2 = max(0, int(x0 - half - 1)), min(width, int(x0 + half + 2))
        if y1 < y2 and x1 < x2:
            down = (np.arange(y1, y2, dtype=np.float32)[:, None] - (foot - tall)) / tall
            side = np.arange(x1, x2, dtype=np.float32)[None] - x0
            tiers = down * (0.62 + 0.38 * ((down * 4.5) % 1))
            mask = np.clip(half * tiers - np.abs(side) + 0.5, 0, 1)
            tone = colour + (bright - colour) * np.clip(0.5 - side / half, 0, 1)[..., None] * 0.6
            canvas[y1:y2, x1:x2] += (tone - canvas[y1:y2, x1:x2]) * mask[..., None]
        x0 += gap * rng.uniform(0.5, 1.5)
    return canvas


def leafy(
    canvas: Canvas, rng: np.random.Generator, x0: float, foot: float, size: float, leaf, bright, trunk, outline
) -> Canvas:
    """A round-crowned tree of `size` pixels at (`x0`, `foot`)."""
    crown = foot - size * 0.62
    for width in np.linspace(-0.05, 0.05, 3) * size:
        for step in np.linspace(0, 0.4, 5):
            canvas = spot(canvas, x0 + width, foot - size * step, max(0.7, size * 0.05), trunk)
    lobes = [
        (x0 + size * rng.uniform(-0.25, 0.25), crown + size * rng.uniform(-0.2, 0.16), size * rng.uniform(0.16, 0.26))
        for _ in range(7)
    ]
    if outline is not None:
        for x, y, radius in lobes:
            canvas = spot(canvas, x, y, radius + 1, outline)
    for x, y, radius in lobes:
        canvas = spot(canvas, x, y, radius, leaf)
    for x, y, radius in lobes:
        canvas = spot(canvas, x - radius * 0.3, y - radius * 0.35, radius * 0.55, bright, 0.8)
    return canvas


def buildings(
    canvas: Canvas, rng: np.random.Generator, base: float, tall: float, wide: float, wall, lamp, lit: float, edge
) -> Canvas:
    """A row of towers on y = `base`, up to `tall` pixels high, `wide` wide on average.

    `lit` is the share of windows that shine in `lamp`; the others are a little darker than the wall.
    """
    width = canvas.shape[1]
    x0 = -int(wide * rng.random())
    cluster = profile(rng, width + 1, 2 * width / canvas.shape[0], octaves=2)
    while x0 < width:
        w = int(max(5, wide * rng.uniform(0.6, 1.5)))
        h = int(tall * np.clip(0.55 + 0.22 * cluster[max(0, x0)] + rng.uniform(-0.25, 0.25), 0.15, 1))
        top, left, right = int(base) - h, max(0, x0), min(width, x0 + w)
        tone = wall * rng.uniform(0.82, 1.18)
        if right > left:
            if rng.random() < 0.3 and h > 15:  # a narrower crown or a mast
                inset = int(w * rng.uniform(0.2, 0.45))
                rise = int(rng.integers(3, 11))
                canvas[max(0, top - rise) : top, max(0, x0 + inset) : max(0, min(width, x0 + w - inset))] = tone
            canvas[max(0, top) : int(base), left:right] = tone
            canvas[max(0, top) : int(base), max(0, right - 1) : right] = tone * 0.7
            if edge is not None:
                canvas[max(0, top) : max(0, top) + 1, left:right] = edge
                canvas[max(0, top) : int(base), left : left + 1] = edge
            pitch_x, pitch_y = int(rng.integers(3, 5)), int(rng.integers(4, 6))
            share = np.clip(lit * rng.uniform(0.4, 1.5), 0, 1)
            for y in range(top + 3, int(base) - 2, pitch_y):
                for x in range(x0 + 2, x0 + w - 2, pitch_x):
                    if 0 <= x < width - 1 and y > 0:
                        shine = lamp * rng.uniform(0.75, 1) if rng.random() < share else tone * 0.78
                        canvas[y : y + 2, x : x + 2] = shine
        x0 += w + int(rng.integers(0, 3))
    return canvas


def water(canvas: Canvas, rng: np.random.Generator, line: int, tint, strength: float, ripple: float) -> Canvas:
    """Everything below row `line` becomes a rippled mirror of what is above, tinted."""
    height, width = canvas.shape[:2]
    y, x = np.mgrid[line:height, 0:width]
    waves = fbm(rng, height, width, 26, 3, octaves=2)[line:]
    depth = (y - line) / max(1, height - line)
    source_y = np.clip(2 * line - y - 1 + ripple * waves * (0.3 + depth), 0, line - 1).astype(int)
    source_x = np.clip(x + ripple * 0.6 * waves, 0, width - 1).astype(int)
    mirror = canvas[source_y, source_x]
    fade = (strength * (0.55 + 0.45 * depth))[..., None]
    canvas[line:] = np.clip((mirror * (1 - fade) + tint * fade) * (1 + 0.05 * waves[..., None]), 0, 1)
    return canvas


def haze(canvas: Canvas, rng: np.random.Generator, colour, centre: float, spread: float, strength: float) -> Canvas:
    """A bank of mist around y = `centre`, `spread` pixels deep, torn by noise."""
    y, _ = grid(canvas)
    noise = fbm(rng, *canvas.shape[:2], 5, 2, octaves=3)
    band = np.exp(-(((y - centre) / spread) ** 2))
    return blend(canvas, colour, np.clip(strength * band * (1 + 0.3 * noise), 0, 0.97))
