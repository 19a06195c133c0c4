"""Sweeps by `-m`: each job's run folder, values that hold commas or null, jobs that fail, two jobs side by side."""

import json
import os
import re
import subprocess
import sys
from collections import Counter

import pytest
from submitit.core.utils import UncompletedJobError

from experiments import run
from experiments.plan.multirun import folder_name
from experiments.stages import sequence
from tests.experiments.composing import REPOSITORY, compose_plan


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """command(*words) -> (exit status, the jobs' plans, stderr) of `python -m experiments.run *words` without work.

    A job whose method.weight is 13 has a defect; one whose weight is 17 is out of time.
    """
    plans = []
    troubles = {13: ZeroDivisionError("a defect"), 17: UncompletedJobError("Job not requeued because: timed-out")}

    def work(plan):
        plans.append(plan)
        if plan.entries[0].settings.get("weight") in troubles:
            raise troubles[plan.entries[0].settings["weight"]]

    def call(*words):
        plans.clear()
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["experiments.run", *words])
        monkeypatch.setattr(sequence, "run", work)
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        try:
            run.main()
            status = 0
        except SystemExit as end:
            status = end.code
        return status, list(plans), capsys.readouterr().err

    return call


SWEEPS = [
    (["method.weight=5,10"], ["run/method.weight=5", "run/method.weight=10"]),
    (["name=x", "seeds.count=2", "method.weight=5,10"], ["x/method.weight=5", "x/method.weight=10"]),
    (["method.first_n=null,3"], ["run/method.first_n=null", "run/method.first_n=3"]),
    (["prompts=demo,paper"], ["run/prompts=demo", "run/prompts=paper"]),
    (["shard=1/2,2/2"], ["run", "run"]),
    (["shard=1/2,2/2", "steps=3,4"], ["run/steps=3", "run/steps=4"] * 2),
    (["steps=3,4", "method.weight=5"], ["run/steps=3", "run/steps=4"]),
    (["steps=range(3,5)", "stride=2,4"], [f"run/steps={n}+stride={s}" for n in (3, 4) for s in (2, 4)]),
    (["experiment=demo,ablation_skip"], ["demo", "ablation_skip"]),
    (
        ["experiment=demo,ablation_skip", "steps=3,4"],
        [f"{e}/steps={n}" for e in ("demo", "ablation_skip") for n in (3, 4)],
    ),
    (["name=a,b"], ["a", "b"]),
    (["+method@baselines.other=multidiffusion,blended_latent", "steps=3"], None),
    (["steps=3"], ["run"]),
]


@pytest.mark.parametrize(("words", "folders"), SWEEPS, ids=lambda value: " ".join(value) if value else "any")
def test_folder_of_each_job(command, tmp_path, words, folders):
    status, plans, err = command("-m", *words)
    assert (status, err) == (0, "")
    found = [str(plan.folder.relative_to("runs")) for plan in plans]
    if folders is None:
        assert len(set(found)) == 2
    else:
        assert found == folders
    # Hydra's own file of the whole sweep, and nothing else.
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert len(written) == 1 and re.fullmatch(r"runs/\w+/multirun/multirun\.yaml", written.pop())


def test_a_sweep_that_an_experiment_file_holds(command, tmp_path):
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    text = "# @package _global_\nname: mine\nhydra: {sweeper: {params: {steps: '3,4'}}}\n"
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text(text)
    _, plans, _ = command("-m", "--config-dir", str(tmp_path / "conf"), "experiment=mine")
    assert [str(plan.folder) for plan in plans] == ["runs/mine/steps=3", "runs/mine/steps=4"]


def test_folders_below_a_given_one(command, tmp_path):
    _, plans, _ = command("-m", "run_dir=there", "steps=3,4")
    assert [str(plan.folder) for plan in plans] == ["there/steps=3", "there/steps=4"]
    assert (tmp_path / "there" / "multirun" / "multirun.yaml").is_file() and not (tmp_path / "runs").exists()


