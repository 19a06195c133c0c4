"""Every system's command is one that the command line takes, and its page and picture are what the command makes."""

from pathlib import Path

import pytest

from baselines import method_named
from experiments import systems
from syncdiffusion.cli import chosen_adapters, chosen_settings, main, parser
from syncdiffusion.errors import UsageError
from syncdiffusion.files import check_files
from syncdiffusion.picture import read_record

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def where_the_commands_run(monkeypatch):
    monkeypatch.chdir(REPOSITORY)


@pytest.mark.parametrize("name", systems.SYSTEMS)
def test_a_command_is_one_that_is_taken(name):
    """Up to where the model would be loaded: settings, values and files."""
    found = parser().parse_args(systems.SYSTEMS[name].command(Path("a.png")))
    method = method_named(found.method)
    check_files(method.settings(**chosen_settings(method, found)))
    chosen_adapters(found).record()


@pytest.mark.parametrize("name", systems.SYSTEMS)
def test_a_picture_was_made_by_its_command(name):
    found = parser().parse_args(systems.SYSTEMS[name].command(Path("a.png")))
    record = read_record(systems.FOLDER / f"{name}.png")
    assert record["prompt"] == found.prompt and record["seed"] == found.seed
    assert record["method"] == method_named(found.method).name
    for each in found.set:
        setting, _, value = each.partition("=")
        told = record["settings"][setting]
        # Of a file its name is told, of a number its value.
        assert Path(value).name in str(told) or float(value) == float(told), (each, told)


def test_the_page_holds_the_commands_that_there_are():
    assert (systems.FOLDER / "README.md").read_text() == systems.page()


def test_a_system_that_is_not_there_is_refused(capsys):
    with pytest.raises((UsageError, SystemExit)):
        systems.main(["--only", "nonsense"])
    assert "only=nonsense: use some of multidiffusion" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", systems.SYSTEMS)
def test_a_command_makes_its_picture(name, tmp_path):
    words = systems.SYSTEMS[name].command(tmp_path / "a.png")
    steps = [] if "--steps" in words else ["--steps", "2"]
    assert main([*words, *steps]) == 0 and (tmp_path / "a.png").is_file()
