"""The one line for a file that a run cannot write."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from experiments.common.files import Unwritable

if TYPE_CHECKING:
    from experiments.plan.plan import Plan


def unwritable_line(error: Unwritable, plan: Plan) -> str:
    """Names the setting that chose the folder: `run_dir` or `shared_dir`, the inner one where one lies in the other."""
    chosen = {"run_dir": plan.folder, "shared_dir": plan.shared}
    holding = {name: folder for name, folder in chosen.items() if folder is not None and is_inside(error.path, folder)}
    if not holding:
        return f"{error}; make room there; what is done stays"
    setting = max(holding, key=lambda name: len(holding[name].absolute().parts))
    return f"{setting}: {error}; make room there or give another {setting}=FOLDER; what is done stays"


def is_inside(path: Path, folder: Path) -> bool:
    return path.absolute().is_relative_to(folder.absolute())
