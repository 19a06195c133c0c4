"""Panoramas of all runs, found again by content: made once, linked where they are wanted, healed where damaged."""

import json
import os
import shutil
from pathlib import Path

import pytest

from experiments.panoramas.index import read_index
from experiments.panoramas.store import Unit, unit_key
from experiments.stages import generate as generation
from experiments.stages.estimate import estimate
from experiments.stages.generate import find_pictures, generate, model_facts


@pytest.fixture
def no_model(monkeypatch):
    """no_model(): from here on it is a failure to load one."""
    return lambda: monkeypatch.setattr(
        generation, "open_studio", lambda *arguments: pytest.fail("the model was loaded")
    )


@pytest.fixture
def pair(compose, tmp_path):
    """pair(*overrides) -> (plan of a first run, plan of a second that wants the same pictures under more labels)."""

    def plans(*overrides: str):
        few = ["prompts.texts=[hills]", "reference.count=1", *overrides]
        second = ["+variants.same={}", "+method@baselines.other=blended_latent"]
        return compose(*few), compose(*few, f"run_dir={tmp_path / 'second'}", *second)

    return plans


def shared_png(shared: Path, key: str) -> Path:
    return shared / "panoramas" / key[:2] / f"{key}.png"


def replaced(path: Path, content: bytes) -> None:
    """Write anew, so that other links to the old file keep what it held."""
    path.unlink()
    path.write_bytes(content)


def key_of(plan, unit: Unit) -> str:
    return unit_key(unit, model_facts(plan.backbone))


def units_found(plan) -> set[Unit]:
    """The plan's units whose picture is somewhere."""
    found = find_pictures(plan, model_facts(plan.backbone))
    return {unit for picture, record in found.items() if record is not None for unit in picture.units}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*") if path.is_file()}


def test_another_run_under_other_labels_makes_nothing(pair, no_model):
    first, second = pair()
    assert generate(first) == 5
    no_model()
    assert generate(second) == 0
    same, other = second.units[1], second.units[3]
    assert (same.label, other.label) == ("same", "other")
    for mine, theirs in ((same, first.units[0]), (other, first.units[1]), (second.references[0], first.references[0])):
        assert mine.png(second.folder).samefile(theirs.png(first.folder))
        assert mine.png(second.folder).samefile(shared_png(first.shared, key_of(first, mine)))
        record, original = (
            json.loads(path.read_text()) for path in (mine.json(second.folder), theirs.json(first.folder))
        )
        assert record == original | {"label": mine.label}
    assert len(read_index(second).panoramas) == len(second.units)
    assert not (first.shared / "claims").exists()


def test_labels_of_one_run_that_come_to_the_same_are_made_once(pair, compose):
    _, second = pair("shared_dir=null")
    assert len(second.units) == 8 and generate(second) == 5
    assert {unit.label for unit in units_found(second)} == {
        *("multidiffusion", "same", "blended_latent", "other", "stable_diffusion")
    }
    for unit in second.units:
        assert json.loads(unit.json(second.folder).read_text())["label"] == unit.label
    assert generate(second) == 0


def test_nothing_is_shared_where_it_is_not_wanted(pair, tmp_path):
    first, second = pair("shared_dir=null")
    assert generate(first) == 5 and generate(second) == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "second"]
    assert not (first.folder / "claims").exists()


def test_a_count_of_what_is_there_writes_nothing(pair):
    first, second = pair()
    assert units_found(first) == set() and not first.shared.exists()
    generate(first)
    assert units_found(second) == {*second.units, *second.references}
    assert not second.folder.exists()


@pytest.mark.parametrize("damage", [b"", b"not a picture", None], ids=["empty", "other bytes", "gone"])
def test_a_damaged_shared_copy_is_healed_from_a_run_and_never_spread(pair, no_model, damage):
    first, second = pair()
    generate(first)
    whole = contents(first.shared)
    shared = shared_png(first.shared, key_of(first, first.units[0]))
    if damage is None:
        shared.unlink()
    else:
        replaced(shared, damage)
    assert generate(second) == 1  # it has no other place to take it from
    assert contents(second.folder)["panoramas/same/hills/0.png"] == first.units[0].png(first.folder).read_bytes()

    replaced(shared, b"damaged again")
    no_model()
    assert generate(first) == 0  # the run's own copy heals it
    assert contents(first.shared).keys() == whole.keys()
    assert {name for name, data in contents(first.shared).items() if data != whole[name]} <= {
        shared.with_suffix(".json").relative_to(first.shared).as_posix()  # its second making has other seconds
    }


