"""What a run does, stage after stage: generate, score, report, track; beside any number of other processes."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from experiments.common.environment import environment
from experiments.common.files import Unwritable, check_writable, sweep_leftovers, write_json, write_whole
from experiments.common.progress import say_step
from experiments.metrics.config import MetricsConfig
from experiments.panoramas.index import Index, read_index
from experiments.panoramas.records import Checksums
from experiments.plan.plan import Plan
from experiments.plan.schema import Stage
from experiments.stages.track import Tracking, tracked
from experiments.stages.track_settings import check_tracking
from experiments.stages.unwritable import unwritable_line
from syncdiffusion.errors import UsageError


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
    if plan.dry_run and plan.sources:
        from experiments.stages.take import told

        print(told(plan), flush=True)
        return
    if plan.dry_run and plan.stage in (Stage.score, Stage.report):
        print(f"dry run of {plan.name} in {plan.folder}: stage={plan.stage.value} makes no picture", flush=True)
        return
    if plan.dry_run:
        from experiments.stages.estimate import estimate

        print(estimate(plan), flush=True)
        return
    if plan.stage is not Stage.score:  # which logs nothing
        check_tracking(plan.tracking)
    makes = plan.stage in (Stage.all, Stage.generate) and not plan.sources
    if makes:  # first: a folder that cannot be written is found before minutes of work
        write_configuration(plan)
    else:
        check_writable(plan.folder / "config.yaml")
    if makes or not (plan.folder / "environment.json").exists():  # else it stays that of the making
        write_json(plan.folder / "environment.json", environment())
    for folder in filter(None, (plan.folder, plan.shared)):
        sweep_leftovers(folder)
    say_step("run", f"{plan.name} in {plan.folder}")
    with tracked(plan) as tracking:
        work(plan, tracking)
    if not makes:  # last: what is refused must not change what a finished run says of itself
        write_configuration(plan)
    tracking.tell()
    print(f"run folder: {plan.folder}", flush=True)


def write_configuration(plan: Plan) -> None:
    write_whole(plan.folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(dict(plan.resolved))))


def work(plan: Plan, tracking: Tracking) -> None:
    """The stages that make something."""
    before, checksums, index = versions_of_scores(plan.folder), Checksums(), None
    if plan.stage in (Stage.all, Stage.generate) and plan.sources:
        from experiments.stages.take import take

        take(plan, checksums)
        index = read_index(plan, checksums)
    elif plan.stage in (Stage.all, Stage.generate):
        from experiments.stages.generate import generate, model_facts

        if plan.stage is Stage.all:
            find_what_scores(plan)
        generate(plan, checksums, tracking.progress)
        index = read_index(plan, checksums, model_facts(plan.backbone)["fingerprint"])
    if plan.shard and index is not None and index.missing:
        note = f"{len(index.missing)} panoramas belong to other shards; the last to finish scores, or stage=score"
        print(note, file=sys.stderr)
    else:
        finish(plan, before, index, tracking)


def find_what_scores(plan: Plan) -> None:
    """Before hours of generating: the networks that scoring will need are there, or fetched now.

    Raises:
        UsageError: weights that cannot be had.
    """
    from experiments.common.signals import importing

    with importing():
        from experiments.metrics import networks

    say_step("run", "looking for the networks of the metrics")
    try:
        networks.find_networks(MetricsConfig(**plan.metrics))
    except UsageError as error:
        raise UsageError(f"{error}; or stage=generate, which needs no metric") from error


def finish(plan: Plan, before: Mapping[str, Any], index: Index | None = None, tracking: Tracking | None = None) -> None:
    """Score and report, one process at a time.

    Of several processes that make the panoramas of one run, the first to find them complete scores them, and the
    others end.

    Args:
        before: the scores that were there when this process began; those written since are such a first one's.
        index: the plan's panoramas; where none is given the disk is read when this process's turn has come.
        tracking: where the results are logged as well.
    """
    from experiments.panoramas.claims import Claims
    from experiments.stages.score import score
    from experiments.stages.score_files import keep_panoramas, written_rows

    claims = Claims(plan.folder)
    ours = None if index is None else index.rows

    def mine_to_do() -> bool:
        """Whether a process that scores does so without these panoramas: it began with fewer, or only scores."""
        return plan.stage in (Stage.score, Stage.report) or written_rows(plan.folder / "panoramas.csv") != ours

    with claims.awaited("score", "scores this run folder", mine_to_do) as claim:
        if claim is None:
            print(f"{claims.holder('score')} scores this run folder; nothing is left to do here", file=sys.stderr)
            return
        index = index or read_index(plan)
        if plan.stage in (Stage.all, Stage.generate):
            found = versions_of_scores(plan.folder)
            keep_panoramas(plan.folder, index)
            others = versions_of_scores(plan.folder) == found and not found.items() & before.items()
            if plan.stage is Stage.all and others:
                print("another process has scored these panoramas; nothing is left to do here", file=sys.stderr)
                return
        if plan.stage in (Stage.all, Stage.score):
            score(plan, index)
        if plan.stage in (Stage.all, Stage.report):
            from experiments.stages.report import report

            say_step("report", "tables, figures and the page")
            print(report(plan, index), flush=True)
            if tracking is not None:
                tracking.results(plan, index)
        tell_results(plan, index)


def tell_results(plan: Plan, index: Index) -> None:
    """The files that a person opens next: of one panorama its PNG, else the report and the table."""
    if len(index.panoramas) == 1:
        print(f"panorama: {index.panoramas[0].png}")
    if plan.stage in (Stage.all, Stage.report):
        print(f"report: {plan.folder / 'report' / 'index.html'}")
        print(f"table: {plan.folder / 'table.md'}")


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
