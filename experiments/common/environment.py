"""What a run was made with: kept beside its results, so that a number can be traced."""

from __future__ import annotations

import datetime
import os
import platform
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "torch torchvision diffusers transformers accelerate tokenizers safetensors lpips torchmetrics clean-fid "
    "open_clip_torch hydra-core wandb pandas numpy scipy pillow matplotlib"
).split()
RECORDED = ("torch", "diffusers", "transformers", "lpips", "numpy", "pillow")  # with every panorama


def versions(names: tuple[str, ...] | list[str]) -> dict[str, str | None]:
    """Installed version of each package, None where it is not installed. Imports nothing."""
    found: dict[str, str | None] = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def git_state() -> dict[str, Any]:
    """Revision of this checkout and whether it has uncommitted changes; both None outside a git checkout.

    Installed somewhere below another project's checkout, it does not take that project's revision for its own.
    """
    if _git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return {"revision": None, "dirty": None}
    revision = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain")
    return {"revision": revision, "dirty": None if changes is None else changes != ""}


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def environment() -> dict[str, Any]:
    """Everything about machine, software and command that may matter later; plain JSON values."""
    return {
        "command": shlex.join(["python", "-m", "experiments.run", *words_of_run()]),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu_model(),
        "cpu_count": os.cpu_count(),
        "git": git_state(),
        "packages": versions(PACKAGES),
    }


def words_of_run() -> list[str]:
    """The words of this command; of a sweep's job those of the job, whichever launcher's process it runs in."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        from experiments.plan.multirun import as_written

        return as_written(HydraConfig.get())
    return sys.argv[1:]


def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
