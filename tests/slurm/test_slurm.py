"""`hydra/launcher=slurm` on a real Slurm: an array of jobs makes one run folder, also when jobs are ended midway."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from experiments.stages.generate import generate, model_facts, share
from tests.experiments.composing import REPOSITORY, compose_plan, tiny_backbone
from tests.slurm.conftest import Cluster, wait_for

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def settings(tiny_folder: Path) -> list[str]:
    """48 pictures of about a tenth of a second each, so that there is time to end jobs midway."""
    return [
        "method=multidiffusion",
        *tiny_backbone(tiny_folder),
        "steps=4",
        "prompts.texts=[hills by the sea,a city]",
        "seeds.count=22",
        "reference.count=2",
        "stage=generate",
        "shared_dir=null",
    ]


@pytest.fixture(scope="module")
def quiet(settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The pictures of the same run made by one process that nobody disturbs."""
    folder = tmp_path_factory.mktemp("quiet")
    plan = compose_plan([*settings, f"run_dir={folder}"])
    assert generate(plan) == 48
    return pictures(folder)


def pictures(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob("panoramas/**/*.png")}


def workers(folder: Path) -> Counter:
    """How many pictures each process made."""
    records = [json.loads(path.read_text()) for path in folder.glob("panoramas/**/*.json")]
    return Counter(record["worker"]["process"] for record in records)


def command(folder: Path, *words: str) -> list[str]:
    # So short a time that submitit takes the signal for a time-out at any moment, yet Slurm itself sends none.
    limits = ["hydra.launcher.timeout_min=10", "hydra.launcher.signal_delay_s=10"]
    launcher = ["hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1", *limits]
    return [sys.executable, "-m", "experiments.run", "-m", *launcher, f"run_dir={folder}", *words]


def test_an_array_makes_one_run_folder(slurm: Cluster, settings, quiet, tmp_path):
    words = command(tmp_path, *settings, "shard=1/2,2/2")
    done = subprocess.run(words, cwd=REPOSITORY, env=slurm.environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert pictures(tmp_path) == quiet
    assert sorted(workers(tmp_path).values()) == [24, 24]  # two jobs, each its own share and nothing twice
    # Nothing but the run, what Hydra keeps of the sweep, and the jobs' logs.
    assert {path.name for path in (tmp_path / "multirun").iterdir()} == {"multirun.yaml", "slurm"}
    assert not list(tmp_path.rglob("*.lock*"))


def test_jobs_ended_midway_are_queued_again_and_go_on(slurm: Cluster, settings, quiet, tmp_path):
    """One job is queued again by Slurm and killed, the other gets the signal that its time runs out."""
    wait_for("no other test's jobs", lambda: not slurm.jobs())  # a result is there before its job has left the queue
    words = command(tmp_path, *settings, "shard=1/2,2/2")
    sweep = subprocess.Popen(words, cwd=REPOSITORY, env=slurm.environment, stderr=subprocess.PIPE, text=True)
    try:
        shares = [records_of_share(settings, tmp_path, f"{i}/2") for i in (1, 2)]
        wait_for("submitted", lambda: len(slurm.jobs()) == 2)
        jobs = sorted(slurm.jobs())
        left = dict(zip(jobs, shares, strict=True))
        wait_for("both interrupted", lambda: interrupted(slurm, left, kill=jobs[0]), 600)
        wait_for("both ended", lambda: set(slurm.jobs().values()) == {"PENDING"})
        before = {path: path.with_suffix(".png").stat().st_mtime_ns for each in shares for path in made(each)}
        assert all(2 <= len(made(each)) < 24 for each in shares)
        for job in jobs:
            assert "Restarts=1" in slurm.call("scontrol", "show", "job", job)
            slurm.call("scontrol", "update", f"job={job}", "StartTime=now")  # Slurm itself waits two minutes
        _, errors = sweep.communicate(timeout=600)
    finally:
        sweep.kill()
    assert sweep.returncode == 0, errors
    assert pictures(tmp_path) == quiet
    assert {path: path.with_suffix(".png").stat().st_mtime_ns for path in before} == before  # not made again
    assert len(workers(tmp_path)) == 4  # both jobs, before and after
    assert not list(tmp_path.rglob("*.lock*"))


def records_of_share(settings: list[str], folder: Path, shard: str) -> list[Path]:
    """Where the records of the pictures are to be that are one job's to make."""
    plan = compose_plan([*settings, f"run_dir={folder}", f"shard={shard}"])
    groups = share(plan, model_facts(plan.backbone))
    return [picture.units[0].json(folder) for group in groups for picture in group]


def made(records: list[Path]) -> list[Path]:
    """Those that are there; a record is written after its picture."""
    return [path for path in records if path.exists()]


def interrupted(slurm: Cluster, left: dict[str, list[Path]], kill: str) -> bool:
    """Interrupt each job that has made two pictures, and take it out of `left`; whether none is left.

    The one to `kill` is preempted: queued again and killed, as Slurm does by itself seconds later. The other is told.
    """
    for job, records in list(left.items()):
        there = made(records)
        if len(there) >= 2:
            del left[job]
            if job == kill:
                slurm.call("scontrol", "requeue", job)
                os.kill(json.loads(there[0].read_text())["worker"]["process"], signal.SIGKILL)
            else:
                slurm.call("scancel", "--signal=USR2", job)
    return not left


def test_a_failed_job_is_told_in_a_line(slurm: Cluster, settings, tmp_path):
    """The other job runs all the same, and nothing is waited for that never comes."""
    words = command(tmp_path, *settings, "dry_run=true", "backbone.width=100,192")
    done = subprocess.run(words, cwd=REPOSITORY, env=slurm.environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(
        "error: a job of the sweep failed, backbone.width=100: multidiffusion: width=100: windows of 64 px"
    )
    assert "Traceback" not in done.stderr
    first, second = (path.read_text() for path in sorted(tmp_path.glob("multirun/slurm/*/*.out")))
    assert "in all" in second and "in all" not in first  # the last row of what a dry run prints
