"""What a model's folder tells of how to sample with it."""

import json
import shutil

import pytest

from baselines import METHODS
from syncdiffusion.backbones.model_files import EMBEDDED_FOLDER, fingerprint_folder
from syncdiffusion.backbones.sampling import SAMPLING_FILE, sampling_defaults
from syncdiffusion.errors import UsageError


def defaults(source, method):
    return sampling_defaults(source, method, METHODS[method].settings)


def test_what_every_method_has_and_what_one_has(tmp_path):
    told = {"every_method": {"steps": 7, "stride": 3}, "syncdiffusion": {"steps": 9, "weight": 2.0}}
    (tmp_path / SAMPLING_FILE).write_text(json.dumps(told))
    assert defaults(tmp_path, "syncdiffusion") == {"steps": 9, "stride": 3, "weight": 2.0}
    assert defaults(tmp_path, "multidiffusion") == {"steps": 7, "stride": 3}
    assert defaults(tmp_path, "stable_diffusion") == {"steps": 7}  # it has no windows


def test_where_nothing_is_told(tmp_path, monkeypatch):
    assert defaults(tmp_path, "syncdiffusion") == {}
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    (tmp_path / "owner" / "name" / SAMPLING_FILE).write_text('{"every_method": {"steps": 1}}')
    assert defaults("owner/name", "syncdiffusion") == {}  # a hub id is not a folder


@pytest.mark.parametrize("text", ["{", "[]", '{"steps": 3}'])
def test_a_damaged_file_is_named(tmp_path, text):
    (tmp_path / SAMPLING_FILE).write_text(text)
    with pytest.raises(UsageError, match=rf"{SAMPLING_FILE}: (cannot be read|must hold)") as told:
        defaults(tmp_path, "syncdiffusion")
    assert "\n" not in str(told.value)


def test_how_it_is_sampled_does_not_change_what_a_model_is(tmp_path):
    copy = shutil.copytree(EMBEDDED_FOLDER, tmp_path / "copy")
    (copy / SAMPLING_FILE).unlink()
    assert fingerprint_folder(copy) == fingerprint_folder(EMBEDDED_FOLDER)
