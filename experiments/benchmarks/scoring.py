"""What scoring costs on one machine: ``python -m experiments.benchmarks.scoring [options]``.

Prints two tables and writes NAME.csv with a NAME.json (machine, versions, git state, command) into a folder:

- Intra-LPIPS and Intra-Style-L as the runner computes them against the released definition (`released_scoring`), from
  the same PNG files, in alternating pairs. The ratio is theirs over ours in seconds, and it is given only where all
  distances are equal.
- A whole scoring pass of `metrics=mini` without its cache, once for each number of panoramas; the networks are loaded
  before.

The pictures are random ones of the miniature's shape: what they show costs no time. Exit status 0; 1 where distances
are not equal; 2 for a mistake of the user's, told in one line.
"""

import argparse
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tabulate import tabulate

from experiments.benchmarks.intra import TOLERANCE, compare, intra_metrics, labels
from experiments.benchmarks.record import open_folder, table, write
from experiments.benchmarks.run import on_run_of
from experiments.benchmarks.scoring_pass import PROMPTS, Row, reference_pass, score_pass, write_pictures
from experiments.common.command_line import one_line_errors
from experiments.common.environment import cpu_model, environment
from experiments.metrics.config import MetricsConfig
from experiments.metrics.measure import Networks, measurements
from experiments.metrics.networks import load_networks
from syncdiffusion.backbones.loading import pick_device
from syncdiffusion.command_line import Parser
from syncdiffusion.errors import UsageError
from syncdiffusion.memory import keep_freed_memory

ASPECT = 6  # width in heights: six square crops, 15 pairs, as in the paper and the miniature
COMPARED = 2  # panoramas in each timed run of a comparison: half a second of a CPU for the quickest
REFERENCES = 50  # square reference images of every scoring pass
PASS_COLUMNS = {  # heading of the printed table -> column
    "scoring pass": "comparison",
    "panoramas": "panoramas",
    "references": "references",
    "seconds": "seconds",
    "per panorama": "seconds_per_panorama",
    "of panoramas": "seconds_panoramas",
    "of references": "seconds_references",
    "of FID, KID, GIQA": "seconds_sets",
}


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = Parser(
        prog="python -m experiments.benchmarks.scoring", description=__doc__.splitlines()[0], allow_abbrev=False
    )
    parser.add_argument(
        "--counts", type=int, nargs="+", default=[1, 4, 16, 64], help="panoramas in a pass (default: 1 4 16 64)"
    )
    parser.add_argument("--pairs", type=int, default=5, help="ours and released, this many times each (default: 5)")
    parser.add_argument(
        "--height", type=int, default=128, help=f"pixels (default: 128); the width is {ASPECT} times it"
    )
    parser.add_argument("--device", default="auto", help="auto (default), cpu or cuda")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"), help="folder of the files")
    parser.add_argument("--name", default="mini_scoring", help="of the files (default: mini_scoring)")
    options = parser.parse_args(words)
    bounds = {"counts": 1, "pairs": 1, "height": 16}  # VGG-16 halves an image four times
    for name, bound in bounds.items():
        for value in np.atleast_1d(getattr(options, name)):
            if value < bound:
                raise UsageError(f"--{name} {value}: use {bound} or more")
    if Path(options.name).name != options.name:
        raise UsageError(f"--name {options.name}: use a file name without folders or ending; --out chooses the folder")
    return options


def measure_all(
    options: argparse.Namespace, config: MetricsConfig, networks: Networks, folder: Path
) -> tuple[list[Row], list[Row]]:
    """The rows of the comparisons and those of the scoring passes. Pictures go into `folder`."""
    torch.backends.cudnn.allow_tf32 = False  # float32 is float32, in convolutions as in matrix products
    height, counts = options.height, options.counts
    items = write_pictures(folder, "panorama", max(COMPARED, *counts), height, ASPECT * height)
    references = write_pictures(folder, "reference", REFERENCES, height, height)
    images = {"warm-up panorama": 1, "warm-up reference": 1}
    images |= {"panorama": sum(counts), "reference": REFERENCES * (len(counts) + 1)}
    on_run = on_run_of([*labels(options.pairs), *(label for label, times in images.items() for _ in range(times))])

    compared = []
    for metric in intra_metrics(config, networks):
        compared += compare(metric, items[:COMPARED], options.pairs, config.device, on_run)
    # Inception and CLIP are loaded when the first image comes.
    score_pass(items[:1], references[:1], config, networks, lambda what, s: on_run(f"warm-up {what}", s))
    passed = [reference_pass(references, config, networks, on_run)]
    passed += [score_pass(items[:count], references, config, networks, on_run) for count in counts]
    shape = {"device": torch.device(config.device).type, "height": height, "width": ASPECT * height}
    return [row | shape for row in compared], [row | shape for row in passed]


def about(options: argparse.Namespace, config: MetricsConfig, networks: Networks, words: Sequence[str]) -> Row:
    """Machine, versions, git state, command, settings and the networks' provenance; plain JSON values."""
    gpu = config.device.startswith("cuda")
    return {
        **environment(),
        "command": shlex.join(["python", "-m", "experiments.benchmarks.scoring", *words]),
        "device": torch.cuda.get_device_name(config.device) if gpu else cpu_model(),
        "cuda": torch.version.cuda if gpu else None,
        "threads": torch.get_num_threads(),
        "settings": {
            "counts": options.counts,
            "pairs": options.pairs,
            "canvas": [options.height, ASPECT * options.height],
            "compared": COMPARED,
            "references": REFERENCES,
            "prompts": len(PROMPTS),
            "tolerance": TOLERANCE,
            "metrics": list(config.metrics),
            "batch": config.batch,
        },
        "networks": {each.name: each.network for each in measurements(config, networks)},
    }


def pass_table(rows: Sequence[Row]) -> str:
    lines = [[row.get(column) for column in PASS_COLUMNS.values()] for row in rows]
    return tabulate(lines, list(PASS_COLUMNS), "plain", floatfmt=".3f")


def verdict(rows: Sequence[Row]) -> int:
    """Exit status 1 and one line on stderr where distances were not equal, else 0."""
    void = {row["comparison"]: row["difference"] for row in rows if not row["equal"]}
    if not void:
        return 0
    said = [f"{name}: distances differ by {difference:.1e} of themselves" for name, difference in void.items()]
    print(f"void: {'; '.join(said)} (tolerance {TOLERANCE:.0e})", file=sys.stderr)
    return 1


@one_line_errors()
def main(words: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if words is None else words)
    options = parse(words)
    config = MetricsConfig(crop=options.height, device=str(pick_device(options.device)))
    folder = open_folder(options.out)
    keep_freed_memory()
    networks = load_networks(config)
    with tempfile.TemporaryDirectory() as pictures:
        compared, passed = measure_all(options, config, networks, Path(pictures))
    print(table(compared))  # before anything is written: a full disk takes no work along
    print(pass_table(passed))
    path = write(folder, options.name, [*compared, *passed], about(options, config, networks, words))
    print(f"written: {path}")
    return verdict(compared)


if __name__ == "__main__":
    sys.exit(main())
