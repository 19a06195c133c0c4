"""A method from a file outside the repository: in the configuration, the dry run, a run and its tables."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from baselines import METHODS
from experiments.plan.plugins import load_plugins, plugins_of
from syncdiffusion.errors import UsageError
from tests.experiments.composing import REPOSITORY

HALVES = '''"""MultiDiffusion whose windows are two shades less contrasty in the end."""

from dataclasses import dataclass

from baselines import multidiffusion
from syncdiffusion.method import Method
from syncdiffusion.method_settings import WindowedSettings
from syncdiffusion.settings import setting


@dataclass(frozen=True)
class FadedSettings(WindowedSettings):
    fade: float = setting(0.5, "share of the latents that is kept", least=0, most=1, symbol="f")


def sample(task, settings):
    from syncdiffusion.joint.loop import denoise

    windows = task.windows(settings.stride, settings.loop_closure)
    last = task.steps[-1].index
    return denoise(task, windows, canvas=lambda step, x: settings.fade * x if step.index == last else x)


METHOD = Method("faded", "Faded windows", FadedSettings, sample, multidiffusion.calls, "a test of plugins")
'''


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "faded.py"
    path.write_text(HALVES)
    return path


def command(*words: str) -> subprocess.CompletedProcess:
    """In a process of its own: a plugin stays registered in the process that has loaded it."""
    line = [sys.executable, "-m", "experiments.run", *words]
    return subprocess.run(line, cwd=REPOSITORY, capture_output=True, text=True)


def test_a_method_from_a_file_is_priced_made_and_tabled(plugin, tiny_settings, tmp_path):
    words = [*tiny_settings, f"plugins=[{plugin}]", "method=faded", "+method@baselines.multi=multidiffusion"]
    words += ["+ablations.fade=[0.25,1]", f"run_dir={tmp_path / 'run'}", "tracking=disabled", "reference.count=0"]
    words += ["metrics.metrics=[intra_lpips]"]
    priced = command(*words, "dry_run=true")
    assert priced.returncode == 0, priced.stderr
    assert "| fade=0.25 " in priced.stdout
    done = command(*words, "stage=generate")
    assert done.returncode == 0, done.stderr
    with (tmp_path / "run" / "panoramas.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["method"] for row in rows} == {"fade=0.25", "fade=1", "multi", "blended_latent"}
    whole, plain, faded = (
        (tmp_path / "run" / "panoramas" / label / "hills-by-the-sea" / "0.png").read_bytes()
        for label in ("fade=1", "multi", "fade=0.25")
    )
    assert whole == plain != faded  # nothing faded is MultiDiffusion, byte for byte


BRIGHTNESS = '''"""How bright a panorama is."""

import numpy as np

from experiments.metrics.metric import Measurement, Metric, PanoramaMetric


def brightness(files, network, config):
    return [np.array([file.pixels.mean() / 255]) for file in files]


METRIC = PanoramaMetric(
    name="brightness",
    place=900,
    measurement=Measurement("brightness", 1, None, lambda item, config: {}, brightness),
    numbers={Metric("brightness", "Brightness", "higher", per_panorama=True): np.mean},
)
'''


def test_a_metric_from_a_file_is_measured_and_tabled(tiny_settings, tmp_path):
    path = tmp_path / "brightness.py"
    path.write_text(BRIGHTNESS)
    words = [*tiny_settings, f"plugins=[{path}]", "metrics.metrics=[brightness]", f"run_dir={tmp_path / 'run'}"]
    done = command(*words, "tracking=disabled", "reference.count=0", "seeds.count=1")
    assert done.returncode == 0, done.stderr
    with (tmp_path / "run" / "panoramas.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        pixels = np.asarray(Image.open(tmp_path / "run" / row["file"]).convert("RGB"))
        assert float(row["brightness"]) == pytest.approx(pixels.mean() / 255, abs=1e-9)
    table = tmp_path / "run" / "table.md"
    before = table.read_bytes()
    assert len(rows) == 4 and "Brightness ↑" in before.decode()
    table.unlink()
    again = [sys.executable, "-m", "experiments.rebuild", str(tmp_path / "run"), "--plugins", str(path)]
    subprocess.run(again, cwd=REPOSITORY, check=True, capture_output=True)
    assert table.read_bytes() == before
    # The panoramas are there, and so are their numbers, but by another rule than the file has now.
    path.write_text(BRIGHTNESS.replace("file.pixels.mean()", "2 * file.pixels.mean()"))
    done = command(*words, "tracking=disabled", "reference.count=0", "seeds.count=1")
    assert done.returncode == 0, done.stderr
    with (tmp_path / "run" / "panoramas.csv").open(newline="") as file:
        twice = [float(row["brightness"]) for row in csv.DictReader(file)]
    assert twice == pytest.approx([2 * float(row["brightness"]) for row in rows])
    path.write_text(BRIGHTNESS.replace("): np.mean", "): lambda values: float('nan')"))
    done = command(*words, "tracking=disabled", "reference.count=0", "seeds.count=1")
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 2 and "its brightness is no finite number; where there is none" in last


def test_an_edited_method_makes_its_panoramas_anew(plugin, tiny_settings, tmp_path):
    words = [*tiny_settings, f"plugins=[{plugin}]", "method=faded", "seeds.count=1", "reference.count=0"]
    words += [f"run_dir={tmp_path / 'run'}", "stage=generate", "prompts.texts=[a city]"]
    told = []
    for kept in ("settings.fade * x", "settings.fade * x", "0.9 * settings.fade * x"):
        plugin.write_text(HALVES.replace("settings.fade * x", kept))
        done = command(*words)
        assert done.returncode == 0, done.stderr
        told += [line for line in done.stderr.splitlines() if " to make, " in line]
    counts = ("2 panoramas to make, 0 there", "0 panoramas to make, 2 there", "1 panorama to make, 1 there")
    assert told == [f"generate: {each}" for each in counts]  # the other is a built-in method's


def test_a_wrong_setting_of_it_is_told_like_any_other(plugin):
    done = command(f"plugins=[{plugin}]", "method=faded", "method.fade=2")
    assert done.returncode == 2 and done.stderr == "error: faded: fade=2.0: use 0 to 1\n"
    done = command(f"plugins=[{plugin}]", "method=faded", "method.fode=1")
    assert done.returncode == 2 and "method.fode=1: no such setting (did you mean fade?)" in done.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        ("x = 1\n", "neither METHOD nor METRIC nor LOSS in it"),
        ("x = 1\nx / 0\n", "line 2: ZeroDivisionError"),
        ("from baselines.multidiffusion import METHOD as M\nfrom dataclasses import replace\n"
         "METHOD = replace(M, title='another')\n", "there is one of that name"),
    ],
    ids=["absent", "empty", "broken", "taken"],
)  # fmt: skip
def test_a_plugin_that_cannot_be_used_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "mine.py"
    if content is not None:
        path.write_text(content)
    before = dict(METHODS)
    with pytest.raises(UsageError) as error:
        load_plugins([str(path)])
    assert message in str(error.value) and "\n" not in str(error.value)
    assert before == METHODS


def test_plugins_are_found_on_the_command_line():
    assert plugins_of(["method=x", "plugins=[a.py,'b c.py']"]) == ["a.py", "b c.py"]
    assert plugins_of(["plugins=[broken"]) == []  # Hydra says so
