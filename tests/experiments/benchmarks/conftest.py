"""A benchmark of the tiny random model, small enough for seconds."""

import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from experiments.benchmarks import run
from experiments.benchmarks.cases import CASES, Case
from syncdiffusion.backbones.loading import load_backbone
from syncdiffusion.sync import SyncDiffusionSettings
from tests.metric_networks import load_or_skip

TIMED = SyncDiffusionSettings(
    height=64,
    width=128,
    steps=2,
    guidance_scale=3.0,
    stride=4,
    window_batch=3,
    weight=5.0,
    first_n=1,
    loss="lpips_alex",
)


@pytest.fixture
def tiny_case(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    """The case "tiny", which the command line knows as long as the test lasts. Gradient steps amplify nothing here."""
    load_or_skip("lpips_alex")
    warnings.simplefilter("ignore")
    case = Case(
        name="tiny",
        load=lambda device, precision: load_backbone(str(tiny_folder), device=device, precision=precision),
        precision="float32",
        timed=(TIMED,),
        check=replace(TIMED, width=96),
        check_tolerance=1e-9,
        sync_tolerance=1e-4,
        multi_tolerance=1e-4,
        prompt="a photo of a forest",
        seed=3,
    )
    monkeypatch.setitem(CASES, "tiny", lambda: case)
    monkeypatch.setattr(run, "matmul_rate", partial(run.matmul_rate, sizes=(128,)))
    return case
