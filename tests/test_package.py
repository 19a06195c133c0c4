"""What is installed: a wheel built from this tree, in environments outside it."""

import email
import functools
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from syncdiffusion import __version__, picture
from syncdiffusion.backbones.model_files import fingerprint

REPOSITORY = Path(__file__).parents[1]
SHIPPED = ["syncdiffusion", "baselines", "experiments", "conf", "results/published"]
ABOUT = ["pyproject.toml", "setup.py", "README.md", "LICENSE"]


@functools.cache
def project() -> dict:
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def requirements() -> list[Requirement]:
    """Of the package and all its extras, but those on itself."""
    extras = project()["optional-dependencies"].values()
    found = map(Requirement, [*project()["dependencies"], *(word for extra in extras for word in extra)])
    return [each for each in found if each.name != project()["name"]]


def pins() -> dict[str, str]:
    lines = (REPOSITORY / "requirements.txt").read_text().splitlines()
    words = [line.partition("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, _, version in words}


@pytest.mark.parametrize("requirement", requirements(), ids=str)
def test_the_tested_version_lies_in_the_range(requirement):
    assert requirement.specifier, "a range is wanted"
    assert requirement.specifier.contains(pins()[canonicalize_name(requirement.name)])


def test_every_pin_is_a_requirement():
    assert set(pins()) == {canonicalize_name(each.name) for each in requirements()}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy of the tree, so that nothing of the building stays here, or was here before."""
    folder = tmp_path_factory.mktemp("wheel")
    tree = folder / "tree"
    unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in SHIPPED:
        shutil.copytree(REPOSITORY / name, tree / name, ignore=unwanted)
    for name in ABOUT:
        shutil.copy(REPOSITORY / name, tree / name)
    pip_wheel = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    done = subprocess.run([*pip_wheel, "-w", str(folder), str(tree)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_every_file_that_the_code_reads(wheel):
    def files(folder: str, *suffixes: str) -> set[str]:
        found = (REPOSITORY / folder).rglob("*")
        return {p.relative_to(REPOSITORY / folder).as_posix() for p in found if p.is_file() and p.suffix in suffixes}

    def with_prefix(prefix: str, names: set[str]) -> set[str]:
        return {f"{prefix}/{name}" for name in names}

    expected = with_prefix("experiments/conf", files("conf", ".yaml", ".png"))
    expected |= with_prefix("experiments/published", files("results/published", ".csv"))
    everything = (".py", ".typed", ".json", ".txt", ".safetensors", ".md", ".png", ".html", ".css", ".js")
    for package in ("syncdiffusion", "baselines", "experiments"):
        expected |= with_prefix(package, files(package, *everything))
    training = [name for name in expected if name.startswith("experiments/mini/") and not name.endswith(".py")]
    expected -= set(training)  # a page to read and weights in training: no code reads them
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == expected


def test_the_wheel_says_what_it_is(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        told = email.message_from_bytes(archive.read(name))
        licence = archive.read(name.replace("METADATA", "licenses/LICENSE")).decode()
    assert (told["Name"], told["Version"]) == ("syncdiffusion", __version__)
    assert told["License-Expression"] == "Apache-2.0 AND MIT"
    assert set(told.get_all("License-File")) == {"LICENSE", "experiments/report/page/vendor/pannellum/LICENSE.txt"}
    assert "Apache License" in licence and "Version 2.0, January 2004" in licence
    assert set(told.get_all("Provides-Extra")) == {"metrics", "experiments", "lora", "tests"}


def core_distributions() -> set[str]:
    """The distributions that an installation without extras has, by what the installed ones say that they require."""
    found: set[str] = set()
    todo = [(Requirement(word), "") for word in project()["dependencies"]]
    while todo:
        requirement, extra = todo.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        wanted = [(Requirement(word), each) for word in metadata.requires(name) or () for each in requirement.extras]
        if name not in found:
            found.add(name)
            wanted += [(Requirement(word), "") for word in metadata.requires(name) or ()]
        todo += wanted
    return found


def environment(folder: Path, libraries: Path, wheel: Path) -> Path:
    """An environment of its own with the wheel in it, and beside it what lies in `libraries`; returns its programs."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "libraries.pth").write_text(f"{libraries}\n")
    install = ["-m", "pip", "install", "--no-deps", "--no-index", "--quiet", str(wheel)]
    done = subprocess.run([folder / "bin" / "python", *install], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "bin"


@pytest.fixture(scope="module")
def core(wheel, tmp_path_factory) -> Path:
    """Programs of an environment that has what the package requires and nothing more."""
    folder = tmp_path_factory.mktemp("core")
    libraries = folder / "libraries"
    libraries.mkdir()
    for name in core_distributions():
        for file in metadata.files(name) or ():
            top = file.parts[0]
            if top not in ("..", "__pycache__") and not (libraries / top).exists():
                (libraries / top).symlink_to(file.locate().parents[len(file.parts) - 1] / top)
    return environment(folder / "environment", libraries, wheel)


@pytest.fixture(scope="module")
def full(wheel, tmp_path_factory) -> Path:
    """Programs of an environment that has what the tests have."""
    folder = tmp_path_factory.mktemp("full")
    return environment(folder / "environment", Path(sysconfig.get_paths()["purelib"]), wheel)


def call(program: Path, *words: str, folder: Path) -> subprocess.CompletedProcess:
    """Run a program in another folder, with no way back into this tree."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run([program, *words], cwd=folder, env=clean, capture_output=True, text=True)


def test_an_installation_without_extras_makes_a_panorama(core, tmp_path):
    missing = call(core / "python", "-c", "import hydra", folder=tmp_path)
    assert "No module named 'hydra'" in missing.stderr
    done = call(core / "python", "-m", "pip", "check", folder=tmp_path)
    assert done.returncode == 0, done.stdout
    prompt = "a photo of a mountain range at twilight"
    words = ["--steps", "2", "--device", "cpu", "--set", "first_n=0"]  # weights from elsewhere are another test's
    done = call(core / "syncdiffusion", prompt, *words, "-o", "one.png", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "one.png\n" and "step 2/2; 0 s left" in done.stderr
    record = picture.read_record(tmp_path / "one.png")
    assert (record["prompt"], record["settings"]["steps"], record["settings"]["width"]) == (prompt, 2, 768)
    assert record["model"] == {"id": "embedded", "revision": None, "fingerprint": fingerprint()}
    done = call(core / "syncdiffusion", prompt, "-o", "one.png", folder=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("error: --out one.png: exists already")
    done = call(core / "syncdiffusion", "--version", folder=tmp_path)
    assert done.stdout == f"syncdiffusion {__version__}\n"


def test_the_installed_runner_composes_the_installed_configuration(full, tmp_path):
    runner = full / "syncdiffusion-experiments"
    done = call(runner, "--help", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    choices = {path.stem for path in (REPOSITORY / "conf" / "experiment").glob("*.yaml")}
    assert set(re.findall(r"^  experiment=(\w+)  ", done.stdout, re.MULTILINE)) == choices
    done = call(runner, "experiment=demo", "dry_run=true", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("dry run of demo in runs/demo: nothing is made")
    assert list(tmp_path.iterdir()) == []
    program = (
        "import experiments, experiments.run as run, experiments.results.published as published\n"
        "from experiments.common.environment import git_state\n"
        "print(experiments.__file__, run.CONF, len(published.read_published()), git_state())"
    )
    done = call(full / "python", "-c", program, folder=tmp_path)
    package, conf, count, state = done.stdout.split(maxsplit=3)
    assert Path(package).is_relative_to(full.parent) and Path(conf).is_relative_to(full.parent)
    rows = [path.read_text().splitlines()[1:] for path in (REPOSITORY / "results" / "published").glob("*.csv")]
    assert int(count) == len([row for file in rows for row in file if row])
    assert state == "{'revision': None, 'dirty': None}\n"


def test_a_run_of_the_installed_runner(full, tiny_folder, tmp_path):
    """Generated, scored by nothing that needs weights, reported; the folder holds what a run of a checkout does."""
    model = ["backbone=folder", f"backbone.path={tiny_folder}", "backbone.device=cpu", "backbone.window=64"]
    sizes = ["backbone.height=64", "backbone.width=128", "backbone.stride=4", "steps=2"]
    words = ["experiment=panorama", "method=multidiffusion", "metrics.metrics=[layout_lpips]", "stage=generate"]
    done = call(full / "syncdiffusion-experiments", *words, *model, *sizes, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "panorama: runs/panorama/panoramas/multidiffusion/a-photo-of-a-mountain-range-at-twilight/0.png\n"
        "run folder: runs/panorama\n"
    )
    assert len(list((tmp_path / "runs" / "panorama" / "panoramas").rglob("*.png"))) == 1
