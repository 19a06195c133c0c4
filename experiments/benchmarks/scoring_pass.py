"""Seconds of a whole scoring pass by number of panoramas, on pictures made for it."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from experiments.benchmarks.compare import OnRun
from experiments.common.resources import Cost, measure_cost
from experiments.metrics.catalogue import set_metrics
from experiments.metrics.config import MetricsConfig
from experiments.metrics.measure import Networks, PanoramaImage, measure, measurements
from experiments.metrics.score import score_panoramas

PROMPTS = tuple(f"prompt {index}" for index in range(6))  # as many as the paper's

Row = dict[str, Any]


def write_pictures(folder: Path, name: str, count: int, height: int, width: int) -> list[PanoramaImage]:
    """`count` PNG files of random colours, smoothly joined, under noise; the prompts take turns.

    What they show costs no time, but their parts must differ: between equal ones rounding would be all the distance.
    """
    items = []
    for index in range(count):
        generator = np.random.default_rng([index, width])
        coarse = generator.integers(0, 256, (4, 4 * width // height, 3), np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
        noisy = (smooth + generator.normal(0, 12, smooth.shape)).clip(0, 255).astype(np.uint8)
        seed, which = divmod(index, len(PROMPTS))
        items.append(PanoramaImage(PROMPTS[which], seed, name, folder / f"{name}_{index}.png"))
        Image.fromarray(noisy).save(items[-1].path)
    return items


def score_pass(
    items: Sequence[PanoramaImage],
    references: Sequence[PanoramaImage],
    config: MetricsConfig,
    networks: Networks,
    on_run: OnRun,
) -> Row:
    """One scoring pass without a cache, its seconds parted at the last panorama and at the last reference.

    After the references come pairs of panoramas, and FID, KID and others with their replicates: the fewer panoramas
    there are, the less of them (none for one). A panorama's share of the seconds is of all but the references' part.
    """
    n, last, done_at = len(items), len(items) + len(references), [0.0]

    def on_progress(done: int, total: int) -> None:
        done_at.append(time.perf_counter())
        if done <= n:
            on_run(f"panorama, {done} of {n}", (done_at[-1] - done_at[0]) / done)
        elif done <= last:  # the pairs of panoramas come after the references
            on_run(f"reference, {done - n} of {last - n}", (done_at[-1] - done_at[n]) / (done - n))

    with measure_cost(config.device) as cost:
        done_at[0] = time.perf_counter()
        score_panoramas(items, references, config, networks, on_progress)
    of_panoramas, of_references = done_at[n] - done_at[0], done_at[last] - done_at[n]
    return {
        **described("all metrics", n, len(references), cost),
        "seconds_per_panorama": (cost.seconds - of_references) / n,
        "seconds_panoramas": of_panoramas,
        "seconds_references": of_references,
        "seconds_sets": cost.seconds - of_panoramas - of_references,
    }


def reference_pass(
    references: Sequence[PanoramaImage], config: MetricsConfig, networks: Networks, on_run: OnRun
) -> Row:
    """What every pass does for its references; a pass over no panoramas, which there is not, would take this."""
    names = {metric.measurement.name for metric in set_metrics(config.metrics)}
    wanted = [each for each in measurements(config, networks) if each.name in names]
    started = time.perf_counter()
    with measure_cost(config.device) as cost:
        for done, _ in enumerate(measure(references, wanted, cache=None), start=1):
            on_run(f"reference, {done} of {len(references)}", (time.perf_counter() - started) / done)
    return {**described("references alone", 0, len(references), cost), "seconds_references": cost.seconds}


def described(name: str, panoramas: int, references: int, cost: Cost) -> Row:
    return {
        "comparison": name,
        "sampler": "ours",
        "panoramas": panoramas,
        "references": references,
        "runs": 1,
        "seconds": cost.seconds,
        "peak_memory_bytes": cost.peak_memory_bytes,
    }
