"""The intra metrics as the runner computes them, timed against the released definition on the same image files."""

import math
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from baselines.released.scoring import (
    library_lpips,
    lpips_of_pairs,
    square_crops,
    style_layers,
    style_of_pairs,
)
from experiments.benchmarks.compare import OnRun, spent
from experiments.benchmarks.timing import Run, alternate, pairwise, timed
from experiments.metrics.config import MetricsConfig
from experiments.metrics.measure import BoundMeasurement, Networks, PanoramaImage, measure, measurements

NAMES = ("intra_lpips", "intra_style")
SIDES = ("ours", "released")
# Largest relative difference of the distance of a pair. float32 rounds by 6e-8 of a number, and the two sides sum in
# another order, with other convolution kernels for six crops at once than for one: on a CPU 1e-7 to 5e-7 was measured.
# The rest is room for the kernels of other machines.
TOLERANCE = 1e-4

Distances = Callable[[Sequence[PanoramaImage]], Tensor]  # n files -> distances of all pairs of crops, [n, p] float64


@dataclass(frozen=True)
class IntraMetric:
    """One metric both ways; released Intra-LPIPS is the mean, and Intra-Style-L the sum, of a panorama's distances."""

    name: str
    network: str
    ours: Distances
    released: Distances


def intra_metrics(config: MetricsConfig, networks: Networks) -> list[IntraMetric]:
    """The two of NAMES. The released side loads its networks here, as its scripts do before the first image."""
    wanted = {each.name: each for each in measurements(config, networks)}
    lpips, layers = library_lpips(config.device), style_layers(config.device)
    released = {
        "intra_lpips": lambda crops: lpips_of_pairs(lpips, crops),
        "intra_style": lambda crops: style_of_pairs(layers, crops),
    }
    return [
        IntraMetric(name, wanted[name].network, ours_of(wanted[name]), released_of(released[name], config))
        for name in NAMES
    ]


def ours_of(measurement: BoundMeasurement) -> Distances:
    """What the runner does for `measurement`, without its cache."""

    def distances(items: Sequence[PanoramaImage]) -> Tensor:
        values = measure(items, [measurement], cache=None)
        return torch.from_numpy(np.stack([each[measurement.name] for each in values]))

    return distances


def released_of(pairs: Callable[[Tensor], list[float]], config: MetricsConfig) -> Distances:
    """`pairs` of the crops of one file after the other."""

    def distances(items: Sequence[PanoramaImage]) -> Tensor:
        found = [pairs(square_crops(item.path, config.crop, config.device)) for item in items]
        return torch.tensor(found, dtype=torch.float64)

    return distances


def compare(
    metric: IntraMetric, items: Sequence[PanoramaImage], pairs: int, device: str, on_run: OnRun
) -> list[dict[str, Any]]:
    """Warm up, time in pairs; a row for ours and one for the released. The ratio is empty where they are not equal."""

    def run(side: str, kind: str, some: Sequence[PanoramaImage]) -> Run:
        done = timed(lambda: getattr(metric, side)(some), device)
        on_run(f"{kind} {side} {metric.name}", done.seconds)
        return done

    for side in SIDES:
        run(side, "warm-up", items[:1])
    runs = alternate(*(lambda s=side: run(s, "timed", items) for side in SIDES), pairs)
    difference = max(relative_difference(a.latents, b.latents) for a, b in zip(*runs, strict=True))
    equal = difference <= TOLERANCE
    ratios = astuple(pairwise(*runs)) if equal else (None,) * 3
    return [
        {
            "comparison": metric.name,
            "sampler": side,
            "network": metric.network,
            "panoramas": len(items),
            **spent(own),
            **dict(zip(("ratio", "ratio_min", "ratio_max"), ratios, strict=True)),
            "equal": equal,
            "difference": difference,
            "tolerance": TOLERANCE,
            "difference_from": "a pair's distance",
            "mean_distance": float(own[-1].latents.mean()),
        }
        for side, own in zip(SIDES, runs, strict=True)
    ]


def labels(pairs: int) -> list[str]:
    """What `compare` of both metrics will run, for the progress."""
    kinds = ["warm-up", *["timed"] * pairs]
    return [f"{kind} {side} {name}" for name in NAMES for kind in kinds for side in SIDES]


def relative_difference(ours: Tensor, released: Tensor) -> float:
    """Largest |ours - released| / |released|; infinite where shapes differ or a number is not finite."""
    if ours.shape != released.shape or not (ours.isfinite().all() and released.isfinite().all()):
        return math.inf
    apart = ours != released  # so that zero, the distance of equal crops, may equal zero
    return float(((ours - released).abs() / released.abs())[apart].max()) if apart.any() else 0.0
