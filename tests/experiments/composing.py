"""Composing a plan as the command line does."""

from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir

from experiments.plan.plan import Plan, plan_run
from experiments.plan.schema import register

REPOSITORY = Path(__file__).parents[2]


def compose_plan(overrides: Sequence[str]) -> Plan:
    """The plan of `python -m experiments.run *overrides`."""
    register()
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        return plan_run(compose("config", list(overrides)))


def tiny_backbone(folder: Path, width: int = 192, stride: int = 4) -> list[str]:
    """Overrides for the tiny random model in `folder`, on a CPU: windows of 64 px on a canvas of 64 by `width`."""
    return [
        "backbone=folder",
        f"backbone.path={folder}",
        "backbone.device=cpu",
        "backbone.window=64",
        "backbone.height=64",
        f"backbone.width={width}",
        f"backbone.stride={stride}",
    ]
