"""Sweeps: the run folder of each job, and what a job that fails leaves behind.

A job is one of `python -m experiments.run -m ...` (under any launcher), or one that an agent of Weights & Biases
starts. Its run folder is RUN_DIR/SETTINGS, named by the settings that differ from job to job, so that no two jobs of a
sweep share one; jobs that differ in `shard` alone work on one folder. A failed job does not end the sweep.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import re
import shutil
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from experiments.common.command_line import error_line
from experiments.plan.words import MULTIRUN
from syncdiffusion.errors import UsageError
from syncdiffusion.files import place_of

COMMON = "hydra.job.config.override_dirname.exclude_keys"  # Hydra's own setting: what a job's folder is not named by
TIME_RAN_OUT = "Slurm's time ran out more often than hydra.launcher.max_num_timeout allows"
LONGEST = 120  # characters of a folder's name


class SweepStart(Callback):
    """Tells the jobs, wherever they run, which settings they have in common and where the sweep's own files lie."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        folder = place_of(config.hydra.sweep.dir).resolve()
        if config.dry_run:  # Hydra writes the sweep's settings somewhere in any case
            folder = Path(tempfile.mkdtemp(prefix="syncdiffusion-dry-run-"))
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            print(f"error: run_dir: cannot make {folder} ({error.strerror}); give another run_dir", file=sys.stderr)
            sys.exit(2)  # Hydra makes a warning of any Exception here
        params = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
        settings = {each.key_or_group: each for each in parsed([*params, *as_written(config.hydra)])}
        common = [key for key, each in settings.items() if not each.is_sweep_override()]
        common += OmegaConf.select(config, COMMON)
        with open_dict(config.hydra):
            config.hydra.sweep.dir = str(folder)
            config.hydra.overrides.hydra += [
                f"hydra.sweep.dir={shell_word(str(folder))}",
                f"{COMMON}=[{','.join(map(shell_word, common))}]",
            ]


def own_folder(cfg: DictConfig) -> DictConfig:
    """`cfg` with this job's own `run_dir` and `name`; as it is where there is no sweep.

    A `run_dir` that differs from job to job by itself (swept, or with ${...} in it) is taken as it is.
    Raises UsageError for a launcher without `-m`, which would be passed over in silence.
    """
    differing = differing_settings()
    given = job_settings().get("run_dir")
    if "run_dir" in differing or (given is not None and "${" in str(given.value())):
        return cfg
    names = [
        str(each.input_line)
        for key, each in differing.items()
        # runs/table1 need not become runs/table1/experiment=table1.
        if key != "shard" and not (key in ("experiment", "name") and each.value() == Path(cfg.run_dir).name)
    ]
    if names:
        folder = folder_name(names)
        cfg.run_dir, cfg.name = str(Path(cfg.run_dir) / folder), f"{cfg.name} {folder}"
    return cfg


def job_settings() -> dict[str, Override]:
    """What this job's command line sets."""
    return {each.key_or_group: each for each in parsed(as_written(HydraConfig.get()))}


def differing_settings() -> dict[str, Override]:
    """The settings that differ between the jobs of this job's sweep, with this job's values."""
    hydra = HydraConfig.get()
    if in_multirun():
        common = set(OmegaConf.select(hydra, COMMON.removeprefix("hydra.")))
        return {key: each for key, each in job_settings().items() if key not in common}
    launcher = hydra.runtime.choices.get("hydra/launcher", "basic")
    if launcher != "basic":
        raise UsageError(f"hydra/launcher={launcher}: launches the jobs of a sweep; give -m as well")
    swept = agent_settings()
    return {key: each for key, each in job_settings().items() if key in swept}


def in_multirun() -> bool:
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def agent_settings() -> set[str]:
    """The parameters of the W&B sweep whose agent started this process; none where no agent did."""
    import yaml

    path = os.environ.get("WANDB_SWEEP_PARAM_PATH")
    if not os.environ.get("WANDB_SWEEP_ID") or not path:
        return set()
    try:
        settings = yaml.safe_load(Path(path).read_text())
        reason = "" if isinstance(settings, dict) else "holds no settings"
    except OSError as error:
        reason = f"not readable, {error.strerror}"
    except (yaml.YAMLError, UnicodeDecodeError):
        reason = "no YAML"
    if reason:
        raise UsageError(f"WANDB_SWEEP_PARAM_PATH={path}: {reason}; start the agent anew")
    return set(settings) - {"wandb_version"}


def folder_name(settings: list[str]) -> str:
    """A name that any file system takes; a digest follows where the settings cannot be read back from it.

    >>> folder_name(["method.weight=10", "method.first_n=null"])
    'method.weight=10+method.first_n=null'
    """
    text = "+".join(settings)
    name = re.sub(r"[^A-Za-z0-9_.=+-]+", "-", text)[:LONGEST]
    if name == text == text.lower():
        return name
    return f"{name.strip('-')}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def failed_job(error: Exception, show_all: bool) -> UsageError:
    """Tell why this job of a sweep failed, here and now; returns what the sweep is to raise at its end.

    An exit would end the jobs that are still to come under Hydra's own launcher, and would leave a Slurm job without
    a result to wait for.
    """
    line = TIME_RAN_OUT if timed_out(error) else error_line(error, as_written(HydraConfig.get()))
    if line is None or show_all:
        traceback.print_exception(error)
        line = line or f"{type(error).__name__}: {error}"
    job = " ".join(str(each.input_line) for each in differing_settings().values())
    line = " ".join(f"{job}: {line}".split())
    print(f"error: {line}", file=sys.stderr, flush=True)
    return UsageError(f"a job of the sweep failed, {line}; what is done stays, the same command goes on from here")


def launcher_line(error: Exception, words: Sequence[str]) -> str | None:
    """One line for what went wrong outside the jobs of a sweep, where a launcher was chosen; None without one.

    A job that fails raises UsageError, its defects too (`failed_job`): anything else is a launcher's or its cluster's.
    words: the command line's.
    """
    launcher = next((word.partition("=")[2] for word in words if word.startswith("hydra/launcher=")), None)
    if launcher is None or MULTIRUN.isdisjoint(words):
        return None
    told = " ".join(str(error).split()) or type(error).__name__
    return f"hydra/launcher={launcher}: {told}; change its settings (hydra.launcher.SETTING=VALUE) or leave it out"


def timed_out(error: Exception) -> bool:
    """Whether Slurm's time-out came once more than hydra.launcher.max_num_timeout allows."""
    return type(error).__module__.startswith("submitit.")


def as_written(hydra: Any) -> list[str]:
    """The words of the command line; asked for one by one, ${...} in them would be resolved."""
    words = OmegaConf.to_container(hydra.overrides.task, resolve=False)
    assert isinstance(words, list)
    return words


def parsed(overrides: list[str]) -> list[Override]:
    return OverridesParser.create().parse_overrides(overrides)


def shell_word(text: str) -> str:
    r"""As Hydra's command line takes it whatever it holds; there a backslash escapes only before a quote.

    >>> print(shell_word("it's"), shell_word(r"a\b"))
    'it\'s' 'a\b'
    """
    return "'" + re.sub(r"(\\*)('|$)", lambda end: end[1] * 2 + ("\\'" if end[2] else ""), text) + "'"
