"""Stage 1: make the panoramas of a plan that are not yet on disk."""

from __future__ import annotations

import datetime
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.config import Plan
from experiments.cost import measured
from experiments.environment import RECORDED, git_state, versions
from experiments.progress import Progress
from experiments.store import Unit, made, save_panorama, unit_key
from syncdiffusion.errors import UsageError

if TYPE_CHECKING:
    from syncdiffusion.backbone import Backbone


def generate(plan: Plan) -> int:
    """Make what is missing, damaged or made with other settings; returns how many panoramas that were.

    Each panorama is made by a call of its own, so that its bytes do not depend on which others were there already.

    Raises:
        UsageError: a setting that a method refuses, a model that cannot be loaded, a run folder that cannot be written.
    """
    settings = typed_settings(plan)  # refuses bad values before the model is loaded
    backbone = open_backbone(plan.backbone)
    model = model_facts(plan.backbone, backbone)
    todo, seconds = [], defaultdict(list)
    for unit in (*plan.units, *plan.references):
        record = made(plan.folder, unit, unit_key(unit, model))
        if record is None:
            todo.append(unit)
        else:
            seconds[unit.label].append(record["seconds"])
    there = len(plan.units) + len(plan.references) - len(todo)
    print(f"generate: {len(todo)} panoramas and reference images to make, {there} there", file=sys.stderr, flush=True)
    common = {"model": model, "device": device_name(backbone), "versions": versions(RECORDED), "git": git_state()}
    progress = Progress((unit.label for unit in todo), {each: sum(s) / len(s) for each, s in seconds.items()})
    try:
        for unit in todo:
            make(plan.folder, unit, settings[unit.label], backbone, common, progress)
    finally:
        progress.close()
    return len(todo)


def make(
    folder: Path, unit: Unit, settings: Any, backbone: Backbone, common: Mapping[str, Any], progress: Progress
) -> dict[str, Any]:
    """Make one panorama and write it with its record; returns the record."""
    import torch

    from baselines import METHODS

    def on_step(step: Any) -> None:
        progress.step(unit.label, (step.index + 1) / step.count)

    with naming(unit.label), measured(str(backbone.device)) as cost:
        image = METHODS[unit.method].generate(backbone, [unit.prompt], [unit.seed], settings, on_step)[0]
    pixels = (image * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    record = {
        "key": unit_key(unit, common["model"]),
        "label": unit.label,
        "method": unit.method,
        "settings": dict(unit.settings),
        "prompt": unit.prompt,
        "seed": unit.seed,
        "seconds": round(cost.seconds, 3),
        "peak_memory_bytes": cost.peak_memory_bytes,
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **common,
    }
    record = save_panorama(folder, unit, pixels, record)
    progress.finish(unit.label, f"{unit.label}, seed {unit.seed}, {unit.prompt!r}", cost.seconds)
    return record


def typed_settings(plan: Plan) -> dict[str, Any]:
    """Label -> the method's own settings object; UsageError for a value that the method refuses."""
    from baselines import METHODS

    built: dict[str, Any] = {}
    for unit in (*plan.units, *plan.references):
        if unit.label not in built:
            with naming(unit.label):
                built[unit.label] = METHODS[unit.method].settings(**unit.settings)
    return built


@contextmanager
def naming(label: str) -> Iterator[None]:
    """Say which method refuses a setting."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{label}: {error}") from None


def open_backbone(config: Mapping[str, Any]) -> Backbone:
    """Load the model that a `backbone` section names; UsageError where it cannot be, or has another window."""
    import diffusers
    import transformers

    from syncdiffusion.backbone import load_backbone

    # They report on loading at length; what matters raises. A hub download keeps its own progress bar.
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    source = config["model_id"] if config["path"] is None else str(Path(config["path"]).expanduser())
    backbone = load_backbone(source, config["revision"], config["device"], config["precision"])
    window = backbone.window * backbone.factor
    for name, own in (("window", window), ("factor", backbone.factor)):
        if own != config[name]:
            raise UsageError(f"backbone.{name}={config[name]}: this model's {name} is {own} px; give that")
    return backbone


def model_facts(config: Mapping[str, Any], backbone: Backbone) -> dict[str, Any]:
    """What identifies the model in a record."""
    return {
        "name": config["name"],
        "id": config["model_id"] if config["path"] is None else Path(config["path"]).name,
        "revision": config["revision"],
        "fingerprint": backbone.fingerprint,
        "precision": backbone.precision,
    }


def device_name(backbone: Backbone) -> str:
    if backbone.device.type != "cuda":
        return str(backbone.device)
    import torch

    return torch.cuda.get_device_name(backbone.device)
