"""The command: ``python -m experiments.run [experiment=NAME] [setting=value ...]``.

Generate, score, report, track; each stage also alone (`stage=score`) on what is on disk. Any number of processes may
work on one run folder; one of them scores. Exit status 0; 2 for a mistake of the user's, told in one line on stderr;
130 after Ctrl-C, 143 after SIGTERM.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from experiments.common.command_line import error_line
from experiments.common.environment import environment
from experiments.common.files import Unwritable, write_json, write_whole
from experiments.panoramas.index import Index, read_index
from experiments.panoramas.records import Checksums
from experiments.plan.multirun import failed_job, in_multirun, own_folder
from experiments.plan.plan import Plan, plan_run
from experiments.plan.schema import Stage, register
from experiments.stages.unwritable import unwritable_line
from syncdiffusion.errors import UsageError

CONF = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "conf")


def run(plan: Plan) -> None:
    """All stages that the plan asks for; the last line of stdout names the run folder.

    Raises:
        UsageError: a mistake of the user's, or a folder that cannot be written, told with the setting that chose it.
    """
    try:
        run_stages(plan)
    except Unwritable as error:
        raise UsageError(unwritable_line(error, plan)) from error


def run_stages(plan: Plan) -> None:
    if plan.dry_run:
        from experiments.stages.estimate import estimate

        print(estimate(plan))
        return
    # Written first: a folder that cannot be written is found before minutes of work.
    write_whole(plan.folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(dict(plan.resolved))))
    write_json(plan.folder / "environment.json", environment())
    before, checksums, index = versions_of_scores(plan.folder), Checksums(), None
    if plan.stage in (Stage.all, Stage.generate):
        from experiments.stages.generate import generate, model_facts

        generate(plan, checksums)
        index = read_index(plan, checksums, model_facts(plan.backbone)["fingerprint"])
    if plan.shard and index is not None and index.missing:
        note = f"{len(index.missing)} panoramas belong to other shards; the last to finish scores, or stage=score"
        print(note, file=sys.stderr)
    else:
        finish(plan, before, index)
    print(f"run folder: {plan.folder}", flush=True)


def finish(plan: Plan, before: Mapping[str, Any], index: Index | None = None) -> None:
    """Score and report, one process at a time.

    Of several processes that make the panoramas of one run, the first to find them complete scores them, and the
    others end.

    Args:
        before: the scores that were there when this process began; those written since are such a first one's.
        index: the plan's panoramas; where none is given the disk is read when this process's turn has come.
    """
    from experiments.panoramas.claims import Claims
    from experiments.stages.score import keep_panoramas, score

    claims = Claims(plan.folder)
    with claims.awaited("score", "scores this run folder", plan.stage in (Stage.score, Stage.report)) as claim:
        if claim is None:
            print(f"{claims.holder('score')} scores this run folder; nothing is left to do here", file=sys.stderr)
            return
        index = index or read_index(plan)
        if plan.stage in (Stage.all, Stage.generate):
            found = versions_of_scores(plan.folder)
            keep_panoramas(plan, index)
            others = versions_of_scores(plan.folder) == found and not found.items() & before.items()
            if plan.stage is Stage.all and others:
                print("another process has scored these panoramas; nothing is left to do here", file=sys.stderr)
                return
        if plan.stage in (Stage.all, Stage.score):
            score(plan, index)
        if plan.stage in (Stage.all, Stage.report):
            from experiments.stages.report import report
            from experiments.stages.track import track

            print(report(plan, index), flush=True)
            track(plan, index)


def versions_of_scores(folder: Path) -> dict[str, tuple[int, ...]]:
    """What tells one version of each file that scoring and reporting write from the next; empty where it is not there.

    No clock is asked: two machines' need not agree.
    """
    versions = {}
    for name in ("panoramas.csv", "scores.csv", "table.md"):
        try:
            stat = (folder / name).stat()
            versions[name] = (stat.st_ino, stat.st_mtime_ns)
        except OSError:
            versions[name] = ()
    return versions


@hydra.main(version_base="1.3", config_path=CONF, config_name="config")
def compose_and_run(cfg: DictConfig) -> None:
    try:
        run(plan_run(own_folder(cfg)))
    except Exception as error:
        if in_multirun():  # the jobs that are still to come run all the same
            raise failed_job(error, SHOW_ALL) from error
        fail(error)


class Terminated(KeyboardInterrupt):
    """SIGTERM: every library then cleans up as for Ctrl-C."""


def terminate(number: int, frame: Any) -> None:
    raise Terminated


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
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        compose_and_run()
    except KeyboardInterrupt as stop:
        word, status = ("terminated", 143) if isinstance(stop, Terminated) else ("interrupted", 130)
        print(f"{word}: what is done stays; the same command goes on from here", file=sys.stderr)
        sys.exit(status)
    except Exception as error:
        fail(error)
    finally:
        signal.signal(signal.SIGTERM, before)


SHOW_ALL = os.environ.get("HYDRA_FULL_ERROR", "") not in ("", "0")

if __name__ == "__main__":
    main()
