"""Every command of the plans is one that its program takes."""

from __future__ import annotations

import importlib
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
