"""Images on disk -> the numbers of a run: of each panorama, of each method and prompt, of blocks of seeds, of pairs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from experiments.metrics.cache import FeatureCache
from experiments.metrics.catalogue import ALL_PROMPTS, METRICS, pair_metrics, set_metrics
from experiments.metrics.config import MetricsConfig, check_config
from experiments.metrics.estimates import (
    Difference,
    Estimate,
    ImageSet,
    mean_estimate,
    stacked,
    unpaired_difference,
    unpaired_means,
)
from experiments.metrics.features import alike
from experiments.metrics.measure import BoundMeasurement, Networks, PanoramaImage, bind, measure, measurements
from experiments.metrics.metric import SetMetric
from experiments.metrics.pairs import PairValues, count, measure_pairs, pair_difference, pair_mean, prompts_of_both
from experiments.metrics.reference_features import SavedFeatures, facts_of

CsvLine = dict[str, object]
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class Scored:
    """The numbers of one scoring pass.

    rows: a row per image, in order: method, prompt, seed and its per-panorama metrics (None where an
        image has fewer than two crops to compare).
    scores: a row per method, prompt and metric: method, prompt ("all" for the set), metric, value,
        stderr, n, network. n is the number of scored images; stderr is None for FID (no unbiased
        estimate exists) and where n is too small for one. Of per-panorama metrics it is that of a plain
        mean, which counts the spread between prompts; of sets that of new seeds of the same prompts.
        A number that n does not allow has no row: FID wants two images on both sides, KID two of every
        prompt, GIQA `giqa_neighbours` references, and all of them a reference image of every prompt.
    replicates: the metrics of sets, of all prompts, on disjoint blocks of seeds: method, replicate (from
        0), metric, value, n, network. A replicate is the same seeds for every method; a method that
        lacks one of its images has no row for it.
    swaps: the metrics of sets, of each method less that of the one compared with: method, against,
        metric, difference, stderr, p (see `Difference`), n (pairs), prompts, network.
    references: features of the reference images by measurement, and references_facts what decides them: to be saved.
    """

    rows: list[CsvLine]
    scores: list[CsvLine]
    replicates: list[CsvLine]
    swaps: list[CsvLine] = field(default_factory=list)
    references: Mapping[str, ImageSet] = field(default_factory=dict, compare=False, repr=False)
    references_facts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, compare=False, repr=False)


def score_panoramas(
    items: Sequence[PanoramaImage],
    reference: Sequence[PanoramaImage],
    config: MetricsConfig,
    networks: Networks,
    on_progress: OnProgress | None = None,
    cache: FeatureCache | None = None,
    against: str | None = None,
    paired: bool = True,
    saved: SavedFeatures | None = None,
) -> Scored:
    """Score `items`; metrics of whole sets hold them against `reference`, prompt by prompt and in all.

    on_progress: called after each image with (images done, images in all).
    cache: where features of earlier passes are found and those of this one are kept; None computes all.
    against: the method that the others are compared with; None for no comparison of set metrics.
    paired: whether images of one prompt and seed are pairs, of one noise; else all of the prompts that both have count.
    saved: features of reference images, in place of `reference`.

    Raises:
        UsageError: an image that cannot be read, is smaller than `config.crop`, or has a score that is no number.
    """
    check_config(config)
    of_pairs = [
        (metric, bound)
        for metric in pair_metrics(config.metrics)
        if (bound := bind(metric.measurement, config, networks)) is not None
    ]
    done = _counter(len(items) * (1 + len(of_pairs)) + len(reference), on_progress)
    wanted = measurements(config, networks)
    bound = {each.name: each for each in wanted}
    of_sets = [metric for metric in set_metrics(config.metrics) if metric.measurement.name in bound]
    needed = dict.fromkeys(metric.measurement.name for metric in of_sets)
    prompts = {item.prompt for item in items}
    others = {} if saved is None else {name: saved.of(bound[name], prompts) for name in needed}
    rows: list[CsvLine] = []
    features: dict[str, list[np.ndarray]] = {name: [] for name in needed}
    for item, values in zip(items, measure(items, wanted, cache), strict=True):
        row: CsvLine = {"method": item.method, "prompt": item.prompt, "seed": item.seed}
        for each in wanted:
            row |= each.row(item.path, values[each.name])
        rows.append(row)
        for name in needed:
            features[name].append(values[name])
        done()
    targets: dict[str, list[np.ndarray]] = {name: [] for name in needed}
    for values in measure(reference if needed else (), [bound[name] for name in needed], cache):
        for name in needed:
            targets[name].append(values[name])
        done()
    mine = {name: _image_set(items, features[name]) for name in needed}
    others = others or {name: _image_set(reference, targets[name]) for name in needed}
    names = [(metric, metric.measurement.name) for metric in of_sets]
    sets = [SetFeatures(metric, mine[name], others[name], bound[name].network) for metric, name in names]
    pairs = [measure_pairs(each, metric, items, cache, done) for metric, each in of_pairs]
    scores = _means(items, rows, wanted) + _set_scores(items, sets, config) + _pair_scores(items, pairs)
    order = {name: index for index, name in enumerate(METRICS)}
    place = {key: index for index, key in enumerate(_groups(items))}
    scores.sort(key=lambda row: (place[row["method"], row["prompt"]], order[row["metric"]]))
    replicates, swaps = _replicates(items, sets, config), _swaps(items, sets, config, against, paired)
    swaps += _pair_swaps(pairs, against, paired)
    return Scored(rows, scores, replicates, swaps, others, {name: facts_of(bound[name]) for name in needed})


@dataclass(frozen=True)
class SetFeatures:
    """A metric of whole sets with the features, in the order of the images, that it is made of."""

    metric: SetMetric
    generated: ImageSet
    reference: ImageSet
    network: str

    def target(self, images: ImageSet, config: MetricsConfig) -> ImageSet | None:
        """The reference images of their prompts; None where a prompt has none, or either side has too few."""
        wanted = set(images.prompts)
        those = [i for i, prompt in enumerate(self.reference.prompts) if prompt in wanted]
        reference = self.reference.part(those)
        there = wanted <= set(reference.prompts) and self.metric.enough(images, reference, config)
        return reference if there else None


def _image_set(items: Sequence[PanoramaImage], features: Sequence[np.ndarray]) -> ImageSet:
    return ImageSet(stacked(features), tuple(item.prompt for item in items))


def _means(items: Sequence[PanoramaImage], rows: list[CsvLine], wanted: Sequence[BoundMeasurement]) -> list[CsvLine]:
    """Means of the per-panorama metrics over each group."""
    made_by = {name: each.network for each in wanted for name in each.columns}
    scores = []
    for group, indices in _groups(items).items():
        for name, network in made_by.items():
            values = [rows[i][name] for i in indices if rows[i][name] is not None]
            if values:
                scores.append(_score(group, name, mean_estimate(np.array(values)), len(values), network))
    return scores


def _set_scores(items: Sequence[PanoramaImage], sets: Sequence[SetFeatures], config: MetricsConfig) -> list[CsvLine]:
    """The set metrics of each group against the reference images of the same prompts."""
    scores = []
    for group, indices in _groups(items).items():
        for each in sets:
            generated = each.generated.part(indices)
            reference = each.target(generated, config)
            if reference is not None:
                estimate = each.metric.estimate(generated, reference, config)
                scores.append(_score(group, each.metric.column.name, estimate, len(indices), each.network))
    return scores


def _pair_scores(items: Sequence[PanoramaImage], pairs: Sequence[PairValues]) -> list[CsvLine]:
    """The metrics of pairs of each group."""
    scores = []
    for method, prompt in _groups(items):
        for each in pairs:
            found = each.found[method]
            chosen = found if prompt == ALL_PROMPTS else {prompt: found[prompt]}
            estimate = pair_mean(chosen)
            if estimate is not None:
                scores.append(_score((method, prompt), each.metric.column.name, estimate, count(chosen), each.network))
    return scores


def _pair_swaps(pairs: Sequence[PairValues], against: str | None, paired: bool) -> list[CsvLine]:
    """The metrics of pairs of each method less those of `against`: with an error, without a test."""
    rows: list[CsvLine] = []
    for each in pairs:
        for method in each.found:
            if method == against or against not in each.found:
                continue
            found = pair_difference(each.found[method], each.found[against], paired)
            if found is not None:
                common = {"method": method, "against": against, "metric": each.metric.column.name}
                common |= {"difference": found.value, "stderr": found.stderr, "p": found.p, "n": found.n}
                prompts = prompts_of_both(each.found[method], each.found[against], paired)
                rows.append(common | {"prompts": len(prompts), "freedom": found.freedom, "network": each.network})
    return rows


def _replicates(items: Sequence[PanoramaImage], sets: Sequence[SetFeatures], config: MetricsConfig) -> list[CsvLine]:
    """The set metrics of each method on each block of seeds, all prompts, against all reference images."""
    rows: list[CsvLine] = []
    blocks, prompts = seed_blocks(items, config.replicates), len({item.prompt for item in items})
    for method in dict.fromkeys(item.method for item in items):
        for replicate, seeds in enumerate(blocks):
            mine = [i for i, item in enumerate(items) if item.method == method and item.seed in seeds]
            if len(mine) < len(seeds) * prompts:
                continue  # FID falls with n, so a block with a gap is no replicate of the others
            for each in sets:
                generated = each.generated.part(mine)
                reference = each.target(generated, config)
                if reference is not None:
                    value = each.metric.estimate(generated, reference, config).value
                    common = {"method": method, "replicate": replicate, "metric": each.metric.column.name}
                    rows.append(common | {"value": value, "n": len(mine), "network": each.network})
    return rows


def seed_blocks(items: Sequence[PanoramaImage], replicates: int) -> list[set[int]]:
    """The seeds in order, cut into `replicates` blocks of equally many: the same blocks for every method.

    Fewer where a block would have fewer than two seeds, which KID wants; none where fewer than two blocks are left.
    Seeds that are left over belong to no block.
    """
    seeds = sorted({item.seed for item in items})
    count = min(replicates, len(seeds) // 2)
    if count < 2:
        return []
    size = len(seeds) // count
    return [set(seeds[start : start + size]) for start in range(0, count * size, size)]


def _swaps(
    items: Sequence[PanoramaImage],
    sets: Sequence[SetFeatures],
    config: MetricsConfig,
    against: str | None,
    paired: bool,
) -> list[CsvLine]:
    """The set metrics of each method less those of `against`, on the (prompt, seed), or the prompts, that both have."""
    rows: list[CsvLine] = []
    for method in dict.fromkeys(item.method for item in items):
        if method == against or against is None:
            continue
        ours, theirs = (_in_pairs if paired else _of_common_prompts)(items, method, against)
        for each in sets:
            first, second = each.generated.part(ours), each.generated.part(theirs)
            reference = each.target(first, config)
            if reference is None or not each.metric.enough(second, reference, config):
                continue
            if each.metric.column.depends_on_n and len(first) != len(second):
                continue
            if first.features.shape[1:] != second.features.shape[1:] or not (alike(first) and alike(second)):
                continue  # squares of pictures of different sizes: no pairs, and not as many
            if paired:
                found = each.metric.compare(first, second, reference, config)
            else:
                found = _without_pairs(each.metric, first, second, reference, config)
            common = {"method": method, "against": against, "metric": each.metric.column.name}
            common |= {"difference": found.value, "stderr": found.stderr, "p": found.p, "n": found.n}
            common |= {"prompts": len(set(first.prompts)), "freedom": found.freedom}
            rows.append(common | {"network": each.network})
    return rows


def _without_pairs(
    metric: SetMetric, first: ImageSet, second: ImageSet, reference: ImageSet, config: MetricsConfig
) -> Difference:
    """A set metric of one method less another's where nothing makes pairs of their images."""
    numbers = metric.numbers
    if numbers is not None:
        return unpaired_means(first, second, lambda images: numbers(images, reference, config))
    return unpaired_difference(first, second, lambda images: metric.estimate(images, reference, config))


