"""Every command of the plans is one that its program takes."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.mini import train


@pytest.mark.parametrize("machine", list(train.PLANS))
@pytest.mark.parametrize("stage", list(train.PLANS["cpu"]))
def test_stages_take_their_arguments(
    machine: str, stage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ["--machine", machine, "--work", str(tmp_path), "--out", str(tmp_path), "--threads", "1", "--bfloat16"]
    train.main([*flags, "--workers", "3", "--only", stage, "--dry-run"])
    words = capsys.readouterr().out.split()
    assert words[:3] == [sys.executable, "-m", f"experiments.mini.{stage}"]
    monkeypatch.setattr(sys, "argv", ["program", *words[3:], "--unknown-flag"])
    program = importlib.import_module(f"experiments.mini.{stage}")
    with pytest.raises(SystemExit, match="2"):
        program.main()
    # argparse names all that it does not know, and nothing else.
    assert capsys.readouterr().err.strip().endswith("unrecognized arguments: --unknown-flag")


def test_plans_have_the_same_stages_and_unknown_ones_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(train.PLANS["cpu"]) == list(train.PLANS["gpu"])
    with pytest.raises(SystemExit, match="2"):
        train.main(["--only", "nothing", "--dry-run"])
    assert capsys.readouterr().err.startswith("error: only=nothing: use some of dataset, autoencoder")


def test_a_signal_ends_the_stage_with_its_workers_and_one_line_tells() -> None:
    stage = (
        "import subprocess, sys, time\n"
        "worker = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(worker.pid, flush=True); time.sleep(60)"
    )
    code = (
        "import sys; from experiments.mini import train\n"
        f"train.command = lambda *_: [sys.executable, '-c', {stage!r}]\n"
        "train.main(['--only', 'gate'])"
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as whole:
        worker = int(whole.stdout.readline())
        whole.terminate()
        # The pipe ends when the last process that writes to it has ended, the worker too.
        _, told = whole.communicate(timeout=30)
    assert whole.returncode == 143
    assert told.splitlines()[-1].startswith("terminated: ") and "Traceback" not in told
    assert not Path(f"/proc/{worker}").exists() or "Z" in Path(f"/proc/{worker}/stat").read_text().split()[2]
