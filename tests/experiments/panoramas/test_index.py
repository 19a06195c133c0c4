"""The index: each file read once, only what is the plan's own, and a whole run that hashes each picture once."""

import hashlib
import json
import os
import sys
from collections import Counter
from pathlib import Path

import pytest

from experiments.panoramas.index import read_index
from experiments.panoramas.records import Checksums
from experiments.panoramas.store import unit_key
from experiments.stages.generate import generate, model_facts
from experiments.stages.sequence import run

PNG = b"\x89PNG"
SHA256, FILE_DIGEST = hashlib.sha256, hashlib.file_digest


@pytest.fixture
def hashed(monkeypatch) -> Counter:
    """PNG content -> how often it was hashed, by whatever way. W&B hashes its own copies; those are none of ours."""
    counts: Counter = Counter()

    def sha256(data: bytes = b"", **options):
        if bytes(data[:4]) == PNG and not sys._getframe(1).f_globals["__name__"].startswith("wandb"):
            counts[bytes(data)] += 1
        return SHA256(data, **options)

    def file_digest(file, name):
        content = file.read()
        file.seek(0)
        if content[:4] == PNG:
            counts[content] += 1
        return FILE_DIGEST(file, name)

    monkeypatch.setattr(hashlib, "sha256", sha256)
    monkeypatch.setattr(hashlib, "file_digest", file_digest)
    return counts


def contents(plan) -> Counter:
    """How many of the plan's different pictures have which content."""
    paths = {unit.png(plan.folder).stat().st_ino: unit.png(plan.folder) for unit in (*plan.units, *plan.references)}
    return Counter(path.read_bytes() for path in paths.values())


def test_a_whole_run_hashes_each_picture_once(compose, known_scores, hashed, tmp_path):
    """Ten pictures: ten hashes where they are made, where they are found in the run folder, or in the shared one."""
    plan = compose()
    run(plan)  # generate, score, report and track; what was made here is hashed as it is written
    assert hashed == contents(plan) and hashed.total() == 10
    hashed.clear()
    run(plan)  # by the same process, which starts anew: all is found
    assert hashed == contents(plan)
    hashed.clear()
    other = compose(f"run_dir={tmp_path / 'other'}", "+variants.same={}")  # 14 places, 10 pictures
    run(other)
    assert hashed == contents(other) and hashed.total() == 10


def test_scoring_hashes_no_picture_again(compose, hashed):
    """With the true reading and caching of features, which are kept by the checksum of the file."""
    from experiments.metrics.cache import FeatureCache
    from experiments.metrics.crops import read_image
    from experiments.metrics.measure import ImageFile, PanoramaImage

    plan = compose("prompts.texts=[hills]", "seeds.count=1", "reference.count=0")
    generate(plan)
    index = read_index(plan)
    hashed.clear()
    cache = FeatureCache(plan.folder / "features", index.checksums)
    for each in index.panoramas:
        item = PanoramaImage(each.unit.prompt, each.unit.seed, each.unit.label, each.png)
        data = read_image(each.png)
        assert ImageFile(item, data, cache.checksums).digest == SHA256(data).hexdigest()
    assert hashed.total() == 0


def test_a_changed_file_is_hashed_anew(tmp_path):
    path, checksums = tmp_path / "file", Checksums()
    for content in (b"one", b"three", b"two"):  # the last has the first one's size
        path.write_bytes(content)
        os.utime(path, ns=(0, len(content) + content[0]))  # else all within one tick of the clock
        assert checksums.of(path) == SHA256(content).hexdigest()
        assert checksums.of_data(path, content) == SHA256(content).hexdigest()
    assert checksums.of_data(path, b"read before it was replaced") == SHA256(b"read before it was replaced").hexdigest()


def test_what_is_missing_damaged_or_of_other_settings_is_no_part_of_it(compose):
    plan = compose()
    generate(plan)
    gone, cut, other = plan.units[0], plan.units[3], plan.references[1]
    gone.png(plan.folder).unlink()
    cut.png(plan.folder).write_bytes(cut.png(plan.folder).read_bytes()[:-1])
    record = json.loads(other.json(plan.folder).read_text())
    other.json(plan.folder).write_text(json.dumps(record | {"key": unit_key(gone, record["model"])}))
    index = read_index(plan)
    assert index.missing == (gone, cut, other)
    assert [each.unit for each in index.panoramas] == [unit for unit in plan.units if unit not in (gone, cut)]
    assert index.rows == {(each.unit.label, each.record["key"]) for each in index.panoramas} and len(index.rows) == 6
    assert read_index(compose("steps=2")).panoramas == ()


def test_another_model_under_the_same_name_counts_where_the_model_is_not_asked(compose):
    plan = compose("prompts.texts=[hills]")
    generate(plan)
    own = model_facts(plan.backbone)["fingerprint"]
    assert read_index(plan).missing == read_index(plan, fingerprint=own).missing == ()
    assert len(read_index(plan, fingerprint="of other weights").missing) == 5
    assert read_index(plan).fingerprints == {own}


def test_a_picture_replaced_since_is_noticed(compose):
    plan = compose("prompts.texts=[hills]")
    generate(plan)
    index = read_index(plan)
    assert index.changed() == ()
    replaced(index.panoramas[1].png, b"another picture")
    index.references[0].png.unlink()
    assert index.changed() == (index.panoramas[1], index.references[0])


def replaced(path: Path, content: bytes) -> None:
    """Write anew, so that other links to the old file keep what it held."""
    path.unlink()
    path.write_bytes(content)
