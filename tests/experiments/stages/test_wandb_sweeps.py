"""The sweep files: the very command line that W&B's own agent makes of each is composed, or run."""

import itertools
import json
import math
import os
import re
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from wandb import wandb_agent
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args, load_sweep_config

from experiments.metrics.catalogue import METRICS
from experiments.plan.multirun import folder_name
from experiments.stages.track_settings import wandb_mode
from tests.experiments.composing import REPOSITORY, compose_plan, tiny_backbone
from tests.experiments.wandb_file import read_back

FILES = sorted((REPOSITORY / "conf" / "wandb").glob("*.yaml"))
RUN, SWEEP = "run12345", "sweep678"


def grid(config: dict) -> list[dict]:
    """Every point, as the server sends it: through JSON."""
    names = list(config["parameters"])
    points = itertools.product(*(config["parameters"][name]["values"] for name in names))
    sent = [{name: {"value": value} for name, value in zip(names, point, strict=True)} for point in points]
    return json.loads(json.dumps(sent))


def agent(monkeypatch: pytest.MonkeyPatch, folder: Path, config: dict) -> wandb_agent.Agent:
    """W&B's agent of a sweep, as `wandb agent` sets it up, without the server."""
    monkeypatch.setenv("WANDB_DIR", str(folder))
    monkeypatch.setenv("WANDB_SWEEP_ID", SWEEP)
    for name in ("WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH"):  # the agent sets them; so they are taken back
        monkeypatch.setenv(name, "")
    made = wandb_agent.Agent(api=None, queue=None, sweep_id=SWEEP)
    made._sweep_command = list(config["command"])
    return made


def start(made: wandb_agent.Agent, config: dict, point: dict) -> None:
    order = {"type": "run", "run_id": RUN, "program": config["program"], "args": point}
    response = made._process_command(order)
    assert "exception" not in response, response


@pytest.fixture
def command(monkeypatch, tmp_path):
    """command(config, point) -> the words that the agent would start."""
    started = []
    monkeypatch.setattr(wandb_agent, "AgentProcess", lambda command, **options: started.append(command) or Started())

    def words(config, point):
        start(agent(monkeypatch, tmp_path, config), config, point)
        return started.pop()

    return words


class Started:
    last_sigterm_time = None


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_point_of_the_grid_composes_to_what_it_says(command, file):
    config = load_sweep_config(str(file))
    for point in grid(config):
        words = command(config, point)
        assert words[:4] == ["/usr/bin/env", "python", "-m", "experiments.run"]
        plan = compose_plan(words[4:])
        for setting, sent in point.items():
            found = OmegaConf.select(OmegaConf.create(dict(plan.resolved)), setting)
            found = found.name if setting == "prompts" else found
            assert found == (None if sent["value"] == "null" else sent["value"]), words
        label, metric = config["metric"]["name"].split("/")
        assert label in plan.labels and metric in METRICS
        assert config["metric"]["goal"] == {"lower": "minimize", "higher": "maximize"}[METRICS[metric].better]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_keys_that_the_server_takes(file):
    """W&B's server checks these; its package of the check (wandb/sweeps) is not part of its client."""
    config = load_sweep_config(str(file))
    assert config.keys() <= {"name", "description", "program", "method", "metric", "command", "parameters"}
    assert config["method"] == "grid" and (REPOSITORY / config["program"]).is_file()
    for name, parameter in config["parameters"].items():
        assert re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", name)
        assert parameter.keys() == {"values"} and None not in parameter["values"]
    points = [folder_name([f"{name}={sent['value']}" for name, sent in point.items()]) for point in grid(config)]
    assert len(set(points)) == len(points) > 1


def test_none_does_not_survive_the_trip():
    """Why the sweep files say "null"."""
    assert create_sweep_command_args({"args": {"a": {"value": None}}})["args_no_hyphens"] == ["a=None"]
    assert create_sweep_command_args({"args": {"a": {"value": "null"}}})["args_no_hyphens"] == ["a=null"]


QUICK = "skip"  # the one with null; each takes twenty seconds


@pytest.mark.parametrize(
    "file", [pytest.param(file, id=file.stem, marks=[pytest.mark.slow] * (file.stem != QUICK)) for file in FILES]
)
def test_the_command_runs(monkeypatch, tmp_path, tiny_folder, file):
    """By the agent, on a tiny model: the run is the agent's own, in a folder of its own, and has the sweep's metric."""
    config = load_sweep_config(str(file))
    point = grid(config)[-1] | ({"prompts": {"value": "demo"}} if "prompts" in config["parameters"] else {})
    made_tiny = [
        *tiny_backbone(tiny_folder, width=128, stride=8),
        "steps=2",
        "seeds.count=1",
        "prompts=demo",
        "reference.count=0",
        "metrics=mini",
        "metrics.metrics=[intra_lpips]",
        f"run_dir={tmp_path / 'sweep'}",
        "shared_dir=null",
    ]
    config["command"][-1:-1] = made_tiny
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("WANDB_MODE", "offline")
    running = agent(monkeypatch, tmp_path, config)
    start(running, config, point)
    assert running._run_processes[RUN].wait(timeout=300) == 0

    folder = tmp_path / "sweep" / folder_name([f"{name}={sent['value']}" for name, sent in point.items()])
    assert [path for path in (tmp_path / "sweep").iterdir()] == [folder]
    found = read_back(folder / "wandb")
    assert (found["run"].run_id, found["run"].sweep_id) == (RUN, SWEEP)
    # The server knows by these which points of the grid are done.
    assert {name: found["config"][name] for name in point} == {name: sent["value"] for name, sent in point.items()}
    assert math.isfinite(found["history"][config["metric"]["name"]])


def test_under_an_agent_auto_means_online(monkeypatch, tmp_path):
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    assert wandb_mode("auto") == "offline"
    monkeypatch.setenv("WANDB_SWEEP_ID", SWEEP)
    assert wandb_mode("auto") == "online" and wandb_mode("offline") == "offline"
