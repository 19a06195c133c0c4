"""What each network sees in each image: computed once, or found again in the cache."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from experiments.metrics.cache import FeatureCache
from experiments.metrics.clip_score import ClipNetwork, clip_scores
from experiments.metrics.coherence import PairNetwork, pair_distances, without_tone
from experiments.metrics.config import MetricsConfig
from experiments.metrics.crops import decode_image, grid_crops, random_crop, read_image
from experiments.metrics.inception import FeatureNetwork
from experiments.metrics.networks import MetricNetworks
from experiments.panoramas.records import Checksums

# Raise one when its values change for the same image, network and parameters: everything is then measured again.
VERSIONS = {"inception": 1, "clip": 1, "intra_lpips": 1, "intra_style": 1, "layout_lpips": 1}


@dataclass(frozen=True)
class PanoramaImage:
    """One image on disk and what made it. Reference squares are described in the same way."""

    prompt: str
    seed: int
    method: str
    path: Path


@dataclass(frozen=True)
class ImageFile:
    """An image whose file was read once; it is decoded where something has to be computed of it."""

    item: PanoramaImage
    data: bytes = field(repr=False)
    checksums: Checksums = field(default_factory=Checksums, repr=False)

    @cached_property
    def digest(self) -> str:
        return self.checksums.of_data(self.item.path, self.data)

    @cached_property
    def pixels(self) -> np.ndarray:
        return decode_image(self.data, self.item.path)


@dataclass(frozen=True)
class Measurement:
    """An array of numbers for each image.

    name: a key of VERSIONS; network, fingerprint: which weights it looks through.
    parameters: what else decides the values, beside the file's bytes. Device and batch size do not: they change
        values within float tolerance.
    compute: files -> their values; whole batches where `batched`, else one file at a time.
    columns: the per-panorama metrics, each a number made of the values.
    """

    name: str
    network: str
    fingerprint: str
    parameters: Callable[[PanoramaImage], Mapping[str, Any]]
    compute: Callable[[Sequence[ImageFile]], Sequence[np.ndarray]]
    batched: bool
    columns: Mapping[str, Callable[[np.ndarray], float]]

    def row(self, values: np.ndarray) -> dict[str, float | None]:
        """The columns of one image; None where it has no pair of crops to compare."""
        return {name: float(reduce(values)) if values.size else None for name, reduce in self.columns.items()}


def measurements(config: MetricsConfig, networks: MetricNetworks) -> list[Measurement]:
    """What `networks` are there for."""
    found = []
    if networks.inception is not None:
        found.append(inception_features(config, networks.inception))
    if networks.clip is not None:
        found.append(clip_score(config, networks.clip))
    if networks.lpips is not None:
        found.append(intra("intra_lpips", {"intra_lpips": np.mean}, config, networks.lpips))
    if networks.style is not None:
        both = {"intra_style_sum": np.sum, "intra_style_mean": np.mean}
        found.append(intra("intra_style", both, config, networks.style))
    if networks.layout is not None:
        found.append(intra("layout_lpips", {"layout_lpips": np.mean}, config, networks.layout, without_tone))
    return found


def inception_features(config: MetricsConfig, network: FeatureNetwork) -> Measurement:
    """Features (d,) of the random crop, for FID, KID and GIQA."""

    def compute(files: Sequence[ImageFile]) -> Sequence[np.ndarray]:
        return network.features([_crop(file, config) for file in files], config.batch)

    place = _crop_parameters(config)
    return Measurement("inception", network.network, network.fingerprint, place, compute, True, {})


def clip_score(config: MetricsConfig, clip: ClipNetwork) -> Measurement:
    """CLIP score (1,) of the random crop and the prompt."""

    def compute(files: Sequence[ImageFile]) -> Sequence[np.ndarray]:
        crops = [_crop(file, config) for file in files]
        return clip_scores(clip, crops, [file.item.prompt for file in files], config.batch)[:, None]

    place, columns = _crop_parameters(config), {clip.metric: np.mean}
    return Measurement("clip", clip.network, clip.fingerprint, place, compute, True, columns)


def intra(
    name: str,
    columns: Mapping[str, Callable[[np.ndarray], float]],
    config: MetricsConfig,
    network: PairNetwork,
    prepare: Callable[[Tensor], Tensor] | None = None,
) -> Measurement:
    """Distances between all pairs of grid crops, (k (k - 1) / 2,); `prepare` is of `pair_distances`.

    One file at a time: its crops fill a batch, and the features of many would fill the memory.
    """

    def compute(files: Sequence[ImageFile]) -> Sequence[np.ndarray]:
        grids = (grid_crops(file.pixels, config.crop) for file in files)
        return [pair_distances(network.load(), crops, config.batch, prepare) for crops in grids]

    return Measurement(name, network.network, "", lambda item: {"crop": config.crop}, compute, False, columns)


def measure(
    items: Sequence[PanoramaImage], wanted: Sequence[Measurement], batch: int, cache: FeatureCache | None
) -> Iterator[dict[str, np.ndarray]]:
    """For each item, in order, the values of each measurement by its name.

    Raises:
        UsageError: an image that cannot be read or is smaller than the crop.
    """
    for start in range(0, len(items), batch):
        known = Checksums() if cache is None else cache.checksums
        files = [ImageFile(item, read_image(item.path), known) for item in items[start : start + batch]]
        together = {each.name: values_of(each, files, cache) for each in wanted if each.batched}
        for index, file in enumerate(files):
            alone = {each.name: values_of(each, [file], cache)[0] for each in wanted if not each.batched}
            yield {name: values[index] for name, values in together.items()} | alone


def values_of(each: Measurement, files: Sequence[ImageFile], cache: FeatureCache | None) -> list[np.ndarray]:
    """The values of each file: those that the cache lacks are computed together, and put there at once."""
    if cache is None:
        return list(each.compute(files))
    keys = [cache_key(each, file) for file in files]
    found = {key: cache.get(key) for key in dict.fromkeys(keys)}
    lacking = {key: file for key, file in zip(keys, files, strict=True) if found[key] is None}
    if lacking:
        for key, values in zip(lacking, each.compute(list(lacking.values())), strict=True):
            found[key] = values
            cache.put(key, values)
    return [found[key] for key in keys]


def cache_key(each: Measurement, file: ImageFile) -> str:
    """All that decides the values, whichever run or experiment the file belongs to."""
    content = {
        "png_sha256": file.digest,
        "measurement": each.name,
        "version": VERSIONS[each.name],
        "network": each.network,
        "fingerprint": each.fingerprint,
        "parameters": each.parameters(file.item),
    }
    return json.dumps(content, sort_keys=True)


def _crop(file: ImageFile, config: MetricsConfig) -> np.ndarray:
    return random_crop(file.pixels, config.crop, file.item.prompt, file.item.seed, config.seed)


def _crop_parameters(config: MetricsConfig) -> Callable[[PanoramaImage], dict[str, Any]]:
    """What decides the place of the random crop; the prompt is also what CLIP compares it with."""
    return lambda item: {"crop": config.crop, "prompt": item.prompt, "seed": item.seed, "salt": config.seed}
