"""Images on disk -> a row per panorama, a row per (method, prompt, metric), a row per (method, replicate, metric)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from experiments.metrics.cache import FeatureCache
from experiments.metrics.catalogue import ALL_PROMPTS, METRICS
from experiments.metrics.config import MetricsConfig, check_config
from experiments.metrics.distribution import Estimate, fid, giqa_scores, kid, mean_estimate
from experiments.metrics.measure import Measurement, PanoramaImage, measure, measurements
from experiments.metrics.networks import MetricNetworks

Row = dict[str, object]
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class Scored:
    """The numbers of one scoring pass.

    rows: a row per image, in order: method, prompt, seed and its per-panorama metrics (None where an
        image has fewer than two crops to compare).
    scores: a row per method, prompt and metric: method, prompt ("all" for the set), metric, value,
        stderr, n, network. n is the number of scored images; stderr is None for FID (no unbiased
        estimate exists) and where n is too small for one. A number that n does not allow has no row:
        FID and KID want two images on both sides, GIQA `giqa_neighbours` references.
    replicates: FID, KID and GIQA of all prompts on disjoint blocks of seeds: method, replicate (from
        0), metric, value, n, network. A replicate is the same seeds for every method.
    """

    rows: list[Row]
    scores: list[Row]
    replicates: list[Row]


def score_panoramas(
    items: Sequence[PanoramaImage],
    reference: Sequence[PanoramaImage],
    config: MetricsConfig,
    networks: MetricNetworks,
    on_progress: OnProgress | None = None,
    cache: FeatureCache | None = None,
) -> Scored:
    """Score `items`; FID, KID and GIQA hold them against `reference`, prompt by prompt and in all.

    on_progress: called after each image with (images done, images in all).
    cache: where features of earlier passes are found and those of this one are kept; None computes all.

    Raises:
        UsageError: an image that cannot be read or is smaller than `config.crop`.
    """
    check_config(config)
    done = _counter(len(items) + len(reference), on_progress)
    wanted = measurements(config, networks)
    rows: list[Row] = []
    features: list[np.ndarray] = []
    for item, values in zip(items, measure(items, wanted, config.batch, cache), strict=True):
        row: Row = {"method": item.method, "prompt": item.prompt, "seed": item.seed}
        for each in wanted:
            row |= each.row(values[each.name])
        rows.append(row)
        features.append(values.get("inception", np.empty(0)))
        done()
    scores, replicates = _means(items, rows, wanted), []
    if networks.inception is not None:
        only = [each for each in wanted if each.name == "inception"]
        targets = []
        for values in measure(reference, only, config.batch, cache):
            targets.append(values["inception"])
            done()
        sets = np.array(features), np.array(targets)
        label = networks.inception.network
        scores += _set_scores(items, reference, *sets, config, label)
        replicates = _replicates(items, *sets, config, label)
    order = {name: index for index, name in enumerate(METRICS)}
    place = {key: index for index, key in enumerate(_groups(items))}
    scores.sort(key=lambda row: (place[row["method"], row["prompt"]], order[row["metric"]]))
    return Scored(rows, scores, replicates)


def _means(items: Sequence[PanoramaImage], rows: list[Row], wanted: Sequence[Measurement]) -> list[Row]:
    """Means of the per-panorama metrics over each group."""
    made_by = {name: each.network for each in wanted for name in each.columns}
    scores = []
    for group, indices in _groups(items).items():
        for name, network in made_by.items():
            values = [rows[i][name] for i in indices if rows[i][name] is not None]
            if values:
                scores.append(_score(group, name, mean_estimate(np.array(values)), len(values), network))
    return scores


def _set_scores(
    items: Sequence[PanoramaImage],
    reference: Sequence[PanoramaImage],
    features: np.ndarray,
    targets: np.ndarray,
    config: MetricsConfig,
    network: str,
) -> list[Row]:
    """FID, KID and GIQA of each group against the reference images of the same prompts."""
    scores = []
    for group, indices in _groups(items).items():
        wanted = {items[i].prompt for i in indices}
        those = [i for i, image in enumerate(reference) if image.prompt in wanted]
        estimates = set_estimates(features[indices], targets[those], config)
        scores += [_score(group, name, estimate, len(indices), network) for name, estimate in estimates.items()]
    return scores


def _replicates(
    items: Sequence[PanoramaImage], features: np.ndarray, targets: np.ndarray, config: MetricsConfig, network: str
) -> list[Row]:
    """FID, KID and GIQA of each method on each block of seeds, all prompts, against all reference images."""
    blocks = seed_blocks(items, config.replicates)
    rows: list[Row] = []
    for method in dict.fromkeys(item.method for item in items):
        for replicate, seeds in enumerate(blocks):
            mine = [i for i, item in enumerate(items) if item.method == method and item.seed in seeds]
            for name, estimate in set_estimates(features[mine], targets, config).items():
                common = {"method": method, "replicate": replicate, "metric": name}
                rows.append(common | {"value": estimate.value, "n": len(mine), "network": network})
    return rows


def seed_blocks(items: Sequence[PanoramaImage], replicates: int) -> list[set[int]]:
    """All seeds in order, cut into `replicates` runs as even as can be: the same blocks for every method.

    Fewer where there are not so many seeds, or where a block of one prompt would hold a single image; none where
    fewer than two blocks are left.
    """
    seeds = sorted({item.seed for item in items})
    several = len({item.prompt for item in items}) > 1
    count = min(replicates, len(seeds) if several else len(seeds) // 2)
    return [set(map(int, block)) for block in np.array_split(seeds, count)] if count > 1 else []


def set_estimates(features: np.ndarray, targets: np.ndarray, config: MetricsConfig) -> dict[str, Estimate]:
    """The chosen of FID, KID and GIQA, of (n, d) features against (m, d); without those that n or m do not allow."""
    estimates: dict[str, Estimate] = {}
    if min(len(features), len(targets)) < 2:
        return estimates
    if "fid" in config.metrics:
        estimates["fid"] = Estimate(fid(features, targets), None)
    if "kid" in config.metrics:
        estimates["kid"] = kid(features, targets, config.kid_subsets, config.kid_subset_size, config.seed)
    if "giqa" in config.metrics and len(targets) >= config.giqa_neighbours:
        estimates["giqa"] = mean_estimate(giqa_scores(features, targets, config.giqa_neighbours))
    return estimates


def _score(group: tuple[str, str], metric: str, estimate: Estimate, n: int, network: str) -> Row:
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
