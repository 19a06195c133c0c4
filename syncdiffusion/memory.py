"""How many rows go through a network at once: as many as are asked for, or as fit into the free memory."""

import ctypes
import math
import sys
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from syncdiffusion.errors import UsageError

# Of the free memory: the rest is for what no tensor tells of, such as a convolution's workspace and fragmentation.
USABLE = {"cuda": 0.8, "cpu": 0.5}  # a CPU's memory is shared with other processes, and running out ends this one


# What a RuntimeError says where a CPU's memory has run out: of PyTorch's allocator, C++'s, and oneDNN (no more).
NO_MEMORY = ("can't allocate memory", "std::bad_alloc", "could not create a primitive", "could not create a memory")

Result = TypeVar("Result")


@dataclass
class Batch:
    """How many rows go through the networks at once; halved for good where they do not fit into memory.

    size: a number, or AUTO until a row has shown how much memory a row takes.
    setting: which setting chose it, for messages.
    kind: of the work, as far as it decides how much memory a row takes.
    known: bytes of a row by kind, kept with the model, which measures each kind once.
    """

    size: int | str
    setting: str = "window_batch"
    kind: tuple[Hashable, ...] = ()
    known: dict[tuple[Hashable, ...], int] = field(default_factory=dict)


def by_batches(function: Callable[..., tuple[Tensor, ...]], batch: Batch, *rows: Tensor) -> tuple[Tensor, ...]:
    """`function` over rows, `batch.size` at a time; each of its results for all rows.

    Rows that run out of memory are done again in halves, and what follows keeps the smaller size: the result is the
    same but for rounding. So `function` must leave nothing behind before it returns. With AUTO the first row goes
    alone and is measured; then it goes with the others, so that the result does not depend on who measured.

    Raises:
        UsageError: a single row does not fit into memory.
    """
    if isinstance(batch.size, str):  # AUTO
        batch.size = fitting(bytes_of_row(function, batch, rows), free_memory(rows[0].device))
    size = batch.size
    done: list[tuple[Tensor, ...]] = []
    start, count = 0, len(rows[0])
    while start < count:
        piece = [each[start : start + size] for each in rows]
        result = unless_out_of_memory(function, piece)
        if result is not None:
            done.append(result)
            start += len(piece[0])
        elif len(piece[0]) == 1:
            raise UsageError(
                f"{batch.setting}=1: not even one window fits into the free memory; "
                "end what else uses it, or use a lower precision or a smaller model"
            )
        else:
            batch.size = size = len(piece[0]) // 2
    return tuple(map(torch.cat, zip(*done, strict=True)))


def bytes_of_row(function: Callable[..., tuple[Tensor, ...]], batch: Batch, rows: Sequence[Tensor]) -> int:
    """Bytes that `function` takes for the first of the rows, as far as it got where memory ran out."""
    if batch.kind not in batch.known:
        with PeakMemory() as peak:
            result = unless_out_of_memory(function, [each[:1] for each in rows])
        if result is None:
            return peak.bytes
        batch.known[batch.kind] = peak.bytes
    return batch.known[batch.kind]


def unless_out_of_memory(function: Callable[..., Result], rows: Sequence[Tensor]) -> Result | None:
    """`function(*rows)`, or None where memory ran out; what the attempt held is free by then."""
    try:
        return function(*rows)
    except RuntimeError as error:  # torch.OutOfMemoryError is one; on a CPU no kind of its own is raised
        if not isinstance(error, torch.OutOfMemoryError) and not any(words in str(error) for words in NO_MEMORY):
            raise
    # Out here the traceback, which holds the attempt's tensors, is gone.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None


def fitting(row: int, free: float) -> int:
    """Rows of `row` bytes that fit into `free` bytes; 1 where none does, which then shows by itself."""
    return max(1, math.floor(free / max(1, row)))


def free_memory(device: torch.device) -> float:
    """Bytes that tensors on `device` may take: the usable share of what is free now."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return USABLE["cuda"] * (torch.cuda.mem_get_info(device)[0] + cached)
    import psutil

    taken = psutil.Process().memory_info().vms
    return USABLE["cpu"] * min(psutil.virtual_memory().available, _below_limit(taken), *_left_to_groups())


def _below_limit(taken: int) -> float:
    """Bytes that a process of `taken` bytes may yet take, by its own limit (`ulimit -v`, which clusters set)."""
    try:
        import resource
    except ImportError:  # Windows
        return math.inf
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return math.inf if limit == resource.RLIM_INFINITY else max(0, limit - taken)


def _left_to_groups(root: Path = Path("/")) -> list[float]:
    """Bytes that control groups leave to this process: containers and clusters end it beyond their limit.

    Of the process's own group and every one above it. Cache of files counts as free: it gives way.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # no Linux
        return []
    found = []
    for line in lines:
        _, kinds, place = line.split(":", 2)
        if kinds not in ("", "memory"):
            continue
        base = root / "sys/fs/cgroup" / kinds  # version 2, or version 1's own tree
        names = ("memory.max", "memory.current") if not kinds else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        group = base / place.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(base) and (left := _left_to_group(folder, *names)) is not None:
                found.append(left)
    return found


def _left_to_group(folder: Path, limit: str, usage: str) -> float | None:
    """None where a group has no limit, or tells of none."""
    try:
        most, taken = (folder / limit).read_text().strip(), int((folder / usage).read_text())
        counts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    cache = int(counts.get("total_inactive_file", counts.get("inactive_file", 0)))
    return None if most == "max" else max(0.0, float(int(most) - taken + cache))


@dataclass
class _Live:
    storages: dict[int, tuple[StorageWeakRef, int]] = field(default_factory=dict)
    bytes: int = 0


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of all tensors that operations make while it is on, and how many lived at once at most.

    Works alike on every device, backward passes included, and leaves a device's own statistics untouched. Views and
    what was there before do not count.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes, self._live = 0, _Live()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        made = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor) and leaf.untyped_storage()._cdata not in before:
                self._count(leaf.untyped_storage())
        self.bytes = max(self.bytes, self._live.bytes)
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        live = self._live
        for key in [key for key, (reference, _) in live.storages.items() if reference.expired()]:
            live.bytes -= live.storages.pop(key)[1]
        live.storages[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        live.bytes += storage.nbytes()


def keep_freed_memory() -> bool:
    """Ask glibc to keep freed memory instead of returning it to the system; whether it will.

    By default every tensor above 32 MiB is mapped anew, so that each use pays for its pages again: a third of the time
    of 20 windows at once through VGG-16 on a CPU. It changes the whole process, so programs call it, not the library.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
    largest = 2**31 - 1
    return all(
        mallopt(option, value)
        for option, value in ((M_MMAP_THRESHOLD, 2**30), (M_TRIM_THRESHOLD, largest), (M_TOP_PAD, 2**28))
    )
