"""Stage 1: make the panoramas of a plan that are not yet on disk, beside any number of other processes."""

from __future__ import annotations

import datetime
import functools
import os
import socket
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from experiments.common.environment import RECORDED, git_state, versions
from experiments.common.progress import Progress, Stand, plural, say_step
from experiments.common.resources import Cost, measure_cost
from experiments.panoramas.claims import Claims, Waiting, lost
from experiments.panoramas.groups import Group, groups_of, told
from experiments.panoramas.index import other_precision
from experiments.panoramas.latents import Latents, keep_latents, kept_latents
from experiments.panoramas.records import Checksums, ModelFacts, Record
from experiments.panoramas.store import (
    Picture,
    Place,
    latents_of,
    look,
    pictures_of,
    places_of,
    save_panorama,
    settle,
    unit_key,
)
from experiments.plan.plan import Plan
from experiments.stages.model import device_name, load_libraries, model_facts, open_backbone, unknown_words
from experiments.stages.work import device_here, expected_work
from syncdiffusion.errors import UsageError
from syncdiffusion.files import by_content
from syncdiffusion.settings import AUTO, facts_of
from syncdiffusion.signals import raise_lost

if TYPE_CHECKING:
    from filelock import SoftFileLease
    from torch import Tensor

    from syncdiffusion.backbones.backbone import Backbone


@dataclass(frozen=True)
class Job:
    """What all of one run's making shares.

    places: of every picture of this process's groups.
    absent: those that were nowhere at the start and have not been made since, which the progress counts.
    """

    plan: Plan
    model: ModelFacts
    checksums: Checksums
    progress: Progress
    places: Mapping[Picture, tuple[Place, ...]]
    absent: set[Picture]


def generate(plan: Plan, checksums: Checksums | None = None, listener: Callable[[Stand], None] | None = None) -> int:
    """Make what is missing, damaged or made with other settings; returns how many pictures this process made.

    What any run has made already is linked from the shared folder. What another process is making is waited for, and
    made here should that process die. What goes through the networks together follows from the plan alone, and a group
    of which one is missing is made anew as a whole, so that no panorama's bytes depend on which others were there
    already. The model is loaded for the first panorama that is made.

    checksums: of files that this process knows already; those of what is found and made here are added.
    listener: is told how far the making is.

    Raises:
        UsageError: a setting that a method refuses, a model that cannot be loaded, a folder that cannot be written.
    """
    checksums = checksums or Checksums()
    model = model_facts(plan.backbone)
    groups = share(plan, model)
    places = {picture: places_in(plan, picture, model) for group in groups for picture in group}
    found = {picture: look(each, picture.key, checksums) for picture, each in places.items()}
    absent = {picture for picture, each in found.items() if each is None}
    if absent:
        check_precision(plan)
    for line in plan.remarks:
        say_step("generate", line)
    say_step("generate", f"{counted(plan, absent)} to make, {len(found) - len(absent)} there")
    if absent:  # before any claim is held: what is imported ends at once when it is interrupted
        load_libraries("generate")
        tell_unknown_words(plan)
    seconds = defaultdict(list)
    here = device_here(plan.backbone["device"]) if absent else ""
    for picture, each in found.items():
        if each is not None and each.record["device"] == here:
            seconds[picture.label].append(each.record["seconds"])
    known = {label: sum(each) / len(each) for label, each in seconds.items()}
    work = functools.partial(expected_work, plan)
    labels = (picture.label for picture in absent)
    progress = Progress(labels, known, work=work, title="generate", noun="pictures", listener=listener)
    todo = [group for group in groups if any((each := found[picture]) is None or each.lacking for picture in group)]
    try:
        return work_off(Job(plan, model, checksums, progress, places, absent), todo)
    finally:
        progress.close()


def check_precision(plan: Plan) -> None:
    """Refuse to make in another precision what the run folder holds, where none was asked for.

    Of a run's processes one may find no GPU: what `auto` means there is another run's pictures.
    """
    other = other_precision(plan)
    if plan.resolved["backbone"]["precision"] == AUTO and other is not None:
        here = plan.backbone["precision"]
        raise UsageError(
            f"backbone.precision=auto: {here} here, and the panoramas in {plan.folder} were made in {other}; "
            f"give backbone.precision={other}, or {here} to make them anew"
        )


