"""The environment files agree, and what is recorded about a machine is what it is."""

import re
import sys
from importlib import metadata

import yaml

from experiments.common.environment import PACKAGES, environment, git_state, versions
from tests.experiments.composing import REPOSITORY


def pins() -> list[str]:
    lines = (line.strip() for line in (REPOSITORY / "requirements.txt").read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def test_conda_users_get_the_same_versions():
    conda = yaml.safe_load((REPOSITORY / "environment.yml").read_text())
    *_, pip = conda["dependencies"]
    assert pip["pip"] == pins()
    assert "python=3.11" in conda["dependencies"]


def test_every_requirement_is_pinned_and_installed():
    for pin in pins():
        match = re.fullmatch(r"([A-Za-z0-9_.-]+)==([0-9][A-Za-z0-9.]*)", pin)
        assert match, f"{pin}: not NAME==VERSION"
        assert metadata.version(match[1]).partition("+")[0] == match[2], pin


def test_recorded_packages_are_requirements():
    names = {pin.partition("==")[0].lower().replace("_", "-") for pin in pins()}
    assert {name.replace("_", "-") for name in PACKAGES} <= names


def test_environment():
    found = environment()
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["packages"]["numpy"] == metadata.version("numpy")
    assert found["cpu"] and found["cpu_count"] >= 1
    assert versions(["no-such-package-anywhere"]) == {"no-such-package-anywhere": None}
    assert set(git_state()) == {"revision", "dirty"}
