"""The feature cache: exact, safe with several writers, and never believed where it is damaged."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments.metrics.cache import FeatureCache
from tests.experiments.composing import REPOSITORY

VALUES = np.array([1 / 3, -0.0, np.nan, np.inf, 5e-324])


def entry(folder: Path) -> Path:
    (path,) = (path for path in folder.rglob("*") if path.is_file())
    return path


@pytest.mark.parametrize("values", [VALUES, VALUES.astype(np.float32), np.empty(0), np.arange(6.0).reshape(2, 3)])
def test_values_come_back_to_the_bit(tmp_path, values):
    cache = FeatureCache(tmp_path)
    cache.put("a key", values)
    found = FeatureCache(tmp_path).get("a key")
    assert (found.dtype, found.shape, found.tobytes()) == (values.dtype, values.shape, values.tobytes())
    assert cache.get("another key") is None


def test_no_damage_is_ever_taken_for_values(tmp_path):
    cache = FeatureCache(tmp_path)
    cache.put("a key", np.arange(3.0))
    path = entry(tmp_path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert cache.get("a key") is None
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 16]) + whole[position + 1 :])
        assert cache.get("a key") is None
    cache.put("a key", np.arange(3.0))
    assert path.read_bytes() == whole


def test_an_entry_under_another_name_is_not_believed(tmp_path):
    cache = FeatureCache(tmp_path)
    cache.put("a key", np.zeros(3))
    content = entry(tmp_path).read_bytes()
    cache.put("another key", np.ones(3))
    for path in tmp_path.rglob("*"):
        if path.is_file():
            path.write_bytes(content)
    assert cache.get("another key") is None
    assert np.array_equal(cache.get("a key"), np.zeros(3))


def test_a_folder_that_cannot_be_written_costs_no_score(tmp_path):
    (tmp_path / "features").write_text("a file stands where the folder must be")
    cache = FeatureCache(tmp_path / "features")
    assert cache.failure is None
    for key in ("one", "two"):
        cache.put(key, np.zeros(3))
        assert cache.get(key) is None
    assert cache.failure.path.is_relative_to(tmp_path / "features") and cache.failure.reason


WORKER = """
import sys
from pathlib import Path
import numpy as np
from experiments.metrics.cache import FeatureCache
cache, seen = FeatureCache(Path(sys.argv[1])), 0
for turn in range(60):
    for index in range(5):
        values = np.full(4096, float(index))
        found = cache.get(f"key {index}")
        assert found is None or np.array_equal(found, values), (turn, index)
        seen += found is not None
        cache.put(f"key {index}", values)
print(seen)
"""


def test_several_processes_may_write_the_same_entries_at_once(tmp_path):
    command = [sys.executable, "-c", WORKER, str(tmp_path)]
    workers = [subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    # After its own first turn a worker must find every entry at every look, however often others replace it.
    for worker in workers:
        out = worker.communicate(timeout=120)[0]
        assert worker.returncode == 0 and int(out) >= 59 * 5
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 5
