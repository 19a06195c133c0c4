"""The training and held-out pictures: rendered scenes with their captions, kept in a work folder.

    python -m experiments.mini.dataset --count 20000

Item i of a split is drawn by its own generator, `default_rng([seed, split, i])`, so it does not
depend on the number of worker processes nor on how many items are made.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import inspect
import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from experiments.common.command_line import one_line_errors
from experiments.mini.files import replacing, write_json
from experiments.mini.training import clock
from syncdiffusion.errors import UsageError

SPLITS = {"train": 0, "heldout": 1}
CAPTIONS_PER_SCENE = 2
CHUNK = 64


@dataclass(frozen=True)
class Pictures:
    """Rendered scenes.

    images: uint8 [n, size, size, 3] (memory-mapped, read-only).
    captions: for each image, CAPTIONS_PER_SCENE captions of the same scene.
    """

    images: np.ndarray
    captions: list[list[str]]


def make_item(seed: int, split: int, index: int) -> tuple[np.ndarray, list[str]]:
    """Scene `index` of a split: its picture, uint8 [size, size, 3], and its captions."""
    from experiments.mini.captions import caption, sample_pair
    from experiments.mini.scenes import render

    rng = np.random.default_rng([seed, split, index])
    scene, first = sample_pair(rng)
    others = [caption(scene, rng) for _ in range(CAPTIONS_PER_SCENE - 1)]
    return render(scene), [first, *others]


def make_chunk(seed: int, split: int, begin: int, end: int) -> list[tuple[np.ndarray, list[str]]]:
    return [make_item(seed, split, index) for index in range(begin, end)]


def source_hash() -> str:
    """Hash of the renderer's and the grammar's code, whatever its layout: pictures of an older one are made again."""
    from experiments.mini import brushes, captions, palettes, scenes

    modules = (palettes, brushes, scenes, captions)
    text = "".join(ast.dump(ast.parse(inspect.getsource(module))) for module in modules)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def load_pictures(work: Path, split: str, count: int, seed: int = 0, workers: int = 2) -> Pictures:
    """The first `count` items of a split, rendered on the first call and read afterwards.

    Args:
        work: folder of the trainings; the pictures lie in `work/pictures`.
        split: "train" or "heldout".
        count: number of scenes.
        seed: seed of the whole set.
        workers: rendering processes.

    Raises:
        UsageError: unknown split or a count below 1.
    """
    if split not in SPLITS:
        raise UsageError(f"split={split}: use one of {', '.join(SPLITS)}")
    if count < 1:
        raise UsageError(f"count={count}: use 1 or more")
    folder = work / "pictures"
    image_file, record_file = folder / f"{split}.npy", folder / f"{split}.json"
    wanted = {"split": split, "count": count, "seed": seed, "captions": CAPTIONS_PER_SCENE, "source": source_hash()}
    if record_file.exists() and image_file.exists():
        record = json.loads(record_file.read_text())
        found = record["settings"]
        # A longer set begins with the shorter one, so any prefix may be used.
        if {**found, "count": count} == wanted and found["count"] >= count:
            return Pictures(np.load(image_file, mmap_mode="r")[:count], record["captions"][:count])
    captions = _render(image_file, split, count, seed, workers)
    write_json(record_file, {"settings": wanted, "captions": captions})
    return Pictures(np.load(image_file, mmap_mode="r"), captions)


def _render(path: Path, split: str, count: int, seed: int, workers: int) -> list[list[str]]:
    """Renders into `path` (whole or not at all) and returns the captions."""
    number = SPLITS[split]
    bounds = [(begin, min(begin + CHUNK, count)) for begin in range(0, count, CHUNK)]
    captions: list[list[str]] = []
    # The record of an older set must not outlive its pictures.
    path.with_suffix(".json").unlink(missing_ok=True)
    images: np.ndarray | None = None
    start = time.monotonic()
    # Forking is fast but unsafe once PyTorch runs threads; a fresh interpreter per worker is not.
    with replacing(path) as temporary, ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        starts, ends = zip(*bounds, strict=True)
        chunks = pool.map(make_chunk, repeat(seed), repeat(number), starts, ends)
        for (begin, _), chunk in zip(bounds, chunks, strict=True):
            for offset, (image, texts) in enumerate(chunk):
                if images is None:
                    shape = (count, *image.shape)
                    images = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
                images[begin + offset] = image
                captions.append(texts)
            left = (time.monotonic() - start) / len(captions) * (count - len(captions))
            line = f"[pictures {split}] {len(captions)}/{count}  {clock(left)} left"
            print(line, end="\r" if sys.stderr.isatty() and left > 0 else "\n", file=sys.stderr, flush=True)
        assert images is not None
        images.flush()
        del images
    return captions


@one_line_errors(exits=True)
def main() -> None:
    parser = argparse.ArgumentParser(description="Render the pictures of the miniature model.")
    parser.add_argument("--work", type=Path, default=Path("runs/mini-training"))
    parser.add_argument("--count", type=int, default=20000, help="training scenes")
    parser.add_argument("--heldout", type=int, default=1000, help="held-out scenes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    for split, count in (("heldout", arguments.heldout), ("train", arguments.count)):
        pictures = load_pictures(arguments.work, split, count, arguments.seed, arguments.workers)
        print(f"{split}: {len(pictures.captions)} pictures, e.g. {pictures.captions[0]}")


if __name__ == "__main__":
    main()
