"""A setting that names a file: keys follow its content, records tell it, and a bad one is refused before the work."""

import hashlib
import json
import re
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hydra.core.config_store import ConfigStore
from PIL import Image

import baselines
from baselines import multidiffusion
from experiments.panoramas.store import Unit, unit_key
from experiments.plan.schema import register_method
from experiments.plan.words import plain_words
from experiments.stages.generate import generate
from syncdiffusion.errors import UsageError
from syncdiffusion.files import open_picture
from syncdiffusion.method_settings import WindowedSettings
from syncdiffusion.settings import facts_of, label_of, setting
from tests.experiments.composing import compose_plan

MODEL = {"fingerprint": "f", "precision": "float32"}


@dataclass(frozen=True)
class WithFiles(WindowedSettings):
    sketch: str | None = setting(None, "a picture", file=True, picture=True, added=(None,))
    notes: str | None = setting(None, "a file", file=True, added=(None,))


@pytest.fixture
def method(monkeypatch):
    found = replace(multidiffusion.METHOD, name="with_files", settings=WithFiles)
    monkeypatch.setitem(baselines.METHODS, "with_files", found)
    register_method(found, choice=True)
    yield
    repo = ConfigStore.instance().repo
    del repo["method"]["with_files.yaml"], repo["schema"]["method"]["with_files.yaml"]


@pytest.fixture
def sketch(tmp_path):
    path = tmp_path / "a sketch, (mine).png"
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).save(path)
    return path


def unit(**settings):
    return Unit("label", "with_files", settings, "hills", 3)


def test_a_key_holds_what_is_in_the_file_and_not_where_it_lies(method, sketch, tmp_path):
    key = unit_key(unit(stride=4, sketch=str(sketch)), MODEL)
    other = tmp_path / "other.png"
    other.write_bytes(sketch.read_bytes())
    assert unit_key(unit(stride=4, sketch=str(other)), MODEL) == key
    other.write_bytes(sketch.read_bytes() + b"more")  # the same place, other content
    assert unit_key(unit(stride=4, sketch=str(other)), MODEL) != key
    assert unit_key(unit(stride=4, sketch=None), MODEL) == unit_key(unit(stride=4), MODEL) != key  # as before it came


def test_a_label_has_the_file_s_name_alone(sketch):
    assert label_of("sketch", facts_of(WithFiles)["sketch"], "some/where/dawn.png") == "sketch=dawn.png"


@pytest.mark.parametrize(
    ("setting", "name", "told"),
    [
        ("sketch", "nowhere.png", "no such file"),
        ("sketch", "text.png", "is no picture"),
        ("sketch", "half.png", "is no picture"),
        ("sketch", ".", "cannot be read"),
        ("notes", "nowhere.txt", "no such file"),
    ],
)
def test_a_bad_file_is_one_line_of_the_plan(method, sketch, tmp_path, setting, name, told):
    (tmp_path / "text.png").write_text("no picture")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "half.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "half.png").read_bytes()[:3000])
    path = tmp_path / name
    with pytest.raises(UsageError, match=rf"^with_files: {setting}={re.escape(str(path))}: {told}[^\n]*$"):
        compose_plan(plain_words(["method=with_files", f"method.{setting}={path}"]))


def test_a_picture_comes_upright_and_in_rgb(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    Image.new("L", (30, 20), 7).save(tmp_path / "side.jpg", exif=exif)
    picture = open_picture("sketch", str(tmp_path / "side.jpg"))
    assert (picture.size, picture.mode) == ((20, 30), "RGB")


def test_a_picture_of_16_bits_keeps_its_tones_and_one_of_32_is_refused(tmp_path):
    """A ramp over all 65,536 values: 257 of them to a level, as the PNG specification reduces depth."""
    ramp = np.arange(0, 65536, 256, dtype=np.uint16)[None].repeat(2, axis=0)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    found = np.asarray(open_picture("sketch", str(tmp_path / "deep.png")))
    assert np.array_equal(found[0, :, 0], np.round(ramp[0] / 65535 * 255)) and found.shape == (2, 256, 3)
    for kind in (np.int32, np.float32):
        Image.fromarray(ramp.astype(kind)).save(tmp_path / "deeper.tiff")
        with pytest.raises(UsageError, match="^sketch=.*deeper.tiff: has [IF] numbers of 32 bits.* save it in 8 or"):
            open_picture("sketch", str(tmp_path / "deeper.tiff"))


def test_a_run_keeps_the_file_s_name_and_hash(method, sketch, compose):
    words = ["prompts.texts=[hills]", "seeds.count=1", "reference.count=0", "~baselines.blended_latent"]
    plan = compose(*words, *plain_words(["method=with_files", f"method.sketch={sketch}"]))
    assert generate(plan) == 1
    record = json.loads(plan.units[0].json(plan.folder).read_text())
    digest = hashlib.sha256(sketch.read_bytes()).hexdigest()
    assert record["settings"]["sketch"] == {"name": sketch.name, "sha256": digest}
    assert record["settings"]["notes"] is None
    assert generate(plan) == 0
    assert str(sketch) not in plan.units[0].json(plan.folder).read_text()