def test_a_folder_that_differs_by_itself_is_taken_as_it_is(command):
    _, plans, _ = command("-m", "run_dir=there/${steps}-${seeds.count}", "steps=3,4")
    assert [str(plan.folder) for plan in plans] == ["there/3-1", "there/4-1"]
    _, plans, _ = command("-m", "run_dir=here,there", "steps=3")
    assert [str(plan.folder) for plan in plans] == ["here", "there"]


def test_any_folder_can_be_given(command, tmp_path):
    folder = tmp_path / "it's a\\b, {c}"
    _, plans, _ = command("-m", f'run_dir="{folder}"', "steps=3,4")
    assert [plan.folder for plan in plans] == [folder / "steps=3", folder / "steps=4"]
    assert (folder / "multirun" / "multirun.yaml").is_file()


def test_no_sweep_changes_nothing(command):
    _, plans, _ = command("method.weight=5")
    assert [(str(plan.folder), plan.name) for plan in plans] == [("runs/run", "run")]


def test_home_in_the_folder_s_name(command, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    _, plans, _ = command("-m", "run_dir='~/out'", "steps=3,4")
    assert plans[0].folder == tmp_path / "home" / "out" / "steps=3"
    assert {path.name for path in tmp_path.iterdir()} == {"home"}


def test_values_arrive_as_they_are_meant(command):
    _, plans, _ = command("-m", "method.first_n=null,3", "name=a")
    assert [plan.entries[0].settings["first_n"] for plan in plans] == [None, 3]
    assert [plan.name for plan in plans] == ["a method.first_n=null", "a method.first_n=3"]
    _, plans, _ = command("-m", "prompts=demo,paper")
    assert [len(plan.prompts) for plan in plans] == [2, 6]
    _, plans, _ = command("-m", "shard=1/2,2/2")
    assert [plan.shard for plan in plans] == [(1, 2), (2, 2)]
    # A comma inside a text needs quotes inside the shell's; two texts that look alike as a folder's name do not meet.
    _, plans, _ = command("-m", "prompts.texts=['a city, at night'],['a city at, night']")
    assert [plan.prompts for plan in plans] == [("a city, at night",), ("a city at, night",)]
    assert plans[0].folder != plans[1].folder


@pytest.mark.parametrize(
    "text",
    [
        "a=../../etc",
        "a=..",
        "a=/",
        "a=b c",
        "a=b\nc",
        "a=Ünïcode 🏔",
        "a='$(rm -rf)'",
        "a=" + "x" * 500,
        "a=X",
        "a=",
        "-a=\0",
    ],
)
def test_a_folder_name_is_safe_and_unlike_others(text):
    name = folder_name([text])
    assert re.fullmatch(r"[A-Za-z0-9_.=+-]{1,160}", name) and name not in (".", "..")
    # Also where the difference is one of case alone, which some file systems do not make.
    others = [text.lower(), text + "x", re.sub(r"[^A-Za-z0-9=]", "-", text)]
    assert all(folder_name([other]).lower() != name.lower() for other in others if other != text)


def test_a_failed_job_does_not_end_the_sweep(command):
    status, plans, err = command("-m", "seeds.count=1,0,2")
    assert status == 2
    assert [len(plan.units) for plan in plans] == [6, 12]
    told = [line for line in err.splitlines() if line.startswith("error: ")]
    assert told[0] == "error: seeds.count=0: seeds.count=0: must be 1 or more"
    assert told[1:] == err.splitlines()[-1:] and told[1].startswith("error: a job of the sweep failed, seeds.count=0: ")
    assert "Traceback" not in err


def test_a_value_that_cannot_be_ends_the_sweep_before_it_begins(command):
    status, plans, err = command("-m", "steps=3,abc,4")
    assert (status, plans, err) == (2, [], "error: steps=abc: must be a whole number\n")


def test_a_defect_in_a_job_keeps_its_traceback(command):
    status, plans, err = command("-m", "method.weight=12,13,14")
    assert status == 2 and len(plans) == 3
    assert "Traceback" in err and "method.weight=13: ZeroDivisionError: a defect" in err.splitlines()[-1]


def test_a_job_out_of_time_is_told_what_would_do(command):
    """submitit raises this in a job whose time ran out once too often."""
    status, _, err = command("-m", "method.weight=12,17")
    assert status == 2 and "Traceback" not in err
    assert err.splitlines()[0].startswith("error: method.weight=17: Slurm's time ran out more often than")


def test_a_folder_that_cannot_be_made(command, tmp_path):
    (tmp_path / "file").write_text("")
    status, plans, err = command("-m", "run_dir=file/there", "steps=3,4")
    assert (status, plans) == (2, [])
    assert err.startswith("error: run_dir: cannot make") and err.count("\n") == 1


def test_a_dry_run_of_a_sweep_leaves_nothing(command, tmp_path):
    status, plans, err = command("dry_run=true", "-m", "steps=3,4")
    assert (status, err, [plan.folder.name for plan in plans]) == (0, "", ["steps=3", "steps=4"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "told"), [("", "holds no settings"), ("[1", "no YAML"), (None, "not readable, No such file")]
)
def test_an_agents_file_that_is_none(command, monkeypatch, tmp_path, content, told):
    path = tmp_path / "settings.yaml"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv("WANDB_SWEEP_ID", "it")
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", str(path))
    status, plans, err = command("steps=3")
    assert (status, plans) == (2, [])
    assert err.startswith(f"error: WANDB_SWEEP_PARAM_PATH={path}: {told}") and err.count("\n") == 1


def test_without_a_tracking_group_nothing_is_tracked(command):
    _, (plan,), _ = command("~tracking", "experiment=panorama")
    assert plan.tracking["mode"] == "disabled"


def test_a_launcher_launches_sweeps_only(command):
    status, plans, err = command("hydra/launcher=slurm", "steps=3")
    assert (status, plans) == (2, [])
    assert err == "error: hydra/launcher=slurm: launches the jobs of a sweep; give -m as well\n"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["hydra/launcher=joblib", "hydra.launcher.n_jobs=0"], "hydra/launcher=joblib: n_jobs == 0"),
        (["hydra/launcher=slurm"], 'hydra/launcher=slurm: Could not detect "srun"'),
    ],
)
def test_a_launcher_that_cannot_launch_is_one_line(command, monkeypatch, words, told):
    monkeypatch.setenv("PATH", "")  # no Slurm
    status, plans, err = command("-m", "steps=3,4", *words)
    assert (status, plans) == (2, []) and err.startswith(f"error: {told}") and err.count("\n") == 1


