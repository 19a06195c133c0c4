"""The metrics there are: the files of `definitions`, and what a plugin registers. Nothing here imports torch."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from experiments.metrics import definitions
from experiments.metrics.metric import AnyMetric, Metric, PairMetric, PanoramaMetric, SetMetric
from syncdiffusion.errors import UsageError

ALL_PROMPTS = "all"  # in a `prompt` column: the whole set

# What a panorama's line in panoramas.csv has beside its numbers.
COLUMNS = ("method", "prompt", "seed", "seconds", "peak_memory_bytes", "device", "file", "key")
DEFINED: dict[str, AnyMetric] = {}  # by their words in metrics.metrics, in the order of tables
METRICS: dict[str, Metric] = {}  # the numbers that they yield, by name, in the order of tables


def register(metric: AnyMetric) -> AnyMetric:
    """Make a metric known, so that `metrics.metrics=[...]` may name it; the same again changes nothing.

    A file outside of this repository calls it when it is imported, as `plugins=[FILE]` does.

    Raises:
        UsageError: another metric has its name, or the name of one of its columns.
    """
    if DEFINED.get(metric.name) == metric:
        return metric
    taken = {column: other.name for other in DEFINED.values() for column in (each.name for each in other.columns)}
    clash = next((each.name for each in metric.columns if each.name in taken or each.name in COLUMNS), None)
    if metric.name in DEFINED or clash is not None:
        name = metric.name if metric.name in DEFINED else clash
        raise UsageError(f"plugins: there is a metric {name} already; give the new one another name")
    known = sorted((*DEFINED.values(), metric), key=lambda each: each.place)
    DEFINED.clear()
    DEFINED.update({each.name: each for each in known})
    METRICS.clear()
    METRICS.update({column.name: column for each in known for column in each.columns})
    return metric


def panorama_metrics(names: list[str]) -> list[PanoramaMetric]:
    """Those of `names` that are of single panoramas, in the order of tables."""
    return [each for each in DEFINED.values() if each.name in names and isinstance(each, PanoramaMetric)]


def set_metrics(names: list[str]) -> list[SetMetric]:
    """Those of `names` that are of whole sets, in the order of tables."""
    return [each for each in DEFINED.values() if each.name in names and isinstance(each, SetMetric)]


def pair_metrics(names: list[str]) -> list[PairMetric]:
    """Those of `names` that are of pairs of panoramas, in the order of tables."""
    return [each for each in DEFINED.values() if each.name in names and isinstance(each, PairMetric)]


for _file in iter_modules(definitions.__path__):
    register(import_module(f"{definitions.__name__}.{_file.name}").METRIC)
