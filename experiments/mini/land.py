"""The map of a rendered scene that a ControlNet is trained on: where it hides the sky, and the skyline.

    python -m experiments.mini.land --kind city --seed 3 --width 768 --out land.png

The map is exact: the scene is drawn three times by the same random numbers, before a black sky, a white one, and one
that grows lighter from row to row. Black and white differ where a sky is seen, and the third tells of which row: in
water it is that of another, so water counts as land.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import numpy as np
from PIL import Image

from experiments.common.command_line import one_line_errors
from experiments.common.files import replacing
from experiments.mini.captions import sample_pair
from experiments.mini.dataset import SIZE
from experiments.mini.diffusion_data import picture_hash
from experiments.mini.elements import make_paint, sky
from experiments.mini.files import load_or_make
from experiments.mini.scenes import _DRAW, WIDE  # a change to that file would render every training picture anew
from experiments.mini.training import StepLines
from experiments.mini.world import KINDS, Scene, sample_scene
from syncdiffusion.errors import UsageError


def land_map(scene: Scene, size: int = SIZE, width: int | None = None) -> np.ndarray:
    """Where a scene, drawn as `scenes.render` does, hides the sky by half or more: booleans [size, width or size]."""
    rng = np.random.default_rng(scene.seed)
    paint = make_paint(scene, rng, size)
    line = size * rng.uniform(0.56, 0.68)
    behind = sky(scene, paint, rng, size, width or size, line)
    rows = (np.arange(size, dtype=np.float32) / size)[:, None, None]
    black, white, ramp = (
        _DRAW[scene.kind](each * np.ones_like(behind), scene, paint, copy.deepcopy(rng), line)
        for each in (0.0, 1.0, rows)
    )
    seen = (white - black).mean(axis=2)
    of_row = (ramp - black).mean(axis=2)
    own = np.abs(of_row - seen * rows[..., 0]) < 0.5 / size * seen + 1e-3
    return (seen < 0.5) | ~own


def skyline(land: np.ndarray) -> np.ndarray:
    """The first row from above that is land, for each column of booleans [h, w]; h where there is none."""
    return np.where(land.any(axis=0), land.argmax(axis=0), land.shape[0])


def seen_skyline(picture: np.ndarray, least: int = 9) -> np.ndarray:
    """The skyline of a picture of which nothing else is known: uint8 [h, w, 3] -> a row for each column.

    The row that parts a column best in two whose colour each changes evenly from top to bottom: least squared residuals
    of two straight lines, of `least` rows or more each. An estimate: on 24 held-out renders it is off by 7.5 pixels of
    128 in the mean, as the gate measures it (mini_control/gate.json), where two even colours were off by 24.
    """
    values = picture.astype(np.float64)
    above, below = _line_residuals(values), _line_residuals(values[::-1])[::-1]
    return (above[:-1] + below[1:]).sum(axis=2)[least - 1 : 1 - least].argmin(axis=0) + least


def _line_residuals(values: np.ndarray) -> np.ndarray:
    """Squared residuals of the straight line through the first 1, 2, ... rows of each column: like [h, w, c] values."""
    x = np.arange(len(values), dtype=np.float64)[:, None, None]
    n = x + 1
    sums = {name: each.cumsum(axis=0) for name, each in (("x", x), ("y", values), ("xx", x * x), ("xy", x * values))}
    spread = sums["xx"] - sums["x"] ** 2 / n
    common = sums["xy"] - sums["x"] * sums["y"] / n
    around = (values**2).cumsum(axis=0) - sums["y"] ** 2 / n
    return around - np.where(spread > 0, common**2 / np.maximum(spread, 1e-9), 0)


def load_maps(work: Path, split: int, name: str, rows: range, seed: int) -> np.ndarray:
    """Maps of a split's scenes, booleans [n, SIZE, WIDE · SIZE]; kept in `work/land`, eight pixels a byte."""
    path = work / "land" / f"{name}-{rows.start}-{rows.stop}-{picture_hash(0, seed)}.npy"

    def make() -> np.ndarray:
        progress, found = StepLines("maps", 0, len(rows), every=200), []
        for index in rows:
            scene, _ = sample_pair(np.random.default_rng([seed, split, index]))
            found.append(np.packbits(land_map(scene, SIZE, WIDE * SIZE), axis=1))
            progress.add(index - rows.start + 1)
        return np.stack(found)

    return np.unpackbits(load_or_make(path, make), axis=2).astype(bool)


def as_picture(land: np.ndarray) -> np.ndarray:
    """What a ControlNet is shown: white land under a black sky, uint8 [h, w, 3]."""
    return np.repeat(np.where(land, 255, 0).astype(np.uint8)[..., None], 3, axis=-1)


@one_line_errors(exits=True)
def main() -> None:
    parser = argparse.ArgumentParser(description="Write the map of a scene, to steer a panorama by.")
    parser.add_argument("--kind", default="mountains", choices=KINDS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--width", type=int, default=6 * SIZE, help="pixels")
    parser.add_argument("--out", type=Path, default=Path("land.png"))
    options = parser.parse_args()
    if options.width < SIZE:
        raise UsageError(f"width={options.width}: use {SIZE} or more")
    scene = sample_scene(np.random.default_rng(options.seed), kind=options.kind)
    with replacing(options.out) as temporary:
        Image.fromarray(as_picture(land_map(scene, SIZE, options.width))).save(temporary, format="PNG")
    print(options.out)


if __name__ == "__main__":
    main()
