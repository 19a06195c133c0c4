"""Seconds and peak memory of our SyncDiffusion alone, over the canvas' width and over the windows at once."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from experiments.benchmarks.compare import Bench, described, spent
from experiments.benchmarks.samplers import SYNCDIFFUSION
from syncdiffusion.guidance import SyncDiffusionSettings

ASPECTS = (2, 4, 6, 8, 12, 16, 24)  # width in heights
GRADIENT_BATCHES = (1, 2, 5, 10, 20)
OVER = ("width", "gradient_batch")


def varied(settings: SyncDiffusionSettings, over: str) -> list[SyncDiffusionSettings]:
    """The settings with every value of "width" (pixels) or "gradient_batch"."""
    if over == "width":
        return [replace(settings, width=aspect * settings.height) for aspect in ASPECTS]
    return [replace(settings, gradient_batch=size) for size in GRADIENT_BATCHES]


def sweep(bench: Bench, over: str) -> Iterator[dict[str, Any]]:
    """A row per value, as they are done: a warm-up, then as many runs as the bench has pairs."""
    for settings in varied(bench.case.timed[0], over):
        bench.warm_up(SYNCDIFFUSION, settings)
        runs = [bench.run(SYNCDIFFUSION, settings, f"{over}={getattr(settings, over)}") for _ in range(bench.pairs)]
        yield {**described(bench, f"over {over}", SYNCDIFFUSION, settings), **spent(runs)}


def sweep_labels(settings: SyncDiffusionSettings, over: str, pairs: int) -> list[str]:
    """What `sweep` will run, in order, for the progress."""
    name = SYNCDIFFUSION.name
    labels = []
    for each in varied(settings, over):
        labels += [f"warm-up {name}", *[f"{over}={getattr(each, over)} {name}"] * pairs]
    return labels
