"""Whole runs of the tiny model: complete, gone on with after any interruption, nothing made twice."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from experiments.panoramas.index import read_index
from experiments.plan.schema import Stage
from experiments.stages import generate as generation
from experiments.stages.generate import generate
from experiments.stages.score import score
from experiments.stages.sequence import run
from syncdiffusion.errors import UsageError
from tests.experiments.composing import REPOSITORY, compose_plan
from tests.tiny_model import build_tiny_model


def pictures(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("panoramas/**/*.png"))
    }


def times(folder: Path) -> dict[str, int]:
    return {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in folder.rglob("panoramas/**/*.*")}


@pytest.fixture(scope="module")
def quiet(tiny_settings, tmp_path_factory) -> dict[str, bytes]:
    """Every picture of an uninterrupted run of the tiny plan."""
    folder = tmp_path_factory.mktemp("quiet")
    assert generate(compose_plan([*tiny_settings, f"run_dir={folder}"])) == 10
    return pictures(folder)


def test_run_folder_is_complete(compose, quiet, known_scores, capsys):
    plan = compose()
    run(plan)
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == f"run folder: {plan.folder}"
    assert pictures(plan.folder) == quiet
    names = {path.name for path in plan.folder.iterdir()}
    assert names == {
        *("config.yaml", "environment.json", "study.json", "panoramas"),
        *("panoramas.csv", "scores.csv", "replicates.csv", "comparisons.csv", "table.md", "table.csv", "table.tex"),
        *("swaps.csv", "scores.sha256", "references.sha256"),
        *("figures", "report", "gallery.png", "comparison.png"),
    }
    panoramas, scores = pd.read_csv(plan.folder / "panoramas.csv"), pd.read_csv(plan.folder / "scores.csv")
    assert list(scores.columns) == ["method", "prompt", "metric", "value", "stderr", "n", "network"]
    assert len(panoramas) == len(plan.units) == 8
    assert (panoramas["intra_lpips"] == 0.5 + panoramas["seed"] / 8).all()
    assert all((plan.folder / file).is_file() for file in panoramas["file"])
    environment = json.loads((plan.folder / "environment.json").read_text())
    assert environment["packages"]["torch"] and environment["cpu"] and "revision" in environment["git"]


def test_record_says_how_the_panorama_was_made(compose):
    plan = compose("prompts.texts=[hills]", "seeds.count=1", "reference.count=0")
    generate(plan)
    unit = plan.units[0]
    record = json.loads(unit.json(plan.folder).read_text())
    assert record["settings"] == dict(unit.settings) and record["settings"]["stride"] == 4
    assert (record["method"], record["prompt"], record["seed"]) == ("multidiffusion", "hills", 0)
    assert (record["width"], record["height"]) == (192, 64)
    assert record["seconds"] > 0 and record["peak_memory_bytes"] > 2**20 and record["device"] == "cpu"
    assert record["worker"] == {"host": socket.gethostname(), "process": os.getpid()}
    assert record["versions"]["torch"] and len(record["model"]["fingerprint"]) >= 16


def test_second_run_makes_nothing(compose, quiet):
    plan = compose()
    assert generate(plan) == 10
    before = times(plan.folder)
    assert generate(plan) == 0
    assert times(plan.folder) == before


def test_what_is_all_there_loads_no_model(compose, quiet, monkeypatch):
    generate(compose())
    monkeypatch.setattr(generation, "open_studio", lambda *arguments: pytest.fail("the model was loaded"))
    assert generate(compose()) == 0
    with pytest.raises(pytest.fail.Exception, match="was loaded"):
        generate(compose("steps=2"))


def test_damaged_picture_is_made_again_and_equal(compose, quiet):
    plan = compose()
    generate(plan)
    before = times(plan.folder)
    damaged = plan.units[3].png(plan.folder)
    damaged.write_bytes(damaged.read_bytes()[:100])
    assert generate(plan) == 1
    assert pictures(plan.folder) == quiet
    changed = {name for name, when in times(plan.folder).items() if before[name] != when}
    assert changed == {path.relative_to(plan.folder).as_posix() for path in (damaged, damaged.with_suffix(".json"))}


def test_changed_setting_remakes_what_it_touches(compose, quiet):
    generate(compose())
    plan = compose("baselines.blended_latent.start=0.5")
    assert generate(plan) == 4
    assert {name for name, data in pictures(plan.folder).items() if quiet[name] != data} == {
        unit.png(plan.folder).relative_to(plan.folder).as_posix()
        for unit in plan.units
        if unit.label == "blended_latent"
    }
    assert generate(compose()) == 0  # and back: the shared folder still has them
    assert pictures(plan.folder) == quiet
    assert generate(compose("shared_dir=null")) == 0
    assert generate(compose("baselines.blended_latent.start=0.5", "shared_dir=null")) == 4


def test_more_seeds_only_add(compose, quiet):
    generate(compose())
    assert generate(compose("seeds.count=3")) == 4
    assert quiet.items() < pictures(compose().folder).items()


def test_window_batch_changes_no_key(compose):
    plan = compose("prompts.texts=[hills]")
    generate(plan)
    assert generate(compose("prompts.texts=[hills]", "window_batch=1")) == 0


def test_killed_run_goes_on_to_the_same_bytes(compose, quiet, tiny_settings):
    """SIGKILL a real process in the middle; started again it makes the rest, and only that."""
    plan = compose()
    command = [sys.executable, "-m", "experiments.run", *tiny_settings, f"run_dir={plan.folder}", "stage=generate"]
    worker = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 240
    while len(list(plan.folder.rglob("*.json"))) < 5 and worker.poll() is None:  # environment.json and four records
        assert time.monotonic() < deadline
        time.sleep(0.002)
    worker.send_signal(signal.SIGKILL)
    stderr = worker.communicate()[1].decode()
    assert worker.returncode == -signal.SIGKILL, stderr
    before = {name: when for name, when in times(plan.folder).items() if name.endswith(".json")}
    assert 4 <= len(before) < 10
    assert generate(plan) == 10 - len(before)
    assert pictures(plan.folder) == quiet
    assert {name: when for name, when in times(plan.folder).items() if name in before} == before
    assert not list(plan.folder.rglob("*.tmp"))


def test_a_run_ends_with_what_a_person_opens(compose, known_scores, capsys):
    plan = compose("tracking=disabled")
    run(plan)
    several = capsys.readouterr().out.splitlines()[-3:]
    report, table = plan.folder / "report" / "index.html", plan.folder / "table.md"
    assert several == [f"report: {report}", f"table: {table}", f"run folder: {plan.folder}"]
    assert report.is_file() and table.is_file()
    run(replace(plan, stage=Stage.generate))
    assert capsys.readouterr().out == f"run folder: {plan.folder}\n"
    run(replace(plan, stage=Stage.generate, units=plan.units[:1]))
    png = plan.units[0].png(plan.folder)
    assert capsys.readouterr().out == f"panorama: {png}\nrun folder: {plan.folder}\n" and png.is_file()


def test_what_takes_long_is_said_before_it_begins(tiny_settings, tmp_path):
    """Piped: libraries, model, steps of the first panorama; in this order."""
    words = [*tiny_settings, f"run_dir={tmp_path / 'run'}", "stage=generate", "prompts.texts=[hills]", "seeds.count=1"]
    done = subprocess.run(
        [sys.executable, "-m", "experiments.run", *words], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith(("run: ", "generate: ", "["))]
    name = tmp_path / "run"
    assert told[:4] == [
        f"run: run in {name}",
        "generate: 2 panoramas and 1 reference image to make, 0 there",
        "generate: loading libraries",
        f"generate: loading the model {Path(compose_plan(words).backbone['path']).name}, in float32 on cpu",
    ]
    assert told[4].startswith("[1/3] multidiffusion, seed 0, 'hills'") and told[-1].startswith("[3/3] ")


def test_stages_run_alone(compose, known_scores, capsys):
    with pytest.raises(UsageError, match="no panorama of these settings there"):
        run(compose("stage=score"))
    run(compose("stage=generate"))
    with pytest.raises(UsageError, match="not scored yet; run stage=score"):
        run(compose("stage=report"))
    run(compose("stage=score"))
    run(compose("stage=report", "tracking=disabled"))
    assert "| Blended latent diffusion | " in capsys.readouterr().out


def test_report_refuses_scores_of_other_panoramas(compose, known_scores):
    run(compose("tracking=disabled"))
    generate(compose("steps=2"))
    with pytest.raises(UsageError, match="of other panoramas"):
        run(compose("steps=2", "stage=report"))


def test_score_counts_what_is_missing(compose, known_scores, capsys):
    plan = compose()
    generate(plan)
    plan.units[0].png(plan.folder).unlink()
    score(plan, read_index(plan))
    assert "score: 1 panoramas or reference images are missing" in capsys.readouterr().err
    assert len(pd.read_csv(plan.folder / "panoramas.csv")) == 7
    with pytest.raises(UsageError, match="strict=true: 1 panoramas"):
        score(compose("strict=true"), read_index(plan))


def test_score_ignores_other_models_and_settings(compose, known_scores, tiny_folder, tmp_path):
    """Panoramas of another configuration in the same folder are none of this run's."""
    generate(compose())
    other = build_tiny_model(tmp_path / "other", seed=1)
    with pytest.raises(UsageError, match="no panorama of these settings"):
        score(compose(f"backbone.path={other}"), read_index(compose(f"backbone.path={other}")))
    assert generate(compose(f"backbone.path={other}")) == 10


def test_a_model_changed_in_place_is_noticed(compose, tmp_path):
    shutil.copytree(compose().backbone["path"], tmp_path / "model")
    override = f"backbone.path={tmp_path / 'model'}"
    assert generate(compose(override)) == 10
    scheduler = tmp_path / "model" / "scheduler" / "scheduler_config.json"
    scheduler.write_text(scheduler.read_text().replace("0.012", "0.02"))
    assert generate(compose(override)) == 10
