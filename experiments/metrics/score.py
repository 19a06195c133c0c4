"""Images on disk -> the numbers of a run: of each panorama, of each method and prompt, of blocks of seeds, of pairs."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from experiments.metrics.cache import FeatureCache
from experiments.metrics.catalogue import ALL_PROMPTS, METRICS
from experiments.metrics.config import MetricsConfig, check_config
from experiments.metrics.estimates import Difference, Estimate, ImageSet, mean_estimate, stratified_mean
from experiments.metrics.fid import fid, fid_difference
from experiments.metrics.giqa import giqa_difference, giqa_scores
from experiments.metrics.kid import kid, kid_difference
from experiments.metrics.measure import Measurement, PanoramaImage, measure, measurements
from experiments.metrics.networks import MetricNetworks

CsvLine = dict[str, object]
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class Scored:
    """The numbers of one scoring pass.

    rows: a row per image, in order: method, prompt, seed and its per-panorama metrics (None where an
        image has fewer than two crops to compare).
    scores: a row per method, prompt and metric: method, prompt ("all" for the set), metric, value,
        stderr, n, network. n is the number of scored images; stderr is None for FID (no unbiased
        estimate exists) and where n is too small for one. A number that n does not allow has no row:
        FID wants two images on both sides, KID two of every prompt, GIQA `giqa_neighbours` references.
    replicates: FID, KID and GIQA of all prompts on disjoint blocks of seeds: method, replicate (from
        0), metric, value, n, network. A replicate is the same seeds for every method; a method that
        lacks one of its images has no row for it.
    swaps: FID, KID and GIQA of each method less that of the one compared with: method, against,
        metric, difference, stderr, p (label swaps within pairs), n (pairs), prompts, network.
    """

    rows: list[CsvLine]
    scores: list[CsvLine]
    replicates: list[CsvLine]
    swaps: list[CsvLine] = field(default_factory=list)


def score_panoramas(
    items: Sequence[PanoramaImage],
    reference: Sequence[PanoramaImage],
    config: MetricsConfig,
    networks: MetricNetworks,
    on_progress: OnProgress | None = None,
    cache: FeatureCache | None = None,
    against: str | None = None,
) -> Scored:
    """Score `items`; FID, KID and GIQA hold them against `reference`, prompt by prompt and in all.

    on_progress: called after each image with (images done, images in all).
    cache: where features of earlier passes are found and those of this one are kept; None computes all.
    against: the method that the others are compared with, pair by pair; None for no comparison of set metrics.

    Raises:
        UsageError: an image that cannot be read, is smaller than `config.crop`, or has a score that is no number.
    """
    check_config(config)
    done = _counter(len(items) + len(reference), on_progress)
    wanted = measurements(config, networks)
    rows: list[CsvLine] = []
    features: list[np.ndarray] = []
    for item, values in zip(items, measure(items, wanted, config.batch, cache), strict=True):
        row: CsvLine = {"method": item.method, "prompt": item.prompt, "seed": item.seed}
        for each in wanted:
            row |= each.row(values[each.name])
        rows.append(row)
        features.append(values.get("inception", np.empty(0)))
        done()
    scores, replicates, swaps = _means(items, rows, wanted), [], []
    if networks.inception is not None:
        only = [each for each in wanted if each.name == "inception"]
        targets = []
        for values in measure(reference, only, config.batch, cache):
            targets.append(values["inception"])
            done()
        sets, label = (_image_set(items, features), _image_set(reference, targets)), networks.inception.network
        scores += _set_scores(items, *sets, config, label)
        replicates = _replicates(items, *sets, config, label)
        swaps = _swaps(items, *sets, config, label, against)
    order = {name: index for index, name in enumerate(METRICS)}
    place = {key: index for index, key in enumerate(_groups(items))}
    scores.sort(key=lambda row: (place[row["method"], row["prompt"]], order[row["metric"]]))
    return Scored(rows, scores, replicates, swaps)


def _image_set(items: Sequence[PanoramaImage], features: Sequence[np.ndarray]) -> ImageSet:
    return ImageSet(np.array(features), tuple(item.prompt for item in items))


def _means(items: Sequence[PanoramaImage], rows: list[CsvLine], wanted: Sequence[Measurement]) -> list[CsvLine]:
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
    items: Sequence[PanoramaImage], features: ImageSet, targets: ImageSet, config: MetricsConfig, network: str
) -> list[CsvLine]:
    """FID, KID and GIQA of each group against the reference images of the same prompts."""
    scores = []
    for group, indices in _groups(items).items():
        wanted = {items[i].prompt for i in indices}
        those = [i for i, prompt in enumerate(targets.prompts) if prompt in wanted]
        estimates = set_estimates(features.part(indices), targets.part(those), config)
        scores += [_score(group, name, estimate, len(indices), network) for name, estimate in estimates.items()]
    return scores


def _replicates(
    items: Sequence[PanoramaImage], features: ImageSet, targets: ImageSet, config: MetricsConfig, network: str
) -> list[CsvLine]:
    """FID, KID and GIQA of each method on each block of seeds, all prompts, against all reference images."""
    rows: list[CsvLine] = []
    blocks, prompts = seed_blocks(items, config.replicates), len({item.prompt for item in items})
    for method in dict.fromkeys(item.method for item in items):
        for replicate, seeds in enumerate(blocks):
            mine = [i for i, item in enumerate(items) if item.method == method and item.seed in seeds]
            if len(mine) < len(seeds) * prompts:
                continue  # FID falls with n, so a block with a gap is no replicate of the others
            for name, estimate in set_estimates(features.part(mine), targets, config).items():
                common = {"method": method, "replicate": replicate, "metric": name}
                rows.append(common | {"value": estimate.value, "n": len(mine), "network": network})
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
    features: ImageSet,
    targets: ImageSet,
    config: MetricsConfig,
    network: str,
    against: str | None,
) -> list[CsvLine]:
    """FID, KID and GIQA of each method less that of `against`, on the (prompt, seed) that both have."""
    place = {(item.method, item.prompt, item.seed): i for i, item in enumerate(items)}
    rows: list[CsvLine] = []
    for method in dict.fromkeys(item.method for item in items):
        mine = [(prompt, seed) for label, prompt, seed in place if label == method != against]
        both = [key for key in mine if (against, *key) in place]
        ours, theirs = (features.part([place[label, *key] for key in both]) for label in (method, against))
        for name, found in set_differences(ours, theirs, targets, config).items():
            common = {"method": method, "against": against, "metric": name, "difference": found.value}
            common |= {"stderr": found.stderr, "p": found.p, "n": found.n, "prompts": len(set(ours.prompts))}
            rows.append(common | {"network": network})
    return rows


def set_estimates(generated: ImageSet, reference: ImageSet, config: MetricsConfig) -> dict[str, Estimate]:
    """The chosen of FID, KID and GIQA; without those that the numbers of images do not allow."""
    estimates: dict[str, Estimate] = {}
    x, y = generated.features, reference.features
    for name in allowed(generated, reference, config):
        if name == "fid":
            estimates[name] = Estimate(fid(x, y), None)
        elif name == "kid":
            estimates[name] = kid(x, y, generated.prompts, reference.prompts)
        else:
            estimates[name] = stratified_mean(giqa_scores(x, y, config.giqa_neighbours), generated.prompts)
    return estimates


def set_differences(
    ours: ImageSet, theirs: ImageSet, reference: ImageSet, config: MetricsConfig
) -> dict[str, Difference]:
    """The same of two sets whose images are pairs, ours less theirs."""
    found: dict[str, Difference] = {}
    a, b, y = ours.features, theirs.features, reference.features
    for name in allowed(ours, reference, config):
        if name == "fid":
            found[name] = fid_difference(a, b, y)
        elif name == "kid":
            found[name] = kid_difference(a, b, y, ours.prompts, reference.prompts)
        else:
            found[name] = giqa_difference(a, b, y, ours.prompts, config.giqa_neighbours)
    return found


def allowed(generated: ImageSet, reference: ImageSet, config: MetricsConfig) -> list[str]:
    """Which of the chosen set metrics the numbers of images allow."""
    if min(len(generated), len(reference)) < 2:
        return []
    pairs = min(min(Counter(each.prompts).values()) for each in (generated, reference)) > 1
    there = {"fid": True, "kid": pairs, "giqa": len(reference) >= config.giqa_neighbours}
    return [name for name, enough in there.items() if enough and name in config.metrics]


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
