"""Metrics of pairs of images that a method made of one prompt: how far its seeds differ. Nothing here imports torch.

Of each prompt, an image is held against the NEXT that follow it in the order of their seeds, the first ones following
the last. So the cost grows with the number of seeds, not with its square, and every image has the same part in the
mean. Up to 2 * NEXT + 1 seeds these are all pairs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from experiments.metrics.cache import FeatureCache
from experiments.metrics.crops import read_image
from experiments.metrics.estimates import Difference, Estimate
from experiments.metrics.measure import BoundMeasurement, ImageFile, PanoramaImage, checked_values
from experiments.metrics.metric import PairMetric
from experiments.panoramas.records import Checksums

NEXT = 2
Seeds = tuple[int, int]
OfPrompts = Mapping[str, Mapping[Seeds, float]]  # prompt -> two seeds, the lower first -> the mean of their values


@dataclass(frozen=True)
class PairValues:
    """A metric with what it found: method -> prompt -> pair of seeds -> value."""

    metric: PairMetric
    network: str
    found: Mapping[str, OfPrompts] = field(repr=False)


def partners(seeds: Sequence[int]) -> list[Seeds]:
    """The pairs of seeds, in order of the first."""
    known = sorted(seeds)
    pairs = {
        tuple(sorted((seed, known[(place + step) % len(known)])))
        for place, seed in enumerate(known)
        for step in range(1, NEXT + 1)
    }
    return sorted(pair for pair in pairs if pair[0] != pair[1])


def measure_pairs(
    bound: BoundMeasurement,
    metric: PairMetric,
    items: Sequence[PanoramaImage],
    cache: FeatureCache | None,
    done: Callable[[], None],
) -> PairValues:
    """Every pair of each method and prompt; `done` is called for each image.

    Raises:
        UsageError: an image that cannot be read or is smaller than the crop, or a value that is no finite number.
    """
    groups: dict[str, dict[str, dict[int, PanoramaImage]]] = {}
    for item in items:
        groups.setdefault(item.method, {}).setdefault(item.prompt, {})[item.seed] = item
    found: dict[str, dict[str, dict[Seeds, float]]] = {}
    for method, prompts in groups.items():
        for prompt, of_seeds in prompts.items():
            values = measure_group(bound, metric, of_seeds, cache)
            found.setdefault(method, {})[prompt] = {pair: float(each.mean()) for pair, each in values.items()}
            for _ in of_seeds:
                done()
    return PairValues(metric, bound.network, found)


def measure_group(
    bound: BoundMeasurement, metric: PairMetric, items: Mapping[int, PanoramaImage], cache: FeatureCache | None
) -> dict[Seeds, np.ndarray]:
    """The pairs of one method and prompt; those of pictures of different sizes, which nothing aligns, are left out."""
    if len(items) < 2:
        return {}
    known = Checksums() if cache is None else cache.checksums
    files = {seed: ImageFile(item, read_image(item.path), known) for seed, item in items.items()}
    found: dict[Seeds, np.ndarray] = {}
    wanted = []
    for pair in partners(list(items)):
        there = None if cache is None else cache.get(pair_key(bound, *(files[seed] for seed in pair)))
        if there is not None:
            found[pair] = there
        elif files[pair[0]].pixels.shape == files[pair[1]].pixels.shape:
            wanted.append(pair)
    computed = metric.compute(files, wanted, bound.through, bound.config) if wanted else []
    for pair, values in zip(wanted, computed, strict=True):
        found[pair] = checked_values(bound, files[pair[1]], values)
        if cache is not None:
            cache.put(pair_key(bound, *(files[seed] for seed in pair)), values)
    return {pair: found[pair] for pair in sorted(found)}


def pair_key(bound: BoundMeasurement, first: ImageFile, second: ImageFile) -> str:
    """All that decides the values of two images."""
    content = {
        "png_sha256": [first.digest, second.digest],
        "measurement": bound.name,
        "version": bound.measurement.version,
        "network": bound.network,
        "fingerprint": bound.fingerprint,
        "parameters": bound.measurement.parameters(first.item, bound.config),
    }
    if bound.measurement.code:
        content["code"] = bound.measurement.code
    return json.dumps(content, sort_keys=True)


def pair_mean(found: OfPrompts) -> Estimate | None:
    """The mean over prompts of the mean over pairs, and its standard error over new seeds of the same prompts.

    The error is the jackknife's, which leaves out one seed after the other: pairs that share a seed are not
    independent. It is right to too large: of values that behave as distances by half at three seeds, by a fifth at ten.
    None where a prompt has fewer than three seeds, whose spread nothing tells. Nothing at all for no pair.
    """
    there = {prompt: pairs for prompt, pairs in found.items() if pairs}
    if not there:
        return None
    value = float(np.mean([np.mean(list(pairs.values())) for pairs in there.values()]))
    errors = [jackknife(pairs) for pairs in there.values()]
    if None in errors:
        return Estimate(value, None)
    return Estimate(value, float(np.sqrt(sum(errors))) / len(there))


def jackknife(pairs: Mapping[Seeds, float]) -> float | None:
    """The variance of the mean of pairs; None of fewer than three seeds."""
    seeds = sorted({seed for pair in pairs for seed in pair})
    without = [[value for pair, value in pairs.items() if seed not in pair] for seed in seeds]
    if len(seeds) < 3 or not all(without):
        return None
    means = np.array([np.mean(each) for each in without])
    return float((len(seeds) - 1) / len(seeds) * np.square(means - means.mean()).sum())


def pair_difference(ours: OfPrompts, theirs: OfPrompts, paired: bool) -> Difference | None:
    """One method less another on the prompts that both have; with shared noise on the pairs of seeds that both have.

    No test: swapping the labels of a seed would ask for distances between the two methods. n counts images, of both
    where they are not paired.
    """
    common = prompts_of_both(ours, theirs, paired)
    if paired:
        apart = {
            prompt: {
                pair: value - theirs[prompt][pair] for pair, value in ours[prompt].items() if pair in theirs[prompt]
            }
            for prompt in common
        }
        found = pair_mean(apart)
        return None if found is None else Difference(found.value, found.stderr, np.nan, count(apart))
    sides = [{prompt: each[prompt] for prompt in common} for each in (ours, theirs)]
    first, second = (pair_mean(each) for each in sides)
    if first is None or second is None:
        return None
    errors = (first.stderr, second.stderr)
    stderr = None if None in errors else float(np.hypot(*errors))
    return Difference(first.value - second.value, stderr, np.nan, sum(map(count, sides)))


def prompts_of_both(ours: OfPrompts, theirs: OfPrompts, paired: bool) -> list[str]:
    """Those of which both have a pair; with shared noise the same pair of seeds."""
    return [
        prompt
        for prompt, pairs in ours.items()
        if (other := theirs.get(prompt)) and pairs and (not paired or pairs.keys() & other.keys())
    ]


def count(found: OfPrompts) -> int:
    """Images that have a part in some pair."""
    return sum(len({seed for pair in pairs for seed in pair}) for pairs in found.values())