def _in_pairs(items: Sequence[PanoramaImage], method: str, against: str) -> tuple[list[int], list[int]]:
    """Indices of the images of each method, side by side, on the (prompt, seed) that both have."""
    place = {(item.method, item.prompt, item.seed): i for i, item in enumerate(items)}
    mine = [(prompt, seed) for label, prompt, seed in place if label == method]
    both = [key for key in mine if (against, *key) in place]
    return [place[method, *key] for key in both], [place[against, *key] for key in both]


def _of_common_prompts(items: Sequence[PanoramaImage], method: str, against: str) -> tuple[list[int], list[int]]:
    """Indices of all images of each method, of the prompts that both have."""
    prompts = [{item.prompt for item in items if item.method == label} for label in (method, against)]
    both = prompts[0] & prompts[1]
    ours, theirs = (
        [i for i, item in enumerate(items) if item.method == label and item.prompt in both]
        for label in (method, against)
    )
    return ours, theirs


def _score(group: tuple[str, str], metric: str, estimate: Estimate, n: int, network: str) -> CsvLine:
    method, prompt = group
    values = {"value": estimate.value, "stderr": estimate.stderr, "n": n, "network": network}
    return {"method": method, "prompt": prompt, "metric": metric} | values


def _groups(items: Sequence[PanoramaImage]) -> dict[tuple[str, str], list[int]]:
    """(method, prompt) -> indices, each method's whole set ("all") before its single prompts."""
    groups: dict[tuple[str, str], list[int]] = {}
    for method in dict.fromkeys(item.method for item in items):
        mine = [i for i, item in enumerate(items) if item.method == method]
        groups[method, ALL_PROMPTS] = mine
        for prompt in dict.fromkeys(items[i].prompt for i in mine):
            groups[method, prompt] = [i for i in mine if items[i].prompt == prompt]
    return groups


def _counter(total: int, on_progress: OnProgress | None) -> Callable[[], None]:
    counted = 0

    def done() -> None:
        nonlocal counted
        counted += 1
        if on_progress is not None:
            on_progress(counted, total)

    return done
