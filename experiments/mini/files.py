"""Arrays and contact sheets of the trainings: each file is written whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from experiments.common.files import make_folder, replacing, sync_file


def load_or_make(path: Path, make: Callable[[], np.ndarray]) -> np.ndarray:
    """The array in `path` (.npy), made and written on the first call; memory-mapped, changes stay in memory."""
    if not path.exists():
        array = make()
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.save(file, array)
    return np.load(path, mmap_mode="c")


def move_files(made: Path, folder: Path, last: str) -> None:
    """Moves the files of `made`, on the same file system, into `folder`, readable by all; other files there stay.

    The files named `last` come at the end: where one is, whatever belongs to it is there too.
    """
    for file in sorted((each for each in made.rglob("*") if each.is_file()), key=lambda each: each.name == last):
        file.chmod(0o644)  # safetensors writes files that only their owner can read
        sync_file(file)
        target = folder / file.relative_to(made)
        make_folder(target.parent)
        file.replace(target)


def contact_sheet(rows: Sequence[Iterable[np.ndarray]], path: Path, gap: int = 2) -> None:
    """Writes rows of equally sized uint8 [h, w, 3] images as one PNG on white."""
    grid = [list(row) for row in rows]
    height, width = grid[0][0].shape[:2]
    columns = max(len(row) for row in grid)
    sheet = np.full((len(grid) * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for y, row in enumerate(grid):
        for x, image in enumerate(row):
            top, left = y * (height + gap), x * (width + gap)
            sheet[top : top + height, left : left + width] = image
    with replacing(path) as temporary:
        Image.fromarray(sheet).save(temporary, format="PNG")
