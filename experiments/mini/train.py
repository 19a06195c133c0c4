"""The whole miniature, from renders to gate, in one command that can be interrupted and called again.

    python -m experiments.mini.train --machine gpu
    python -m experiments.mini.train --machine cpu --threads 1

Each stage is a program of its own (`experiments.mini.<stage>`), continues from its last checkpoint in WORK, and is
passed over quickly where it is done; only the gate measures anew at every call. A stage alone: `--only autoencoder`.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from experiments.common.command_line import one_line_errors
from experiments.common.progress import clock, say_step
from experiments.common.signals import end_interrupted
from syncdiffusion.errors import UsageError
from syncdiffusion.signals import answered_by, raise_interrupt

# Arguments of each stage by machine. "cpu": hours of one core; "gpu": meant for 25 minutes of one large GPU with
# 16 cores to render. Whatever is not given has the stage's own default.
PLANS: dict[str, dict[str, list[str]]] = {
    "cpu": {
        "dataset": ["--count", "12288", "--heldout", "512"],
        "train_autoencoder": ["--pictures", "12288", "--steps", "6000", "--critic-from", "1400"],
        "train_diffusion": ["--pictures", "12288", "--steps", "8000", "--cooldown", "2000", "--batch", "64"],
        "train_clip": ["--pictures", "12288", "--steps", "3300", "--cooldown", "1000"],
        "gate": ["--per-caption", "32"],
    },
    "gpu": {
        "dataset": ["--count", "32768", "--heldout", "512"],
        "train_autoencoder": "--pictures 32768 --steps 10000 --critic-from 2500 --cooldown 2500 --batch 64".split(),
        "train_diffusion": "--pictures 32768 --steps 12000 --cooldown 4000 --batch 256".split(),
        "train_clip": "--pictures 32768 --decoded 16384 --steps 4000 --cooldown 1000 --batch 256".split(),
        "gate": ["--per-caption", "48"],
    },
}
RENDERING = ("dataset",)
LEARNING = ("train_autoencoder", "train_diffusion", "train_clip")


def command(stage: str, options: argparse.Namespace) -> list[str]:
    """The command line of one stage."""
    words = [sys.executable, "-m", f"experiments.mini.{stage}", *PLANS[options.machine][stage]]
    if stage in RENDERING:
        words += ["--work", str(options.work), "--workers", str(options.workers)]
    if stage in LEARNING:
        words += ["--work", str(options.work)]
        words += ["--threads", str(options.threads)] if options.threads else []
        words += ["--bfloat16"] if options.bfloat16 else []
    if stage == "train_diffusion":
        words += ["--out", str(options.out / "mini"), "--workers", str(options.workers)]
    if stage == "train_clip":
        words += ["--out", str(options.out / "mini_clip")]
    if stage == "gate":
        words += ["--model", str(options.out / "mini"), "--clip", str(options.out / "mini_clip")]
    return words


def run_stage(words: list[str]) -> int:
    """Runs a stage to its end and returns its status; a signal ends it, with its workers, before it goes on here.

    The stage has a process group of its own: a terminal's Ctrl-C reaches this process alone, and one line tells of it.
    """
    with subprocess.Popen(words, process_group=0) as stage:
        try:
            return stage.wait()
        except KeyboardInterrupt:
            os.killpg(stage.pid, signal.SIGTERM)
            raise


@one_line_errors(exits=True)
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train the miniature and its metric, from renders to gate.")
    parser.add_argument("--machine", choices=PLANS, default="cpu")
    parser.add_argument("--work", type=Path, default=Path("runs/mini-training"))
    parser.add_argument(
        "--out", type=Path, default=Path("runs/mini-training/export"), help="mini and mini_clip go there"
    )
    parser.add_argument("--threads", type=int, help="CPU threads of each training (default: all cores)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that render")
    parser.add_argument("--bfloat16", action="store_true", help="where the machine computes faster in it")
    parser.add_argument("--only", nargs="+", metavar="STAGE", help="these stages alone, in this order")
    parser.add_argument("--dry-run", action="store_true", help="print the commands, and stop")
    options = parser.parse_args(arguments)
    plan = PLANS[options.machine]
    names = {name.removeprefix("train_"): name for name in plan}
    chosen = [names.get(name.removeprefix("train_"), "") for name in options.only or names]
    if "" in chosen:
        raise UsageError(f"only={' '.join(options.only)}: use some of {', '.join(names)}")
    with answered_by(raise_interrupt):
        if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # the terminal was closed
            signal.signal(signal.SIGHUP, lambda _, frame: raise_interrupt(signal.SIGTERM, frame))
        try:
            run_stages(chosen, options)
        except KeyboardInterrupt as stop:
            end_interrupted(stop)


def run_stages(stages: list[str], options: argparse.Namespace) -> None:
    """Runs these stages in order; SystemExit with the status of the first that fails."""
    for stage in stages:
        words = command(stage, options)
        if options.dry_run:
            print(" ".join(words))
            continue
        began = time.monotonic()
        say_step("train", " ".join(words[1:]))
        status = run_stage(words)
        say_step("train", f"{stage}: {clock(time.monotonic() - began)}")
        if status:
            raise SystemExit(status)


if __name__ == "__main__":
    main()
