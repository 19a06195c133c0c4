"""Panoramas on disk: names, keys, whole or not at all."""

import errno
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from baselines import METHODS
from experiments.common.files import write_whole
from experiments.panoramas.records import Checksums, made, read_whole
from experiments.panoramas.store import Picture, Unit, look, places_of, save_panorama, settle, slug, unit_key
from experiments.plan import plugins
from syncdiffusion.errors import UsageError

MODEL = {"id": "m", "revision": None, "fingerprint": "f", "precision": "float32"}
UNIT = Unit("label", "multidiffusion", {"stride": 4, "window_batch": 2}, "hills", 3)
IMAGE = np.random.default_rng(0).integers(0, 256, (16, 48, 3), dtype=np.uint8)


def saved(folder: Path) -> str:
    key = unit_key(UNIT, MODEL)
    save_panorama(folder, UNIT, IMAGE, record_of(key))
    return key


def record_of(key: str) -> dict:
    """What `make` writes of a panorama, beside its size and checksum."""
    cost = {"seconds": 1.5, "peak_memory_bytes": 2**20, "device": "cpu"}
    return {"key": key, "method": UNIT.method, "settings": dict(UNIT.settings), "model": MODEL, **cost}


def test_slug_is_readable_and_unambiguous():
    assert slug("a photo of a misty forest") == "a-photo-of-a-misty-forest"
    prompts = ["a b", "a-b", "A b", "a  b", "a b ", "森の霧", "../../etc/passwd", "", "x" * 500, "x" * 501, "a\nb"]
    slugs = [slug(prompt) for prompt in prompts]
    assert len({each.lower() for each in slugs}) == len(prompts)
    assert all(each.isascii() and "/" not in each and 0 < len(each) < 80 for each in slugs)


def test_key_follows_what_decides_the_picture():
    key = unit_key(UNIT, MODEL)
    same = Unit("another label", "multidiffusion", {"window_batch": 21, "stride": 4}, "hills", 3)
    assert unit_key(same, MODEL) == key
    for other in (
        Unit("label", "multidiffusion", {"stride": 8, "window_batch": 2}, "hills", 3),
        Unit("label", "profile_matching", {"stride": 4, "window_batch": 2}, "hills", 3),
        Unit("label", "multidiffusion", {"stride": 4, "window_batch": 2}, "hill", 3),
        Unit("label", "multidiffusion", {"stride": 4, "window_batch": 2}, "hills", 4),
    ):
        assert unit_key(other, MODEL) != key
    assert unit_key(UNIT, MODEL | {"fingerprint": "g"}) != key
    assert unit_key(UNIT, MODEL | {"precision": "float16"}) != key


def test_keys_of_rings_alone_have_changed_since_rings_are_decoded_as_rings():
    """The flat panorama's is the one that it has always had."""
    assert unit_key(UNIT, MODEL) == "6603b36717dc4967f6b4e33d5a162cdb03009f34747168e1f4054f72d728f180"
    for method, settings in (("multidiffusion", {"loop_closure": "full"}), ("spotdiffusion", {"steps": 3})):
        content = {
            "format": 1, "method": method, "settings": settings, "prompt": "hills", "seed": 3,
            "model": {"fingerprint": "f", "precision": "float32"},
        }  # fmt: skip
        before, now = (
            hashlib.sha256(json.dumps(each, sort_keys=True).encode()).hexdigest()
            for each in (content, content | {"decoder": "circular"})
        )
        assert unit_key(Unit("label", method, settings, "hills", 3), MODEL) == now != before


def test_what_a_method_is_made_of_decides_the_picture_too(monkeypatch):
    """A raised version; the content of a plugin's file, of a method or of a loss."""
    plain, pulled = unit_key(UNIT, MODEL), Unit("label", "syncdiffusion", {"loss": "mine"}, "hills", 3)
    before, keys = unit_key(pulled, MODEL), []
    monkeypatch.setitem(METHODS, "multidiffusion", replace(METHODS["multidiffusion"], version=2))
    keys.append(unit_key(UNIT, MODEL))
    for code in ("a", "b"):
        monkeypatch.setitem(plugins._code, ("method", "multidiffusion"), code)
        monkeypatch.setitem(plugins._code, ("loss", "mine"), code)
        keys.append(unit_key(UNIT, MODEL))
        assert unit_key(pulled, MODEL) != before
    assert len({plain, *keys}) == 4


def test_a_record_says_of_its_place_what_the_run_does(tmp_path):
    """Another run's id of the same prompt goes, and none is left where the run has none."""
    picture, shared = Picture(saved(tmp_path / "a"), (UNIT,)), tmp_path / "shared"
    for ids in ({"hills": "first"}, {"hills": "second"}, {}):
        folder = tmp_path / f"run-{len(ids)}-{ids.get('hills')}"
        places = places_of(picture, folder, shared, MODEL, ids)
        before = places_of(picture, tmp_path / "a", shared, MODEL, {"hills": "old"})
        assert settle([*before, *places], picture.key, Checksums()) is not None
        assert read_whole(UNIT.png(folder)).get("prompt_id") == ids.get("hills")
        assert look(places, picture.key, Checksums()).lacking == ()
    assert "prompt_id" not in read_whole(places[-1].png)  # the shared one


def test_saved_panorama_is_found_again(tmp_path):
    key = saved(tmp_path)
    record = made(UNIT.png(tmp_path), key)
    assert record is not None and (record["width"], record["height"]) == (48, 16)
    assert UNIT.png(tmp_path) == tmp_path / "panoramas" / "label" / "hills" / "3.png"
    assert np.array_equal(np.asarray(Image.open(UNIT.png(tmp_path))), IMAGE)
    assert record["png_sha256"] == hashlib.sha256(UNIT.png(tmp_path).read_bytes()).hexdigest()
    assert made(UNIT.png(tmp_path), "another key") is None


@pytest.mark.parametrize("damage", ["truncated png", "no png", "no record", "half a record", "another record"])
def test_damage_is_noticed(tmp_path, damage):
    key = saved(tmp_path)
    png, record = UNIT.png(tmp_path), UNIT.json(tmp_path)
    if damage == "truncated png":
        png.write_bytes(png.read_bytes()[:-1])
    elif damage == "no png":
        png.unlink()
    elif damage == "no record":
        record.unlink()
    elif damage == "half a record":
        record.write_text(record.read_text()[:40])
    else:
        record.write_text(json.dumps([1]))
    assert made(UNIT.png(tmp_path), key) is None
    assert read_whole(UNIT.png(tmp_path)) is None


def test_leftover_of_a_killed_writer_goes(tmp_path):
    folder = UNIT.png(tmp_path).parent
    folder.mkdir(parents=True)
    (folder / ".3.png.12345678.tmp").write_bytes(b"half a picture")
    (folder / ".33.png.12345678.tmp").write_bytes(b"of another panorama")
    saved(tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == [".33.png.12345678.tmp", "3.json", "3.png"]


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_whole(path, "old")

    def full(self: Path, data: bytes) -> int:
        with open(self, "wb") as file:
            file.write(data[:2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UsageError, match="No space left on device"):
        write_whole(path, "new content")
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
