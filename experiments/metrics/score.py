"""Images on disk -> a row per panorama and a row per (method, prompt, metric)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .clip_score import clip_scores
from .coherence import pair_distances
from .config import MetricsConfig, check_config
from .crops import grid_crops, load_image, random_crop
from .distribution import Estimate, fid, giqa_scores, kid, mean_estimate
from .networks import MetricNetworks

ALL_PROMPTS = "all"


@dataclass(frozen=True)
class PanoramaImage:
    """One image on disk and what made it. Reference squares are described in the same way."""

    prompt: str
    seed: int
    method: str
    path: Path


@dataclass(frozen=True)
class Metric:
    """How a metric is read. better: "lower" or "higher"; per_panorama: it is a mean over images."""

    name: str
    display: str
    better: str
    per_panorama: bool


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("fid", "FID", "lower", False),
        Metric("kid", "KID", "lower", False),
        Metric("giqa", "Mean-GIQA", "higher", False),
        Metric("clip_score", "CLIP score", "higher", True),
        Metric("mini_clip_score", "mini-CLIP score", "higher", True),
        Metric("intra_lpips", "Intra-LPIPS", "lower", True),
        Metric("intra_style_sum", "Intra-Style-L (sum)", "lower", True),
        Metric("intra_style_mean", "Intra-Style-L (mean)", "lower", True),
    )
}

Row = dict[str, object]
OnProgress = Callable[[int, int], None]


def score_panoramas(
    items: Sequence[PanoramaImage],
    reference: Sequence[PanoramaImage],
    config: MetricsConfig,
    networks: MetricNetworks,
    on_progress: OnProgress | None = None,
) -> tuple[list[Row], list[Row]]:
    """Score `items`; FID, KID and GIQA hold them against `reference`, prompt by prompt and in all.

    on_progress: called after each image with (images done, images in all).

    Returns:
        A row per item, in order: method, prompt, seed and its per-panorama metrics (None where an
        image has fewer than two crops to compare).
        A row per method, prompt and metric: method, prompt ("all" for the set), metric, value,
        stderr, n, network. n is the number of scored images; stderr is None for FID (no unbiased
        estimate exists) and where n is too small for one. A number that n does not allow has no row:
        FID and KID want two images on both sides, GIQA `giqa_neighbours` references.

    Raises:
        UsageError: an image that cannot be read or is smaller than `config.crop`.
    """
    check_config(config)
    done = _counter(len(items) + len(reference), on_progress)
    rows, features = _look(items, config, networks, done)
    scores = _means(items, rows, networks)
    if networks.inception is not None:
        targets = _reference_features(reference, config, networks, done)
        scores += _set_scores(items, features, reference, targets, config, networks)
    order = {name: index for index, name in enumerate(METRICS)}
    place = {key: index for index, key in enumerate(_groups(items))}
    scores.sort(key=lambda row: (place[row["method"], row["prompt"]], order[row["metric"]]))
    return rows, scores


def _look(
    items: Sequence[PanoramaImage], config: MetricsConfig, networks: MetricNetworks, done: Callable[[], None]
) -> tuple[list[Row], np.ndarray | None]:
    """One pass over the images: a row each, and the features of their random crops, (n, d)."""
    rows: list[Row] = []
    features: list[np.ndarray] = []
    for part in _batches(items, config.batch):
        images = [load_image(item.path) for item in part]
        crops = [_crop(image, item, config) for image, item in zip(images, part, strict=True)]
        if networks.inception is not None:
            features.append(networks.inception.features(crops, config.batch))
        clip = networks.clip
        similar = clip_scores(clip, crops, [i.prompt for i in part], config.batch) if clip else None
        for index, (item, image) in enumerate(zip(part, images, strict=True)):
            row: Row = {"method": item.method, "prompt": item.prompt, "seed": item.seed}
            if clip is not None:
                row[clip.metric] = float(similar[index])
            rows.append(row | _intra(image, config, networks))
            done()
    return rows, np.concatenate(features) if features else None


def _intra(image: np.ndarray, config: MetricsConfig, networks: MetricNetworks) -> Row:
    """The coherence of one panorama; None for each metric where there is no pair of crops."""
    crops, row = grid_crops(image, config.crop), {}
    if networks.lpips is not None:
        pairs = pair_distances(networks.lpips, crops, config.batch)
        row["intra_lpips"] = float(pairs.mean()) if pairs.size else None
    if networks.style is not None:
        pairs = pair_distances(networks.style, crops, config.batch)
        row["intra_style_sum"] = float(pairs.sum()) if pairs.size else None
        row["intra_style_mean"] = float(pairs.mean()) if pairs.size else None
    return row


def _reference_features(
    reference: Sequence[PanoramaImage], config: MetricsConfig, networks: MetricNetworks, done: Callable[[], None]
) -> np.ndarray | None:
    features = []
    for part in _batches(reference, config.batch):
        crops = [_crop(load_image(item.path), item, config) for item in part]
        features.append(networks.inception.features(crops, config.batch))
        for _ in part:
            done()
    return np.concatenate(features) if features else None


def _means(items: Sequence[PanoramaImage], rows: list[Row], networks: MetricNetworks) -> list[Row]:
    """Means of the per-panorama metrics over each group."""
    made_by = {
        name: loss.network
        for loss, names in (
            (networks.lpips, ("intra_lpips",)),
            (networks.style, ("intra_style_sum", "intra_style_mean")),
            (networks.clip, (networks.clip.metric,) if networks.clip else ()),
        )
        if loss is not None
        for name in names
    }
    scores = []
    for group, indices in _groups(items).items():
        for name, network in made_by.items():
            values = [rows[i][name] for i in indices if rows[i][name] is not None]
            if values:
                scores.append(_score(group, name, mean_estimate(np.array(values)), len(values), network))
    return scores


def _set_scores(
    items: Sequence[PanoramaImage],
    features: np.ndarray | None,
    reference: Sequence[PanoramaImage],
    targets: np.ndarray | None,
    config: MetricsConfig,
    networks: MetricNetworks,
) -> list[Row]:
    """FID, KID and GIQA of each group against the reference images of the same prompts."""
    scores = []
    for group, indices in _groups(items).items():
        wanted = {items[i].prompt for i in indices}
        those = [i for i, image in enumerate(reference) if image.prompt in wanted]
        n, m = len(indices), len(those)
        if min(n, m) < 2:
            continue
        x, y = features[indices], targets[those]
        estimates: dict[str, Estimate] = {}
        if "fid" in config.metrics:
            estimates["fid"] = Estimate(fid(x, y), None)
        if "kid" in config.metrics:
            estimates["kid"] = kid(x, y, config.kid_subsets, config.kid_subset_size, config.seed)
        if "giqa" in config.metrics and m >= config.giqa_neighbours:
            estimates["giqa"] = mean_estimate(giqa_scores(x, y, config.giqa_neighbours))
        scores += [_score(group, name, estimate, n, networks.inception.network) for name, estimate in estimates.items()]
    return scores


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


def _crop(image: np.ndarray, item: PanoramaImage, config: MetricsConfig) -> np.ndarray:
    return random_crop(image, config.crop, item.prompt, item.seed, config.seed)


def _batches(items: Sequence[PanoramaImage], size: int) -> Iterator[Sequence[PanoramaImage]]:
    return (items[i : i + size] for i in range(0, len(items), size))


def _counter(total: int, on_progress: OnProgress | None) -> Callable[[], None]:
    counted = 0

    def done() -> None:
        nonlocal counted
        counted += 1
        if on_progress is not None:
            on_progress(counted, total)

    return done
