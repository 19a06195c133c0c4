"""Stage 1: make the panoramas of a plan that are not yet on disk, beside any number of other processes."""

from __future__ import annotations

import datetime
import os
import socket
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.common.environment import RECORDED, git_state, versions
from experiments.common.progress import Progress, Stand, plural, say_step
from experiments.common.resources import measure_cost
from experiments.common.signals import importing
from experiments.panoramas.claims import Claims, Waiting, lost
from experiments.panoramas.index import named_model
from experiments.panoramas.records import Checksums, ModelFacts, Record
from experiments.panoramas.store import (
    Picture,
    Place,
    look,
    pictures_of,
    places_of,
    save_panorama,
    settle,
    unit_key,
)
from experiments.plan.plan import Plan
from syncdiffusion.backbones.model_files import fingerprint
from syncdiffusion.errors import UsageError
from syncdiffusion.files import by_content
from syncdiffusion.settings import facts_of

if TYPE_CHECKING:
    from filelock import SoftFileLease

    from syncdiffusion.backbones.backbone import Backbone

Todo = dict[Picture, tuple[Place, ...]]


@dataclass(frozen=True)
class Job:
    """What all of one run's making shares."""

    plan: Plan
    model: ModelFacts
    checksums: Checksums
    progress: Progress


def generate(plan: Plan, checksums: Checksums | None = None, listener: Callable[[Stand], None] | None = None) -> int:
    """Make what is missing, damaged or made with other settings; returns how many pictures this process made.

    What any run has made already is linked from the shared folder. What another process is making is waited for, and
    made here should that process die. Each panorama is made by a call of its own, so that its bytes do not depend on
    which others were there already. The model is loaded for the first panorama that is made.

    checksums: of files that this process knows already; those of what is found and made here are added.
    listener: is told how far the making is.

    Raises:
        UsageError: a setting that a method refuses, a model that cannot be loaded, a folder that cannot be written.
    """
    checksums = checksums or Checksums()
    model = model_facts(plan.backbone)
    todo: Todo = {}
    absent: set[Picture] = set()
    seconds = defaultdict(list)
    mine = share(plan, model)
    for picture in mine:
        places = places_of(picture, plan.folder, plan.shared, model)
        found = look(places, picture.key, checksums)
        if found is None or found.lacking:
            todo[picture] = places
        if found is None:
            absent.add(picture)
        else:
            seconds[picture.label].append(found.record["seconds"])
    there = len(mine) - len(absent)
    say_step("generate", f"{counted(plan, absent)} to make, {there} there")
    if absent:  # before any claim is held: what is imported ends at once when it is interrupted
        load_libraries("generate")
    known = {label: sum(each) / len(each) for label, each in seconds.items()}
    progress = Progress(
        (picture.label for picture in absent), known, title="generate", noun="pictures", listener=listener
    )
    try:
        return work_off(Job(plan, model, checksums, progress), todo, absent)
    finally:
        progress.close()


def counted(plan: Plan, pictures: Collection[Picture]) -> str:
    """How many of the plan's panoramas and reference images: "40 panoramas and 1 reference image"."""
    panoramas = set(plan.units)
    references = sum(panoramas.isdisjoint(picture.units) for picture in pictures)
    words = plural(len(pictures) - references, "panorama")
    return f"{words} and {plural(references, 'reference image')}" if references else words


def work_off(job: Job, todo: Todo, absent: set[Picture]) -> int:
    """Link or make every picture of `todo`, one claim at a time; returns how many were made here.

    absent: those that were nowhere at the start, which the job's progress counts.
    """
    claims = claims_of(job.plan)
    waiting, studio, count = Waiting(), None, 0
    while todo:
        left: Todo = {}
        for picture, places in todo.items():
            with claims.held(picture.key) as claim:
                if claim is None:
                    left[picture] = places
                elif settle(places, picture.key, job.checksums) is not None:
                    if picture in absent:
                        job.progress.skip(picture.label)
                else:
                    studio = studio or open_studio(job.plan, job.model)
                    if make(job, picture, places, claim, studio):
                        count += 1
                    else:
                        left[picture] = places
        if len(left) == len(todo):
            waiting.once_more(f"{len(left)} panoramas that other processes are making")
        todo = left
    claims.sweep()
    return count


@dataclass(frozen=True)
class Studio:
    """What making a picture takes: the settings objects by label, the loaded model, what every record says alike."""

    settings: Mapping[str, Any]
    backbone: Backbone
    common: Mapping[str, Any]


