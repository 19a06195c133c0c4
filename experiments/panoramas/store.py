"""Panoramas on disk: one PNG and one JSON record for each (method, settings, prompt, seed).

The record is written after the PNG and holds its checksum, so a panorama counts as made only when both are whole.
A record's key is a digest of everything that decides the picture: a changed setting changes the key, and the panorama
is made again. What decides speed and memory alone is left out, the device too: the picture stays the same within float
tolerance. It stands in the record.

One picture may have several places: the labels of a run whose settings come to the same, and the shared folder, where
other runs find it by its key. A place that lacks it, or holds it damaged, is filled from one that has it whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baselines import METHODS, facts
from experiments.common.files import Unwritable, discard, png_bytes, replacing, write_json, write_whole
from experiments.panoramas.records import Checksums, ModelFacts, Record, made
from experiments.plan.plugins import code_of
from syncdiffusion.files import by_content, contents

if TYPE_CHECKING:
    import numpy as np

MADE_ELSEWHERE = "made elsewhere"  # in place of the method of a picture that no method here made
FORMAT = 1  # raise it when what all methods share changes a result: everything is then made again


@dataclass(frozen=True)
class Unit:
    """One panorama of a run."""

    label: str  # the method's name in tables, and its folder
    method: str  # the name in baselines.METHODS
    settings: Mapping[str, Any] = field(hash=False)
    prompt: str
    seed: int

    def png(self, folder: Path) -> Path:
        return folder / "panoramas" / self.label / slug(self.prompt) / f"{self.seed}.png"

    def json(self, folder: Path) -> Path:
        return self.png(folder).with_suffix(".json")


def slug(prompt: str, longest: int = 60) -> str:
    """A short ASCII folder name; a digest follows where the prompt cannot be read back from the name alone.

    >>> slug("a photo of a city skyline at night")
    'a-photo-of-a-city-skyline-at-night'
    """
    plain = unicodedata.normalize("NFKD", prompt).encode("ascii", "ignore").decode()
    name = re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")[:longest].rstrip("-")
    if name and name.replace("-", " ") == prompt:
        return name
    return f"{name}-{hashlib.sha256(prompt.encode()).hexdigest()[:8]}".lstrip("-")


def unit_key(unit: Unit, model: Mapping[str, Any]) -> str:
    """SHA-256 over what decides the picture. `model` holds the backbone's fingerprint and precision."""
    content = {
        "format": FORMAT,
        "method": unit.method,
        "settings": with_contents(unit.method, deciding(unit.method, unit.settings)),
        "model": {"fingerprint": model["fingerprint"], "precision": model["precision"]},
        "prompt": unit.prompt,
        "seed": unit.seed,
    }
    method = METHODS.get(unit.method)
    if method is not None and method.closed(unit.settings):
        content["decoder"] = "circular"  # earlier rings were decoded as if they had ends
    if method is not None and method.version != 1:
        content["version"] = method.version
    if code := code_of(unit.method, unit.settings):
        content["code"] = code
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def deciding(method: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide a method's picture, at values that were not always the only ones."""
    found = {}
    for name, value in settings.items():
        known = facts(method, name)
        if not known.speed_only and value not in known.added:
            found[name] = value
    return found


def with_contents(method: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with a digest in place of every file that they name; UsageError for one that cannot be read."""
    known = {name: facts(method, name) for name in settings}
    told = by_content(settings, known)
    return {name: contents(each) if known[name].file and each is not None else each for name, each in told.items()}


@dataclass(frozen=True)
class Picture:
    """One picture to make, and the units of a run that show it."""

    key: str
    units: tuple[Unit, ...]

    @property
    def label(self) -> str:
        return self.units[0].label


def pictures_of(units: Iterable[Unit], model: Mapping[str, Any]) -> tuple[Picture, ...]:
    """Each picture once, in the order of the units."""
    same: dict[str, list[Unit]] = {}
    for unit in units:
        same.setdefault(unit_key(unit, model), []).append(unit)
    return tuple(Picture(key, tuple(shown)) for key, shown in same.items())


NO_IDS: Mapping[str, str] = {}


@dataclass(frozen=True)
class Place:
    """Where a picture lies.

    own: what the record says otherwise here than elsewhere; None where it says nothing.
    """

    png: Path
    own: Mapping[str, Any]

    def has(self, record: Mapping[str, Any]) -> bool:
        """Whether a record says all that is this place's own."""
        return all(record.get(name) == value for name, value in self.own.items())

    def record(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """A record with what is this place's own."""
        return {name: value for name, value in {**record, **self.own}.items() if self.own.get(name, "") is not None}


def places_of(
    picture: Picture, folder: Path, shared: Path | None, model: ModelFacts, ids: Mapping[str, str] = NO_IDS
) -> tuple[Place, ...]:
    """A place for each unit in the run folder, and one in the shared folder where there is one.

    The same files may be known as another model (a folder's copy, another word for a revision), and the same prompt by
    another id (`ids`), so a record in a run folder names both as the run does.
    """
    places = [
        Place(unit.png(folder), {"label": unit.label, "model": dict(model), "prompt_id": ids.get(unit.prompt)})
        for unit in picture.units
    ]
    if shared is not None:
        places.append(Place(shared / "panoramas" / picture.key[:2] / f"{picture.key}.png", {}))
    return tuple(places)


@dataclass(frozen=True)
class Found:
    """A picture that is whole somewhere: a PNG of it, its record, and the places that lack the one or the other."""

    png: Path
    record: Record
    lacking: tuple[Place, ...]


def look(places: Sequence[Place], key: str, checksums: Checksums) -> Found | None:
    """Where the picture of `key` is; None where no place holds it whole. Writes nothing."""
    records = [made(place.png, key, checksums) for place in places]
    first = next(((place.png, record) for place, record in zip(places, records, strict=True) if record), None)
    if first is None:
        return None
    lacking = [place for place, record in zip(places, records, strict=True) if record is None or not place.has(record)]
    return Found(*first, tuple(lacking))


def settle(places: Sequence[Place], key: str, checksums: Checksums) -> Record | None:
    """Bring a picture that is whole in one place to all of them; returns its record, None where no place has it.

    The caller holds the claim on `key`: what other writers left half done here is then a dead one's, and removed.

    Raises:
        Unwritable: one of the places.
    """
    found = look(places, key, checksums)
    if found is None:
        return None
    for place in found.lacking:
        if not place.png.exists() or not place.png.samefile(found.png):
            put_link(found.png, place.png)
        write_json(place.png.with_suffix(".json"), place.record(found.record))
        discard_leftovers(place.png)
    return found.record


def put_link(source: Path, target: Path) -> None:
    """Put a hard link to `source` in place of `target`, or a copy where the file system has no links."""
    try:
        with replacing(target) as temporary:
            os.link(source, temporary)
    except Unwritable:
        write_whole(target, source.read_bytes())


def latents_of(png: Path) -> Path:
    """Where a panorama's latents are kept until it is whole."""
    return png.with_suffix(".latents.safetensors")


def discard_leftovers(png: Path) -> None:
    """Remove what a process killed while making this panorama left."""
    discard(latents_of(png))
    for leftover in png.parent.glob(f".{png.stem}.*.tmp"):
        discard(leftover)


def save_panorama(
    folder: Path, unit: Unit, image: np.ndarray, record: Mapping[str, Any], checksums: Checksums | None = None
) -> dict[str, Any]:
    """Write the picture, then its record with the picture's size and checksum; returns the record.

    image: H×W×3 uint8.

    Raises:
        Unwritable: either file.
    """
    data = png_bytes(image)
    height, width = image.shape[:2]
    full = {**record, "width": width, "height": height, "png_sha256": hashlib.sha256(data).hexdigest()}
    png = unit.png(folder)
    write_whole(png, data)
    if checksums is not None:
        checksums.written(png, full["png_sha256"])
    write_json(unit.json(folder), full)
    discard_leftovers(png)
    return full