def test_commas_without_m(command):
    status, plans, err = command("method.weight=5,10")
    assert (status, plans) == (2, []) and err.startswith("error: ") and err.count("\n") == 1


def joblib(*words):
    launcher = ["-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    return subprocess.run(
        [sys.executable, "-m", "experiments.run", *launcher, *words],
        cwd=REPOSITORY,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


def test_jobs_in_other_processes(tmp_path):
    """What the jobs need travels to them, and what goes wrong travels back."""
    done = joblib("dry_run=true", f"run_dir={tmp_path}", "shared_dir=null", "seeds.count=0,1")
    assert done.returncode == 2 and done.stdout.startswith("dry run of run seeds.count=1 in")
    assert done.stderr.splitlines()[-1].startswith("error: a job of the sweep failed, seeds.count=0: ")
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_two_shards_side_by_side_make_every_panorama_once(tiny_settings, tmp_path):
    words = [*tiny_settings, f"run_dir={tmp_path / 'run'}", "stage=generate", "shared_dir=null"]
    done = joblib("shard=1/2,2/2", *words)
    assert done.returncode == 0, done.stderr
    plan = compose_plan(words)
    records = [json.loads(unit.json(plan.folder).read_text()) for unit in (*plan.units, *plan.references)]
    assert sorted(Counter(record["worker"]["process"] for record in records).values()) == [5, 5]
    assert done.stderr.count(" to make, 0 there") == 2