def open_studio(plan: Plan, model: ModelFacts) -> Studio:
    from syncdiffusion.memory import keep_freed_memory

    settings = typed_settings(plan)  # refuses bad values before the model is loaded
    keep_freed_memory()
    say_step("generate", f"loading the model {model['id']}")
    backbone = open_backbone(plan.backbone)
    if backbone.fingerprint != model["fingerprint"]:
        raise UsageError(f"backbone: the files of {model['id']} have changed since this run began; start it again")
    common = {
        "model": dict(model),
        "device": device_name(backbone),
        "worker": {"host": socket.gethostname(), "process": os.getpid()},
        "versions": versions(RECORDED),
        "git": git_state(),
    }
    return Studio(settings, backbone, common)


def make(job: Job, picture: Picture, places: tuple[Place, ...], claim: SoftFileLease, studio: Studio) -> bool:
    """Make one panorama and write it with its record to all its places; False where the claim was lost meanwhile."""
    import torch

    from baselines import METHODS

    unit = picture.units[0]
    what = f"{unit.label}, seed {unit.seed}, {unit.prompt!r}"

    def on_step(step: Any) -> None:
        job.progress.step(unit.label, (step.index + 1) / step.count, what)

    backbone, settings = studio.backbone, studio.settings[unit.label]
    with naming(unit.label), measure_cost(str(backbone.device)) as cost:
        image = METHODS[unit.method].generate(backbone, [unit.prompt], [unit.seed], settings, on_step)[0]
    pixels = (image * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    if unit_key(unit, job.model) != picture.key:
        raise UsageError(
            f"{unit.label}: a file that its settings name has changed since this run began; start it again"
        )
    if lost(claim):
        return False
    record = {
        "key": picture.key,
        "label": unit.label,
        "method": unit.method,
        "settings": by_content(unit.settings, facts_of(METHODS[unit.method].settings)),
        "prompt": unit.prompt,
        "seed": unit.seed,
        "seconds": round(cost.seconds, 3),
        "peak_memory_bytes": cost.peak_memory_bytes,
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **studio.common,
    }
    save_panorama(job.plan.folder, unit, pixels, record, job.checksums)
    settle(places, picture.key, job.checksums)
    job.progress.finish(unit.label, what, cost.seconds)
    return True


def pictures(plan: Plan, model: ModelFacts) -> tuple[Picture, ...]:
    """Every picture of the plan once, references last."""
    return pictures_of((*plan.units, *plan.references), model)


def share(plan: Plan, model: ModelFacts) -> tuple[Picture, ...]:
    """The pictures that are this process's to make: all, or with a shard i/n every n-th from the i-th on."""
    first, every = plan.shard or (1, 1)
    return pictures(plan, model)[first - 1 :: every]


def find_pictures(plan: Plan, model: ModelFacts) -> dict[Picture, Record | None]:
    """Every picture of the plan once, with its record where the run folder or the shared folder holds it."""
    checksums = Checksums()
    found = {}
    for picture in pictures(plan, model):
        each = look(places_of(picture, plan.folder, plan.shared, model), picture.key, checksums)
        found[picture] = None if each is None else each.record
    return found


def claims_of(plan: Plan) -> Claims:
    """In the shared folder where there is one, so that two runs do not make the same picture at once."""
    return Claims((plan.shared or plan.folder) / "claims")


def load_libraries(stage: str) -> None:
    """Import what takes seconds, where it is not there already, and say so."""
    if "torch" in sys.modules and "diffusers" in sys.modules:
        return
    say_step(stage, "loading libraries")
    with importing():
        import diffusers  # noqa: F401

        import baselines  # noqa: F401
        import syncdiffusion.backbones.loading  # noqa: F401


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

    from syncdiffusion.backbones.loading import load_backbone

    # They report on loading at length; what matters raises. A hub download keeps its own progress bar.
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    chosen = (config[name] for name in ("revision", "device", "precision", "compiled"))
    backbone = load_backbone(source_of(config), *chosen)
    window = backbone.window * backbone.factor
    for name, own in (("window", window), ("factor", backbone.factor)):
        if own != config[name]:
            raise UsageError(f"backbone.{name}={config[name]}: this model's {name} is {own} px; give that")
    return backbone


def model_facts(config: Mapping[str, Any]) -> ModelFacts:
    """What identifies the model of a `backbone` section in a record, told without loading it."""
    named = named_model(config)
    return {
        "name": config["name"],
        "id": named["id"],
        "revision": named["revision"],
        "fingerprint": fingerprint(source_of(config), config["revision"]),
        "precision": named["precision"],
        "compiled": config["compiled"],
    }


def source_of(config: Mapping[str, Any]) -> str:
    """The folder, hub id or "embedded" that a `backbone` section names."""
    return config["model_id"] if config["path"] is None else str(Path(config["path"]).expanduser())


def device_name(backbone: Backbone) -> str:
    if backbone.device.type != "cuda":
        return str(backbone.device)
    import torch

    return torch.cuda.get_device_name(backbone.device)
