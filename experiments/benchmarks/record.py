"""The rows of a benchmark as a CSV file, what they were made on as JSON beside it, and a table to read."""

import csv
import io
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from experiments.benchmarks.cases import Case
from experiments.common.environment import cpu_model, environment
from experiments.common.files import Unwritable, write_json, write_whole
from syncdiffusion.errors import UsageError

Row = Mapping[str, Any]

SHOWN = {  # heading of the printed table -> column
    "comparison": "comparison",
    "sampler": "sampler",
    "canvas": "width",
    "first_n": "first_n",
    "batch": "window_batch",
    "seconds": "seconds",
    "ratio": "ratio",
    "least": "ratio_min",
    "most": "ratio_max",
    "equal": "equal",
    "difference": "difference",
    "from": "difference_from",
    "peak MB": "peak_memory_bytes",
    "TFLOP": "flops",
    "of matmul": "fraction_of_matmul",
    "of MultiDiffusion": "times_multidiffusion",
}
SCALES = {"flops": 1e12, "peak_memory_bytes": 1e6}


def open_folder(folder: Path) -> Path:
    """Makes the folder; UsageError where it cannot be written to, before anything was computed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {folder}: cannot be made ({error.strerror}); give a folder to write to") from None
    if not os.access(folder, os.W_OK):
        raise UsageError(f"--out {folder}: cannot be written to; give another folder")
    return folder


def write(folder: Path, name: str, rows: Sequence[Row], about: Mapping[str, Any]) -> Path:
    """folder/name.csv with every column of any row, and folder/name.json; returns the CSV's path.

    Raises:
        UsageError: a file cannot be written; it is then as it was before, or not there.
    """
    path = folder / f"{name}.csv"
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({column: _cell(value) for column, value in row.items()} for row in rows)
    try:
        write_whole(path, text.getvalue())
        write_json(path.with_suffix(".json"), about)
    except Unwritable as error:
        raise UsageError(f"--out: {error}; make room there or give another --out FOLDER") from error
    return path


def about(case: Case, device: torch.device, rate: float | None, words: Sequence[str]) -> dict[str, Any]:
    """Machine, versions, git state, command and the case's settings; plain JSON values."""
    kept = ("timed", "check", "check_tolerance", "sync_tolerance", "multi_tolerance", "prompt", "seed", "precision")
    settings = asdict(case)
    gpu = device.type == "cuda"
    return {
        **environment(),
        "command": shlex.join(["python", "-m", "experiments.benchmarks.run", *words]),
        "device": torch.cuda.get_device_name(device) if gpu else cpu_model(),
        "cuda": torch.version.cuda if gpu else None,
        "threads": torch.get_num_threads(),
        "matmul_tflops": None if rate is None else rate / 1e12,
        "case": {"name": case.name, **{name: settings[name] for name in kept}},
    }


def table(rows: Sequence[Row]) -> str:
    """The columns of SHOWN that any row has, aligned."""
    shown = {heading: column for heading, column in SHOWN.items() if any(column in row for row in rows)}
    lines = [[_shown(column, row.get(column)) for column in shown.values()] for row in rows]
    return tabulate(lines, list(shown), "plain", disable_numparse=True)


def _shown(column: str, value: Any) -> str:
    if isinstance(value, (int, float)) and column in SCALES:
        return f"{value / SCALES[column]:.4g}"
    return f"{value:.4g}" if isinstance(value, float) else _cell(value)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)
