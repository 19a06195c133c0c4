"""The map of a rendered scene that a ControlNet is trained on: where it hides the sky, and the skyline.

    python -m experiments.mini.land --kind city --seed 3 --width 768 --out land.png

The map is exact: the scene is drawn twice by the same random numbers, once before a black and once before a white sky,
and what is covered is equal in both. Water shows the sky again, and is no land where it does; a skyline is looked for
from above and does not depend on that.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import numpy as np
from PIL import Image

from experiments.common.command_line import one_line_errors
from experiments.mini.captions import sample_pair
from experiments.mini.dataset import SIZE
from experiments.mini.diffusion_data import picture_hash
from experiments.mini.elements import make_paint, sky
from experiments.mini.files import load_or_make, replacing
from experiments.mini.scenes import _DRAW, WIDE  # a change to that file would render every training picture anew
from experiments.mini.training import Progress
from experiments.mini.world import KINDS, Scene, sample_scene
from syncdiffusion.errors import UsageError


def land_map(scene: Scene, size: int = SIZE, width: int | None = None) -> np.ndarray:
    """Where a scene, drawn as `scenes.render` does, hides the sky by half or more: booleans [size, width or size]."""
    rng = np.random.default_rng(scene.seed)
    paint = make_paint(scene, rng, size)
    line = size * rng.uniform(0.56, 0.68)
    behind = sky(scene, paint, rng, size, width or size, line)
    black, white = (
        _DRAW[scene.kind](np.full_like(behind, value), scene, paint, copy.deepcopy(rng), line) for value in (0.0, 1.0)
    )
    return (white - black).mean(axis=2) < 0.5


def skyline(land: np.ndarray) -> np.ndarray:
    """The first row from above that is land, for each column of booleans [h, w]; h where there is none."""
    return np.where(land.any(axis=0), land.argmax(axis=0), land.shape[0])


def seen_skyline(picture: np.ndarray) -> np.ndarray:
    """The skyline of a picture of which nothing else is known: uint8 [h, w, 3] -> a row for each column.

    The row that parts a column best in two of even colour: least squared differences from the mean above and below. It
    is an estimate, whose own error on renders the gate measures.
    """
    values = picture.astype(np.float64)
    height = len(values)
    total, squares = values.cumsum(axis=0), (values**2).cumsum(axis=0)
    above = np.arange(1, height)[:, None, None]
    rest = height - above
    left = squares[:-1] - total[:-1] ** 2 / above
    right = (squares[-1] - squares[:-1]) - (total[-1] - total[:-1]) ** 2 / rest
    return (left + right).sum(axis=2).argmin(axis=0) + 1


def load_maps(work: Path, split: int, name: str, rows: range, seed: int) -> np.ndarray:
    """Maps of a split's scenes, booleans [n, SIZE, WIDE · SIZE]; kept in `work/land`, eight pixels a byte."""
    path = work / "land" / f"{name}-{rows.start}-{rows.stop}-{picture_hash(0, seed)}.npy"

    def make() -> np.ndarray:
        progress, found = Progress("maps", 0, len(rows), every=200), []
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
