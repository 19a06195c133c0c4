"""Worker processes for tests: real ones, forked from a server that has imported everything, so they start at once."""

import json
import multiprocessing
import os
import sys
from pathlib import Path

# What a worker needs; the server imports it once.
import diffusers  # noqa: F401
import pandas  # noqa: F401
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel  # noqa: F401
from transformers import AutoTokenizer, CLIPTextModel  # noqa: F401

import baselines  # noqa: F401
from experiments import run
from experiments.panoramas import claims  # noqa: F401
from experiments.stages import generate, score  # noqa: F401

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload([__name__])


def start_worker(overrides: list[str], diary: Path) -> multiprocessing.Process:
    """`python -m experiments.run *overrides` in a process of its own; see `work`."""
    process = FORKS.Process(target=work, args=(overrides, diary))
    process.start()
    return process


def work(overrides: list[str], diary: Path) -> None:
    """The command itself. What it says goes to DIARY.PID; what it makes stands in the diary, a line at each beginning
    and each end: [what, process, key]."""
    torch.set_num_threads(1)  # the bytes of a picture depend on the number of threads
    make = generate.make

    def watched(job, group, missing, *rest):
        for picture in missing:
            note(diary, "begins", os.getpid(), picture.key)
        done = make(job, group, missing, *rest)
        for picture in missing:
            note(diary, "has lost" if picture in job.absent else "has made", os.getpid(), picture.key)
        return done

    generate.make = watched
    said = os.open(f"{diary}.{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(said, 1)
    os.dup2(said, 2)
    sys.argv = ["experiments.run", *overrides]
    run.main()


def note(diary: Path, *words: object) -> None:
    """Append a line whole, whoever else writes."""
    file = os.open(diary, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, json.dumps(words).encode() + b"\n")
    os.close(file)


def read_diary(diary: Path) -> list[list]:
    return [json.loads(line) for line in diary.read_text().splitlines()] if diary.is_file() else []
