"""The command: ``python -m experiments.run [experiment=NAME] [setting=value ...]``.

Generate, score, report, track; each stage also alone (`stage=score`) on what is on disk. Exit status 0; 2 for a
mistake of the user's, told in one line on stderr; 130 after Ctrl-C.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from experiments.config import Plan, plan_run
from experiments.environment import environment
from experiments.schema import Stage, register
from experiments.store import write_json, write_whole
from experiments.usage import error_line

CONF = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "conf")


def run(plan: Plan) -> None:
    """All stages that the plan asks for; the last line of stdout names the run folder."""
    # Written first: a folder that cannot be written is found before minutes of work.
    write_whole(plan.folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(dict(plan.resolved))))
    write_json(plan.folder / "environment.json", environment())
    if plan.stage in (Stage.all, Stage.generate):
        from experiments.generate import generate
        from experiments.score import keep_panoramas

        generate(plan)
        keep_panoramas(plan)
    if plan.stage in (Stage.all, Stage.score):
        from experiments.score import score

        score(plan)
    if plan.stage in (Stage.all, Stage.report):
        from experiments.report import report
        from experiments.tracking import track

        print(report(plan), flush=True)
        track(plan)
    print(f"run folder: {plan.folder}", flush=True)


@hydra.main(version_base="1.3", config_path=CONF, config_name="config")
def compose_and_run(cfg: DictConfig) -> None:
    try:
        run(plan_run(cfg))
    except Exception as error:
        fail(error)


def fail(error: Exception) -> None:
    """Exit with one line where the user can mend it; raise what is a defect, or all with HYDRA_FULL_ERROR=1."""
    line = None if SHOW_ALL else error_line(error, sys.argv[1:])
    if line is None:
        raise error
    print(f"error: {line}", file=sys.stderr)
    sys.exit(2)


def announce_downloads() -> None:
    """What the packages log, a download of weights above all, is told on stderr."""
    for package in ("syncdiffusion", "experiments"):
        logging.getLogger(package).addHandler(logging.StreamHandler())
        logging.getLogger(package).setLevel(logging.INFO)


def main() -> Any:
    # Hydra prints several lines for a mistake in a setting, unless it is told to raise: then we print one.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    # Threads that wait must sleep, not spin: beside another busy process spinning made small models 80 times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    register()
    announce_downloads()
    try:
        compose_and_run()
    except KeyboardInterrupt:
        print("interrupted: what is done stays; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        fail(error)


SHOW_ALL = os.environ.get("HYDRA_FULL_ERROR", "") not in ("", "0")

if __name__ == "__main__":
    main()