@pytest.mark.parametrize("name", ["png", "json"])
def test_a_damaged_run_is_healed_from_the_shared_copy(pair, no_model, name):
    first, _ = pair()
    generate(first)
    before = contents(first.folder)
    no_model()
    replaced(getattr(first.units[1], name)(first.folder), b"{}")
    assert generate(first) == 0
    assert contents(first.folder) == before


def test_damage_to_both_is_made_anew(pair):
    first, _ = pair()
    generate(first)
    before = contents(first.shared)
    png = first.units[1].png(first.folder)
    png.write_bytes(png.read_bytes()[:100])  # both are links to this file
    assert generate(first) == 1
    after = contents(first.shared)
    assert all(after[name] == data for name, data in before.items() if name.endswith(".png"))


DAMAGED_RECORDS = {
    **{f"no {name}": {name: None} for name in ("key", "model", "seconds", "device", "method", "settings")},
    "model is a word": {"model": "mini"},
    "no fingerprint": {"model": {"id": "m", "revision": None, "precision": "float32"}},
    "seconds are no number": {"seconds": "two"},
    "seconds are NaN": {"seconds": float("nan")},
    "memory is no number": {"peak_memory_bytes": [1]},
}


def damage_record(path: Path, changes: dict) -> None:
    """None takes the entry out."""
    record = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in record.items() if value is not None}))


@pytest.mark.parametrize("changes", DAMAGED_RECORDS.values(), ids=DAMAGED_RECORDS)
def test_a_record_that_lacks_what_is_read_is_made_again(pair, no_model, changes):
    """Everywhere: in the run folder alone, in the shared folder alone, in both."""
    first, second = pair()
    generate(first)
    unit = first.units[1]
    own, shared = unit.json(first.folder), shared_png(first.shared, key_of(first, unit)).with_suffix(".json")
    pictures = {name: data for name, data in contents(first.folder).items() if name.endswith(".png")}
    whole = own.read_text()

    damage_record(own, changes)
    damage_record(shared, changes)
    assert read_index(first).missing == (unit,) and unit not in units_found(first)
    assert "| in all           |         1 |       4 |" in estimate(first)
    assert generate(first) == 1
    assert {name: data for name, data in contents(first.folder).items() if name.endswith(".png")} == pictures
    assert json.loads(own.read_text()).keys() == json.loads(whole).keys() and read_index(first).missing == ()

    no_model()
    for path in (own, shared):
        damage_record(path, changes)
        assert generate(first) == 0 and read_index(first).missing == ()
        assert json.loads(path.read_text()).keys() == json.loads(whole).keys()
    assert generate(second) == 0


def test_copies_do_where_there_are_no_links(pair, no_model, monkeypatch):
    def refused(*paths, **options):
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refused)
    first, second = pair()
    generate(first)
    no_model()
    assert generate(second) == 0
    mine, theirs = second.units[3].png(second.folder), first.units[1].png(first.folder)
    assert not mine.samefile(theirs) and mine.read_bytes() == theirs.read_bytes()


def test_a_copy_of_the_model_is_the_same_model(pair, compose, no_model, tmp_path):
    """Found by its files, and recorded under the name by which the run knows it: scoring looks for that."""
    first, _ = pair()
    generate(first)
    shutil.copytree(first.backbone["path"], tmp_path / "copy")
    no_model()
    for folder in ("third", "run"):  # another run, and the same one
        few = ["prompts.texts=[hills]", "reference.count=1", f"backbone.path={tmp_path / 'copy'}"]
        renamed = compose(*few, f"run_dir={tmp_path / folder}")
        assert generate(renamed) == 0
        index = read_index(renamed)
        found = (*index.panoramas, *index.references)
        assert len(found) == 5 and {each.record["model"]["id"] for each in found} == {"copy"}
