"""What making a panorama costs: seconds and peak memory."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Cost:
    seconds: float = 0.0
    peak_memory_bytes: int = 0  # of the GPU where one is used, else resident memory of the process

    def and_then(self, other: Cost) -> Cost:
        """Of both, one after the other."""
        return Cost(self.seconds + other.seconds, max(self.peak_memory_bytes, other.peak_memory_bytes))


@contextmanager
def measure_cost(device: str) -> Iterator[Cost]:
    """Measure the block; the values stand in the yielded Cost when it has ended."""
    cost = Cost()
    on_gpu = device.startswith("cuda")
    if on_gpu:
        import torch

        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    else:
        _reset_peak()
    started = time.perf_counter()
    yield cost
    if on_gpu:
        torch.cuda.synchronize(device)
        cost.peak_memory_bytes = torch.cuda.max_memory_allocated(device)
    else:
        cost.peak_memory_bytes = _peak()
    cost.seconds = time.perf_counter() - started


def _reset_peak() -> None:
    """Linux lets a process forget its peak; elsewhere the peak since its start is reported."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass


def _peak() -> int:
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
