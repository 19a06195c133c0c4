"""What each metric sees in each image: computed once, or found again in the cache. Nothing here imports torch."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from experiments.metrics.cache import FeatureCache
from experiments.metrics.catalogue import panorama_metrics, set_metrics
from experiments.metrics.config import MetricsConfig
from experiments.metrics.crops import decode_image, read_image
from experiments.metrics.metric import Measurement
from experiments.panoramas.records import Checksums
from syncdiffusion.errors import UsageError

PICTURE = "the picture alone"  # in place of a network
Networks = Mapping[str, Any]  # by the names in `networks`


@dataclass(frozen=True)
class PanoramaImage:
    """One image on disk and what made it. Reference squares are described in the same way.

    made: what a metric may ask about how it was made: `method` by name and its `settings`, and of the model `window`
    (side in pixels) and `factor` (pixels per latent cell). Empty where nothing is known.
    """

    prompt: str
    seed: int
    method: str
    path: Path
    made: Mapping[str, Any] = field(default_factory=dict, compare=False)


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
class BoundMeasurement:
    """A measurement with the network and the settings of one scoring pass.

    network: provenance. fingerprint: a hash of the weights where the provenance does not tell them. columns: the
    per-panorama numbers made of the values, by name.
    """

    measurement: Measurement
    config: MetricsConfig
    through: Any
    columns: Mapping[str, Callable[[np.ndarray], float]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.measurement.name

    @property
    def network(self) -> str:
        return PICTURE if self.through is None else self.through.network

    @property
    def fingerprint(self) -> str:
        return "" if self.through is None else self.through.fingerprint

    def compute(self, file: ImageFile) -> np.ndarray:
        return self.measurement.compute([file], self.through, self.config)[0]

    def row(self, file: Path, values: np.ndarray) -> dict[str, float | None]:
        """The columns of one image; None where there is nothing to make them of, such as a pair of crops.

        Raises:
            UsageError: one that is no finite number.
        """
        found = {name: float(reduce(values)) if values.size else None for name, reduce in self.columns.items()}
        for name, value in found.items():
            if value is not None and not math.isfinite(value):
                raise UsageError(
                    f"image {file}: its {name} is no finite number; where there is none, the metric's values are to be "
                    "an empty array"
                )
        return found


def measurements(config: MetricsConfig, networks: Networks) -> list[BoundMeasurement]:
    """What the chosen metrics need, each measurement once; without those whose network is not there."""
    found: dict[str, BoundMeasurement] = {}
    for metric in set_metrics(config.metrics):
        bound = bind(metric.measurement, config, networks)
        if bound is not None:
            found.setdefault(bound.name, bound)
    for metric in panorama_metrics(config.metrics):
        bound = bind(metric.measurement, config, networks)
        if bound is not None:
            others = found[bound.name].columns if bound.name in found else {}
            found[bound.name] = replace(bound, columns={**others, **metric.columns_through(bound.through)})
    return list(found.values())


def bind(measurement: Measurement, config: MetricsConfig, networks: Networks) -> BoundMeasurement | None:
    """None where the network that it needs is not there."""
    if measurement.network is None:
        return BoundMeasurement(measurement, config, None)
    through = networks.get(measurement.network)
    return None if through is None else BoundMeasurement(measurement, config, through)


def measure(
    items: Sequence[PanoramaImage], wanted: Sequence[BoundMeasurement], cache: FeatureCache | None
) -> Iterator[dict[str, np.ndarray]]:
    """For each item, in order, the values of each measurement by its name.

    One image at a time: what shares a batch changes the last digits, and a pass that was interrupted, or found some
    values in the cache, must end with the bytes of any other. Reading a panorama takes longer than a network does with
    one crop of it, so that a batch would save little.

    Raises:
        UsageError: an image that cannot be read or is smaller than the crop.
    """
    known = Checksums() if cache is None else cache.checksums
    for item in items:
        file = ImageFile(item, read_image(item.path), known)
        yield {each.name: values_of(each, file, cache) for each in wanted}


def values_of(each: BoundMeasurement, file: ImageFile, cache: FeatureCache | None) -> np.ndarray:
    """The values of a file: those that the cache lacks are computed, and put there at once."""
    key = "" if cache is None else cache_key(each, file)
    found = None if cache is None else cache.get(key)
    if found is not None:
        return found
    values = checked_values(each, file, each.compute(file))
    if cache is not None:
        cache.put(key, values)
    return values


def checked_values(each: BoundMeasurement, file: ImageFile, values: np.ndarray) -> np.ndarray:
    """The same values. UsageError where one of them is no finite number: every mean that it enters would be none."""
    if np.isfinite(values).all():
        return values
    raise UsageError(
        f"image {file.item.path}: {each.name} ({each.network}) is no finite number; "
        + (
            "where there is none, its values are to be an empty array"
            if each.through is None
            else "look at the image and the network's weights, or try metrics.device=cpu"
        )
    )


def cache_key(each: BoundMeasurement, file: ImageFile) -> str:
    """All that decides the values, whichever run or experiment the file belongs to."""
    content = {
        "png_sha256": file.digest,
        "measurement": each.name,
        "version": each.measurement.version,
        "network": each.network,
        "fingerprint": each.fingerprint,
        "parameters": each.measurement.parameters(file.item, each.config),
    }
    if each.measurement.code:
        content["code"] = each.measurement.code
    return json.dumps(content, sort_keys=True)
