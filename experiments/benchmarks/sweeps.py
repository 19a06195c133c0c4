"""Seconds and peak memory of our samplers alone, over the canvas' width and over the windows at once."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from experiments.benchmarks.compare import Bench, described, spent
from experiments.benchmarks.samplers import MULTIDIFFUSION, SYNCDIFFUSION, Sampler
from syncdiffusion.sync import SyncDiffusionSettings


@dataclass(frozen=True)
class Sweep:
    """A setting, its values, and the samplers whose cost it decides. Of a width the values are in heights."""

    setting: str
    values: tuple[int, ...]
    samplers: tuple[Sampler, ...]

    def varied(self, settings: SyncDiffusionSettings) -> list[SyncDiffusionSettings]:
        """The settings with each of the values."""
        unit = settings.height if self.setting == "width" else 1
        return [replace(settings, **{self.setting: value * unit}) for value in self.values]


SWEEPS: dict[str, Sweep] = {
    sweep.setting: sweep
    for sweep in (
        Sweep("width", (2, 4, 6, 8, 12, 16, 24), (SYNCDIFFUSION, MULTIDIFFUSION)),
        Sweep("gradient_batch", (1, 2, 5, 10, 20), (SYNCDIFFUSION,)),
        Sweep("window_batch", (1, 2, 5, 10, 21), (MULTIDIFFUSION,)),
    )
}


def sweep(bench: Bench, over: str) -> Iterator[dict[str, Any]]:
    """A row per value and sampler, as they are done: a warm-up, then as many runs as the bench has pairs."""
    chosen = SWEEPS[over]
    for settings in chosen.varied(bench.case.timed[0]):
        for sampler in chosen.samplers:
            bench.warm_up(sampler, settings)
            runs = [bench.run(sampler, settings, f"{over}={getattr(settings, over)}") for _ in range(bench.pairs)]
            yield {**described(bench, f"over {over}", sampler, settings), **spent(runs)}


def sweep_labels(settings: SyncDiffusionSettings, over: str, pairs: int) -> list[str]:
    """What `sweep` will run, in order, for the progress."""
    labels = []
    for each in SWEEPS[over].varied(settings):
        for sampler in SWEEPS[over].samplers:
            labels += [f"warm-up {sampler.name}", *[f"{over}={getattr(each, over)} {sampler.name}"] * pairs]
    return labels
