"""The command: ``python -m experiments.run [experiment=NAME] [setting=value ...]``.

Generate, score, report, track; each stage also alone (`stage=score`) on what is on disk. Any number of processes may
work on one run folder; one of them scores. Exit status 0; 2 for a mistake of the user's, told in one line on stderr;
130 after Ctrl-C, 143 after SIGTERM.

This file imports next to nothing before it answers signals: what a run does stands in experiments/stages/sequence.py.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from experiments.common.shipped import shipped
from experiments.common.signals import end_at_once, end_interrupted
from syncdiffusion.signals import answered_by, raise_interrupt, unread

if TYPE_CHECKING:
    from omegaconf import DictConfig

CONF = shipped("conf").resolve()
HELP = {"--help", "-h"}
SHOW_ALL = os.environ.get("HYDRA_FULL_ERROR", "") not in ("", "0")


def main() -> Any:
    """The command on `sys.argv`; ends by SystemExit where the status is not 0."""
    with answered_by(end_at_once):
        try:
            import hydra
        except ModuleNotFoundError:
            sys.exit("error: hydra is not installed; pip install 'syncdiffusion[experiments]' brings what runs need")

        from experiments.plan.plugins import load_plugins, plugins_of
        from experiments.plan.schema import register
        from experiments.plan.words import overruled, plain_words

        load_command()
        # Hydra prints several lines for a mistake in a setting, unless it is told to raise: then we print one.
        os.environ["HYDRA_FULL_ERROR"] = "1"
        # Waiting threads must sleep, not spin: beside another busy process spinning made small models 80 times slower.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        command = hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(compose_and_run)
        with answered_by(raise_interrupt), told_on_stderr("syncdiffusion", "experiments"):
            try:
                for line in overruled(sys.argv[1:]):
                    print(f"settings: {line}", file=sys.stderr)
                sys.argv[1:] = plain_words(sys.argv[1:])
                load_plugins(plugins_of(sys.argv[1:]))
                register()  # after the plugins, so that their metrics are among those that are measured
                if HELP.isdisjoint(sys.argv[1:]):
                    command()
                else:
                    tell_help(sys.argv[1:])
            except KeyboardInterrupt as stop:
                end_interrupted(stop)
            except BrokenPipeError:
                sys.exit(unread())
            except Exception as error:
                fail(error)


def tell_help(words: Sequence[str]) -> None:
    """Print what every setting means, with the values that it has on this command line."""
    from hydra import compose, initialize_config_dir

    from experiments.plan.help import help_text
    from experiments.plan.words import MULTIRUN, parted, sweeps

    settings, _ = parted(words)
    if not MULTIRUN.isdisjoint(words):
        settings = [word for word in settings if not sweeps(word)]  # which have no one value to show
    with initialize_config_dir(str(CONF), version_base="1.3"):
        print(help_text(compose("config", settings)), flush=True)


def load_command() -> None:
    """Import what every run needs, none of it heavy, so that no later Ctrl-C falls into its import."""
    from experiments.plan import multirun, plan  # noqa: F401
    from experiments.stages import sequence  # noqa: F401


def compose_and_run(cfg: DictConfig) -> None:
    """One job: the whole command, or one of the many of a sweep."""
    from experiments.plan.multirun import failed_job, in_multirun, own_folder
    from experiments.plan.plan import plan_run
    from experiments.stages.sequence import run

    try:
        run(plan_run(own_folder(cfg)))
    except BrokenPipeError:
        raise
    except Exception as error:
        if in_multirun():  # the jobs that are still to come run all the same
            raise failed_job(error, SHOW_ALL) from error
        fail(error)


def fail(error: Exception) -> None:
    """Exit with one line where the user can mend it; raise what is a defect, or all with HYDRA_FULL_ERROR=1."""
    from experiments.common.command_line import error_line
    from experiments.plan.multirun import launcher_line

    words = sys.argv[1:]
    line = None if SHOW_ALL else error_line(error, words) or launcher_line(error, words)
    if line is None:
        raise error
    print(f"error: {line}", file=sys.stderr)
    sys.exit(2)


@contextmanager
def told_on_stderr(*packages: str) -> Iterator[None]:
    """What these packages log inside the block, downloads and networks being loaded above all, is told on stderr."""
    handler = logging.StreamHandler()
    for logger in map(logging.getLogger, packages):
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False  # some libraries give the root logger a handler, which would say it again
    try:
        yield
    finally:
        for logger in map(logging.getLogger, packages):
            logger.removeHandler(handler)
            logger.propagate = True


if __name__ == "__main__":
    main()