def counted(plan: Plan, pictures: Collection[Picture]) -> str:
    """How many of the plan's panoramas and reference images: "40 panoramas and 1 reference image"."""
    panoramas = set(plan.units)
    references = sum(panoramas.isdisjoint(picture.units) for picture in pictures)
    words = plural(len(pictures) - references, "panorama")
    return f"{words} and {plural(references, 'reference image')}" if references else words


def work_off(job: Job, todo: Sequence[Group]) -> int:
    """Link or make every picture of `todo`, the claims of one group at a time; returns how many were made here."""
    claims = claims_of(job.plan)
    waiting, studio, count = Waiting(), None, 0
    while todo:
        left: list[Group] = []
        for group in todo:
            with ExitStack() as stack:
                held = claim_all(group, claims, stack)
                if held is None:
                    left.append(group)
                    continue
                missing = {picture: claim for picture, claim in held.items() if not settled(job, picture)}
                if missing:
                    studio = studio or open_studio(job.plan, job.model)
                    made = make(job, group, missing, studio)
                    count += made
                    # Now, not after everything else: else the time left would count what others have made.
                    left = [other for other in left if not made_elsewhere(job, other, claims)]
                    if made < len(missing):
                        left.append(group)
        if len(left) == len(todo):
            number = sum(map(len, left))
            waiting.once_more(f"{number} panoramas that other processes are making")
        todo = left
    claims.sweep()
    return count


def made_elsewhere(job: Job, group: Group, claims: Claims) -> bool:
    """Whether another process has made all of a group that it was busy with, and let go of it."""
    with ExitStack() as stack:
        held = claim_all(group, claims, stack)
        return held is not None and all([settled(job, picture) for picture in held])


def claim_all(group: Group, claims: Claims, stack: ExitStack) -> dict[Picture, SoftFileLease] | None:
    """The claims of all pictures of a group, held until `stack` ends; None where another process holds one of them.

    All of them, since another run may have parted the same pictures into other groups. Nothing waits while it holds a
    claim, so that no two processes can wait for each other.
    """
    held = {}
    for picture in group:
        claim = stack.enter_context(claims.held(picture.key))
        if claim is None:
            stack.close()
            return None
        held[picture] = claim
    return held


def settled(job: Job, picture: Picture) -> bool:
    """Whether the picture is somewhere, and now in all its places."""
    if settle(job.places[picture], picture.key, job.checksums) is None:
        return False
    if picture in job.absent:  # another process has made it
        job.absent.discard(picture)
        job.progress.skip(picture.label)
    return True


@dataclass(frozen=True)
class Studio:
    """What making a picture takes: the loaded model, and what every record says alike."""

    backbone: Backbone
    common: Mapping[str, Any]


def open_studio(plan: Plan, model: ModelFacts) -> Studio:
    from syncdiffusion.memory import keep_freed_memory

    keep_freed_memory()
    device = device_here(plan.backbone["device"])
    say_step("generate", f"loading the model {model['id']}, in {model['precision']} on {device}")
    backbone = open_backbone(plan.backbone)
    if backbone.fingerprint != model["fingerprint"]:
        raise UsageError(f"backbone: the files of {model['id']} have changed since this run began; start it again")
    common = {
        "model": dict(model),
        "device": device_name(backbone),
        "execution": backbone.execution,
        "worker": {"host": socket.gethostname(), "process": os.getpid()},
        "versions": versions(RECORDED),
        "git": git_state(),
    }
    return Studio(backbone, common)


