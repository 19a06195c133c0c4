"""Weights & Biases: one run beside each run of this project, from its first panorama to its tables.

The files in the run folder are the truth. W&B gets the configuration and environment at the start, how far the run is
while panoramas are made, and at the end copies of what the report holds (`track_content`). Whatever fails inside W&B
meanwhile costs one line on stderr, and no result. A run folder that is gone on with yields another W&B run of the same
group, because an offline run cannot be resumed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.common.progress import Stand, say_line
from experiments.common.signals import importing
from experiments.panoramas.index import Index
from experiments.plan.plan import Plan
from experiments.plan.schema import Stage
from experiments.stages.track_settings import OFF, OFFLINE, OWN_FOLDERS, check_folders, wandb_mode
from syncdiffusion.errors import UsageError
from syncdiffusion.signals import exit_status, signal_of

if TYPE_CHECKING:
    import wandb

LOGIN_SECONDS = 20  # how long an unreachable server is waited for
FINISH_SECONDS = 600  # how long the end waits for what is still to be uploaded
EVERY = 5.0  # least seconds between two marks of progress inside a panorama
ROOM = 4096  # bytes
LONGEST_TAG, LONGEST_NAME = 64, 128  # characters, W&B's own rules


class Tracking:
    """The W&B run of one run of this project; `run` is None where there is none, or none any more."""

    def __init__(self, run: wandb.Run | None = None) -> None:
        self.run = run
        self.folder = None if run is None else Path(run.settings.sync_dir)
        self.offline = run is not None and run.settings.mode in OFFLINE
        self.started = self.last = time.monotonic()
        self.failed = False

    def progress(self, stand: Stand) -> None:
        """How far the making of panoramas is; for `experiments.common.progress.Progress`."""
        now = time.monotonic()
        midway = stand.seconds is None and stand.done < stand.total
        if self.run is None or (midway and now - self.last < EVERY):
            return
        self.last = now
        told = {
            "progress/pictures": stand.done,
            "progress/of": stand.total,
            "progress/step_fraction": stand.fraction,
            "progress/share": (stand.done + stand.fraction * stand.count) / max(stand.total, 1),
            "progress/seconds": now - self.started,
        }
        if stand.seconds is not None:
            told[f"progress/seconds_each/{stand.label}"] = stand.seconds / stand.count
        self.attempt(lambda run: run.log(told))

    def results(self, plan: Plan, index: Index) -> None:
        """Log what the report holds."""

        def log(run: wandb.Run) -> None:
            from experiments.stages.track_content import content_of

            run.log(content_of(plan, index))

        self.attempt(log)

    def attempt(self, what: Callable[[wandb.Run], Any]) -> None:
        """Do something with the W&B run. A failure is told once, and the W&B run is given up; nothing else is lost."""
        if self.run is None:
            return
        try:
            what(self.run)
        except Exception as error:  # W&B's own, a full disk, a service that died: none may end hours of work
            self.failed, run, self.run = True, self.run, None
            tell(f"W&B failed ({one_line(error)}); the run goes on without it")
            with suppress(Exception):
                run.finish(exit_code=1)

    def end(self, status: int) -> None:
        """Close the W&B run; waits until its file is whole, or what it holds is uploaded."""
        import wandb

        self.attempt(lambda run: run.finish(exit_code=status))
        try:
            wandb.teardown()  # waits for W&B's own process: only then is the run's file whole
        except Exception as error:
            if not self.failed:
                tell(f"W&B failed at its end ({one_line(error)}); the results are not touched")
            self.failed = True
        if self.offline and not self.failed and self.folder is not None and (reason := unwritten(self.folder)):
            tell(f"W&B could not write all of its run ({reason}); the results are not touched")
            self.failed = True

    def tell(self) -> None:
        """The line that says where the W&B run is."""
        if self.folder is None or not self.folder.is_dir():
            return
        if self.offline or self.failed:
            part = "what it has of the run" if self.failed else "offline run"
            anew = "; stage=report logs the results anew" if self.failed else ""
            print(f"W&B: {part} in {self.folder}; to upload it: wandb sync {shlex.quote(str(self.folder))}{anew}")
        elif self.run is not None and self.run.url:
            print(f"W&B: {self.run.url}")


@contextmanager
def tracked(plan: Plan) -> Iterator[Tracking]:
    """The W&B run for the length of the block; one that does nothing where tracking is off or a stage only scores.

    A server that cannot be reached costs LOGIN_SECONDS and a line on stderr; the run is then kept offline.

    Raises:
        UsageError: before the block begins, for a setting that W&B refuses or a folder that it cannot write to.
    """
    mode = wandb_mode(plan.tracking["mode"])
    if mode == "disabled" or plan.stage is Stage.score:
        if plan.stage is Stage.score and plan.tracking["mode"] in ("online", "offline"):
            tell(f"tracking.mode={mode}: stage=score logs nothing; stage=report does")
        yield Tracking()
        return
    check_folders(plan.folder)
    with kept_inside(plan.folder):
        tracking, status = Tracking(begin(plan, mode)), 1
        try:
            yield tracking
            status = 0
        except KeyboardInterrupt as stop:
            status = exit_status(signal_of(stop))
            raise
        finally:
            tracking.end(status)


def begin(plan: Plan, mode: str) -> wandb.Run | None:
    """Start the W&B run; None, told in one line, where W&B fails for a reason that no setting mends."""
    with importing():
        import wandb

    config = config_of(plan)
    try:
        return start(plan, mode, config)
    except (ValueError, wandb.errors.UsageError) as error:  # pydantic's errors are ValueErrors
        chosen = f"tracking.mode={plan.tracking['mode']}"
        raise UsageError(f"{chosen}: W&B refuses a setting ({one_line(error)}); mend it, {OFF}") from error
    except Exception as error:
        reason = error
    if mode not in OFFLINE:
        tell(f"tracking.mode={mode}: {one_line(reason)}; kept offline instead")
        try:
            return start(plan, "offline", config)
        except Exception as error:
            reason = error
    tell(f"W&B cannot be started ({one_line(reason)}); the run goes on without it")
    return None


@contextmanager
def kept_inside(folder: Path) -> Iterator[None]:
    """W&B's own folders (staging, cache) inside the run folder, unless the user has put them elsewhere."""
    own = {name: str(folder.resolve() / "wandb" / "data") for name in OWN_FOLDERS}
    added = {name: value for name, value in own.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def config_of(plan: Plan) -> dict[str, Any]:
    """The plan's settings, what was found for `auto` among them, and the environment that the panoramas were made in.

    Raises:
        UsageError: environment.json is damaged.
    """
    path = plan.folder / "environment.json"
    try:
        environment = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{path}: is damaged ({error}); remove it, it is written anew") from error
    return dict(plan.resolved) | {"precision": plan.backbone["precision"], "environment": environment}


def start(plan: Plan, mode: str, config: Mapping[str, Any]) -> wandb.Run:
    import wandb

    def unless(variable: str, value: Any) -> Any:
        """None, by which W&B takes its own environment variable, where that is set."""
        return None if os.environ.get(variable) else value

    # The jobs of a sweep have a name that ends in that of their folder, and are one group.
    sweep = plan.name.removesuffix(f" {plan.folder.name}")
    return wandb.init(
        project=plan.tracking["project"],
        entity=plan.tracking["entity"],
        group=unless("WANDB_RUN_GROUP", shortened(sweep)),
        name=unless("WANDB_NAME", shortened(plan.name)),
        job_type=unless("WANDB_JOB_TYPE", plan.stage.value),
        tags=unless("WANDB_TAGS", tags_of(plan)),
        dir=str(plan.folder),  # whatever WANDB_DIR says, which a sweep's agent sets
        mode=mode,
        config=dict(config),
        settings=wandb.Settings(
            silent=True,
            console="off",
            init_timeout=LOGIN_SECONDS,
            login_timeout=LOGIN_SECONDS,
            finish_timeout=FINISH_SECONDS,
            finish_timeout_raises=True,
            x_disable_stats=True,
            x_disable_meta=True,
            disable_git=True,
            disable_code=True,
        ),
    )


def tags_of(plan: Plan) -> list[str]:
    """What one looks for in a list of runs: the experiment, the model, the prompts, the methods, the networks."""
    methods = dict.fromkeys(entry.method for entry in plan.entries)
    words = [plan.name, plan.backbone["name"], plan.resolved["prompts"]["name"], *methods, plan.metrics["networks"]]
    found = [tag for word in words if (tag := str(word).strip()[:LONGEST_TAG])]
    return list(dict.fromkeys(found))


def shortened(name: str) -> str:
    """A name that W&B takes; a digest of the whole stands in place of what is too long."""
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 9]}-{digest}"


def one_line(error: Exception) -> str:
    """An error's own words, W&B's often in several lines, in one; of pydantic's only what is wrong."""
    text = " ".join(str(error).split())
    refused = re.search(r"validation errors? for Settings (\w+) (?:Value error, )?(.*?) \[type=", text)
    return f"{refused[1]}: {refused[2]}" if refused else text[:300] or type(error).__name__


def unwritten(folder: Path) -> str:
    """Why an offline run's file is not whole, "" where it is; W&B's own process tells only its log of it."""
    try:
        log = (folder / "logs" / "debug-internal.log").read_text(encoding="utf-8", errors="replace")
        if found := re.search(r'failed to save record[^"\n]*: ([^":\n]+)"', log):
            return found[1]
        with tempfile.TemporaryFile(dir=folder) as probe:  # a full disk may hold no line of that log
            probe.write(bytes(ROOM))
    except OSError as error:
        return str(error.strerror)
    return ""


def tell(line: str) -> None:
    say_line(f"tracking: {line}")
