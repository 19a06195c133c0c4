"""Features of reference images in one file, which runs and machines share without sharing the images.

A safetensors file: for each measurement an array with a row for each image, and in its metadata the prompt of each
image and all that decides the values: version, network, size and salt of the crops. Nothing here imports torch.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.common.files import write_whole
from experiments.metrics.estimates import ImageSet
from syncdiffusion.errors import UsageError

if TYPE_CHECKING:
    from experiments.metrics.measure import BoundMeasurement

SETTING = "reference.features"


@dataclass(frozen=True)
class SavedFeatures:
    """What a file holds. sets: by measurement. facts: of each, what its values depend on. made: what is told of the
    images' making; empty where nothing is."""

    path: Path
    prompts: tuple[str, ...]
    sets: Mapping[str, ImageSet] = field(repr=False)
    facts: Mapping[str, Mapping[str, Any]]
    made: Mapping[str, Any] = field(default_factory=dict)

    def count(self, prompts: tuple[str, ...]) -> int:
        """Images of each of these prompts, the least where they differ.

        Raises:
            UsageError: a prompt of which there is none.
        """
        there = Counter(self.prompts)
        lacking = [prompt for prompt in prompts if not there[prompt]]
        if lacking:
            raise UsageError(
                f"{SETTING}={self.path}: no features of '{lacking[0]}'; leave it out, or name another file"
            )
        return min(there[prompt] for prompt in prompts)

    def of(self, each: BoundMeasurement, prompts: set[str]) -> ImageSet:
        """The features of a measurement, of images of these prompts.

        Raises:
            UsageError: none there, or made by another version or network, or of other crops.
        """
        if each.name not in self.sets:
            raise UsageError(
                f"{SETTING}={self.path}: no features of {each.name} ({each.network}); name a file to be written, or "
                "leave out the metrics that need them"
            )
        found, here = self.facts[each.name], facts_of(each)
        for name, value in here.items():
            if found.get(name) != value:
                raise UsageError(
                    f"{SETTING}={self.path}: {each.name} there has {name} {found.get(name)} (here {value}); "
                    "name a file to be written anew"
                )
        rows = [i for i, prompt in enumerate(self.prompts) if prompt in prompts]
        return self.sets[each.name].part(rows)


def facts_of(each: BoundMeasurement) -> dict[str, Any]:
    """What decides a measurement's values beside the image, as it stands in a file."""
    return {
        "version": each.measurement.version,
        "network": each.network,
        "fingerprint": each.fingerprint,
        "crop": each.config.crop,
        "salt": each.config.seed,
    }


def save_features(
    path: Path,
    sets: Mapping[str, ImageSet],
    facts: Mapping[str, Mapping[str, Any]],
    made: Mapping[str, Any] | None = None,
) -> None:
    """Write the features of one set of images; made: what is told of their making.

    Of images of different sizes a measurement has no array; it is left out.

    Raises:
        Unwritable: the file.
    """
    from safetensors.numpy import save

    prompts = next(iter(sets.values())).prompts
    told = {"facts": facts, "prompts": prompts, "made": made or {}}
    arrays = {name: each.features for name, each in sets.items() if each.features.dtype != object}
    write_whole(path, save(arrays, {"reference": json.dumps(told)}))


def read_features(path: Path) -> SavedFeatures:
    """What `save_features` wrote.

    Raises:
        UsageError: another file, or a damaged one.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            told = json.loads((file.metadata() or {})["reference"])
            prompts = tuple(told["prompts"])
            sets = {name: ImageSet(file.get_tensor(name), prompts) for name in file.keys()}  # noqa: SIM118
        if any(len(each.features) != len(prompts) for each in sets.values()):
            raise ValueError
        return SavedFeatures(path, prompts, sets, told["facts"], told.get("made", {}))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        raise UsageError(
            f"{SETTING}={path}: holds no features of reference images; name another file, or one to be written"
        ) from None
