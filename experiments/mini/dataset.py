"""The training and held-out pictures: rendered scenes with their captions, kept in a work folder.

    python -m experiments.mini.dataset --count 20000

A picture is WIDE windows wide, so that a window may begin anywhere in it. Item i of a split is drawn by its own
generator, `default_rng([seed, split, i])`, so it does not depend on the number of worker processes nor on how many
items are made. Items lie in shards of SHARD: a training takes any range of them, and a later stretch another one.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import inspect
import json
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from experiments.common.command_line import one_line_errors
from experiments.common.files import replacing, write_json
from experiments.common.progress import clock
from syncdiffusion.errors import UsageError

SPLITS = {"train": 0, "heldout": 1}
SHARD = 512
SIZE = 128


@dataclass(frozen=True)
class Item:
    """A scene's picture and its words.

    picture: uint8 [128, 256, 3].
    captions: one of the paper's prompts or of the grammar, one of the grammar, one of the grammar with idle or
        unknown words.
    edges: first and last left edge in pixels of the windows for which the captions are true.
    """

    picture: np.ndarray
    captions: list[str]
    edges: tuple[int, int]


@dataclass(frozen=True)
class Pictures:
    """Rendered scenes, as `Item`s, of which picture i is `images[i]`; the arrays are memory-mapped and read-only."""

    images: Sequence[np.ndarray]
    captions: list[list[str]]
    edges: list[tuple[int, int]]


def make_item(seed: int, split: int, index: int) -> Item:
    """Scene `index` of a split."""
    from experiments.mini.captions import caption, sample_pair
    from experiments.mini.scenes import WIDE, render

    rng = np.random.default_rng([seed, split, index])
    scene, first = sample_pair(rng)
    captions = [first, caption(scene, rng), caption(scene, rng, loose=True)]
    return Item(render(scene, SIZE, WIDE * SIZE), captions, scene.window_range(SIZE, WIDE * SIZE))


def _make_shard(job: tuple[Path, int, int, int, int]) -> int:
    """Renders items `begin` … `begin + count - 1` into `path` and its words beside it; returns the count."""
    path, seed, split, begin, count = job
    # The record of an older shard must not outlive its pictures.
    path.with_suffix(".json").unlink(missing_ok=True)
    items = [make_item(seed, split, begin + i) for i in range(count)]
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, np.stack([item.picture for item in items]))
    words = {"captions": [item.captions for item in items], "edges": [item.edges for item in items]}
    write_json(path.with_suffix(".json"), {"settings": _settings(seed, split), "count": count, **words})
    return count


def _settings(seed: int, split: int) -> dict[str, Any]:
    return {"seed": seed, "split": split, "source": source_hash()}


def source_hash() -> str:
    """Hash of what the renderer's and the grammar's code does, whatever its layout: other pictures are made again."""
    from experiments.mini import brushes, captions, elements, landscapes, palettes, places, scenes, world

    modules = (world, palettes, brushes, elements, landscapes, places, scenes, captions)
    text = "".join(ast.dump(_without_docstrings(ast.parse(inspect.getsource(module)))) for module in modules)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return tree


class _Joined(Sequence[np.ndarray]):
    """Several arrays as one sequence of their rows; a slice is stacked."""

    def __init__(self, parts: list[np.ndarray]) -> None:
        self.parts = parts
        self.starts = np.cumsum([0, *map(len, parts)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return np.stack([self[i] for i in range(*index.indices(len(self)))])
        if not 0 <= index < len(self):
            raise IndexError(index)
        part = int(np.searchsorted(self.starts, index, side="right")) - 1
        return self.parts[part][index - self.starts[part]]


def shards(first: int, count: int) -> Iterator[tuple[int, int, int]]:
    """Number, first and last + 1 row of each shard that holds items `first` … `first + count - 1`."""
    for number in range(first // SHARD, (first + count - 1) // SHARD + 1):
        yield number, max(first - number * SHARD, 0), min(first + count - number * SHARD, SHARD)


def load_pictures(work: Path, split: str, count: int, seed: int = 0, workers: int = 2, first: int = 0) -> Pictures:
    """Items `first` … `first + count - 1` of a split, rendered on the first call and read afterwards.

    Args:
        work: folder of the trainings; the pictures lie in `work/pictures`.
        split: "train" or "heldout".
        count: number of scenes.
        seed: seed of the whole set.
        workers: rendering processes.
        first: the scenes before it are left out.

    Raises:
        UsageError: unknown split, a count or workers below 1, or a negative first.
    """
    if split not in SPLITS:
        raise UsageError(f"split={split}: use one of {', '.join(SPLITS)}")
    if count < 1 or first < 0:
        raise UsageError(f"count={count}, first={first}: use 1 or more, and 0 or more")
    if workers < 1:
        raise UsageError(f"workers={workers}: use 1 or more")
    folder = work / "pictures" / split
    wanted, missing = list(shards(first, count)), []
    for number, _, end in wanted:
        record = _read_record(folder / f"{number:04d}.json", _settings(seed, SPLITS[split]))
        if record is None or record["count"] < end:
            missing.append((folder / f"{number:04d}.npy", seed, SPLITS[split], number * SHARD, end))
    _render(missing, split, workers)
    arrays, captions, edges = [], [], []
    for number, begin, end in wanted:
        record = json.loads((folder / f"{number:04d}.json").read_text())
        arrays.append(np.load(folder / f"{number:04d}.npy", mmap_mode="r")[begin:end])
        captions += record["captions"][begin:end]
        edges += [tuple(edge) for edge in record["edges"][begin:end]]
    return Pictures(_Joined(arrays), captions, edges)


def _read_record(path: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    if not path.exists():
        return None
    record = json.loads(path.read_text())
    # A longer shard begins with the shorter one, so any prefix may be used.
    return record if record["settings"] == settings else None


def _render(jobs: list[tuple[Path, int, int, int, int]], split: str, workers: int) -> None:
    if not jobs:
        return
    total, done, start = sum(job[-1] for job in jobs), 0, time.monotonic()
    # Forking is fast but unsafe once PyTorch runs threads; a fresh interpreter per worker is not.
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=get_context("spawn")) as pool:
        for count in pool.map(_make_shard, jobs):
            done += count
            left = (time.monotonic() - start) / done * (total - done)
            line = f"[pictures {split}] {done}/{total}  {clock(left)} left"
            print(line, end="\r" if sys.stderr.isatty() and left > 0 else "\n", file=sys.stderr, flush=True)


@one_line_errors(exits=True)
def main() -> None:
    parser = argparse.ArgumentParser(description="Render the pictures of the miniature model.")
    parser.add_argument("--work", type=Path, default=Path("runs/mini-training"))
    parser.add_argument("--count", type=int, default=20000, help="training scenes")
    parser.add_argument("--first", type=int, default=0, help="number of the first training scene")
    parser.add_argument("--heldout", type=int, default=1000, help="held-out scenes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    for split, count, first in (("heldout", arguments.heldout, 0), ("train", arguments.count, arguments.first)):
        pictures = load_pictures(arguments.work, split, count, arguments.seed, arguments.workers, first)
        print(f"{split}: {len(pictures.captions)} pictures, e.g. {pictures.captions[0]}")


if __name__ == "__main__":
    main()