def make(job: Job, group: Group, missing: Mapping[Picture, SoftFileLease], studio: Studio) -> int:
    """Make all panoramas of a group together, and write those that are missing, with their records, to their places.

    missing: them with their claims; one whose claim was lost meanwhile is not written.

    Returns:
        how many were written.
    """
    import torch

    from baselines import METHODS

    images, cost = develop(job, group, len(missing), studio)
    written = 0
    for picture, image in zip(group, images, strict=True):
        if picture not in missing or lost(missing[picture]):
            continue
        unit = picture.units[0]
        if unit_key(unit, job.model) != picture.key:
            raise UsageError(
                f"{unit.label}: a file that its settings name has changed since this run began; start it again"
            )
        record = {
            "key": picture.key,
            "label": unit.label,
            "method": unit.method,
            "settings": by_content(unit.settings, facts_of(METHODS[unit.method].settings)),
            "prompt": unit.prompt,
            "seed": unit.seed,
            **({"prompt_id": job.plan.prompt_ids[unit.prompt]} if unit.prompt in job.plan.prompt_ids else {}),
            "seconds": round(cost.seconds / len(group), 3),
            "peak_memory_bytes": cost.peak_memory_bytes,
            "panoramas_at_once": len(group),
            "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            **studio.common,
        }
        pixels = (image * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
        save_panorama(job.plan.folder, unit, pixels, record, job.checksums)
        settle(job.places[picture], picture.key, job.checksums)
        job.absent.discard(picture)
        written += 1
    job.progress.finish(group[0].label, told(group), cost.seconds * written / len(group), written)
    return written


def develop(job: Job, group: Group, counted: int, studio: Studio) -> tuple[Tensor, Cost]:
    """The images of a group [n, 3, h, w] in [0, 1], and what they cost together; `counted` of them are to be made.

    Their latents are kept beside the first one until it is whole: should the decoder run out of memory, or the system
    end this process for that, the next run goes on from them.

    Raises:
        UsageError: they do not fit into memory together, or the method refuses them.
    """
    from baselines import METHODS
    from syncdiffusion.memory import unless_out_of_memory

    label, units = group[0].label, [picture.units[0] for picture in group]
    prompts, seeds = [unit.prompt for unit in units], [unit.seed for unit in units]
    method, settings = METHODS[units[0].method], job.plan.settings[label]

    def on_step(step: Any) -> None:
        raise_lost()
        job.progress.step(label, (step.index + 1) / step.count, told(group), counted)

    backbone, kept = studio.backbone, latents_of(units[0].png(job.plan.folder))
    key = "+".join(picture.key for picture in group)

    def sample() -> Tensor:
        return method.sample_latents(backbone, prompts, seeds, settings, on_step)

    sampled = kept_latents(kept, key)
    with naming(label):
        if sampled is None:
            with measure_cost(str(backbone.device)) as cost:
                latents = unless_out_of_memory(sample, ())
            if latents is None:
                size = job.plan.panoramas_at_once
                advice = "give panoramas_at_once=1" if size > 1 else "use a smaller canvas or a lower precision"
                raise UsageError(f"panoramas_at_once={size}: {told(group)}: out of memory; {advice}")
            sampled = Latents(latents, cost)
            keep_latents(kept, key, sampled)
        try:
            with measure_cost(str(backbone.device)) as cost:
                images = method.decode(backbone, sampled.latents.to(backbone.device), settings)
        except UsageError as error:
            raise UsageError(f"{error}; the latents are kept in {kept}, and the next run goes on from them") from None
    return images, sampled.cost.and_then(cost)


def places_in(plan: Plan, picture: Picture, model: ModelFacts) -> tuple[Place, ...]:
    return places_of(picture, plan.folder, plan.shared, model, plan.prompt_ids)


def pictures(plan: Plan, model: ModelFacts) -> tuple[Picture, ...]:
    """Every picture of the plan once, references last."""
    return pictures_of((*plan.units, *plan.references), model)


def share(plan: Plan, model: ModelFacts) -> tuple[Group, ...]:
    """The groups that are this process's to make: all, or with a shard i/n every n-th from the i-th on."""
    first, every = plan.shard or (1, 1)
    return groups_of(pictures(plan, model), plan.panoramas_at_once)[first - 1 :: every]


def tell_unknown_words(plan: Plan) -> None:
    """Say once which words of the prompts the model has never seen, where it tells which it has."""
    line = unknown_words(plan.backbone, plan.prompts)
    if line is not None:
        say_step("generate", line)


def find_pictures(plan: Plan, model: ModelFacts) -> dict[Picture, Record | None]:
    """Every picture of the plan once, with its record where the run folder or the shared folder holds it."""
    checksums = Checksums()
    found = {}
    for picture in pictures(plan, model):
        each = look(places_in(plan, picture, model), picture.key, checksums)
        found[picture] = None if each is None else each.record
    return found


def claims_of(plan: Plan) -> Claims:
    """In the shared folder where there is one, so that two runs do not make the same picture at once."""
    return Claims((plan.shared or plan.folder) / "claims")


@contextmanager
def naming(label: str) -> Iterator[None]:
    """Say which method refuses a setting."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{label}: {error}") from None
