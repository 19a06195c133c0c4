"""In place of stage 1: take pictures that were made elsewhere into the run folder, as they are, each with a record."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.common.files import png_bytes, write_json, write_whole
from experiments.common.progress import plural, report_images, say_step
from experiments.metrics.crops import decode_image
from experiments.panoramas.records import Checksums, Record, read_whole
from experiments.panoramas.store import Unit, unit_key
from experiments.plan.plan import Plan
from syncdiffusion.errors import UsageError


def take(plan: Plan, checksums: Checksums) -> int:
    """Copy what the run folder does not hold yet; returns how many pictures were taken.

    The source is only read. An 8-bit RGB PNG is copied to the byte, and another kind of picture becomes one. A picture
    that cannot be read is told in a line and left out.

    Raises:
        UsageError: the run folder holds another picture in a place, which is never overwritten; or none can be read.
        Unwritable: the run folder.
    """
    for line in plan.remarks:
        say_step("pictures", line)
    model = {name: plan.backbone[name] for name in ("name", "precision", "compiled", "revision")}
    model |= {"id": plan.backbone["model_id"], "fingerprint": ""}
    done, taken, there = report_images("pictures"), 0, 0
    for number, (unit, source) in enumerate(plan.sources.items(), start=1):
        png, key = unit.png(plan.folder), unit_key(unit, model)
        record = read_whole(png, checksums)
        if record is not None and record["key"] != key:
            raise UsageError(
                f"run_dir={plan.folder}: {png} is another picture than {source}, and is kept; give another run_dir"
            )
        if record is None:
            taken += take_one(plan, unit, source, model, checksums)
        else:
            there += 1
        done(number, len(plan.sources))
    if not taken + there:
        raise UsageError(f"pictures={plan.resolved['pictures']}: none of {len(plan.sources)} pictures can be read")
    say_step("pictures", f"{plural(taken, 'picture')} taken, {there} there")
    return taken


def take_one(plan: Plan, unit: Unit, source: Path, model: Mapping[str, Any], checksums: Checksums) -> bool:
    """Whether the picture could be read; it is then in the run folder."""
    try:
        data = source.read_bytes()
        pixels = decode_image(data, source)
    except (OSError, UsageError) as error:
        reason = getattr(error, "strerror", None) or "damaged, or no picture"
        say_step("pictures", f"{source}: cannot be read ({reason}); it is left out")
        return False
    if hashlib.sha256(data).hexdigest() != unit.settings["sha256"]:
        raise UsageError(f"{source}: was changed while it was read; give the same command again")
    png = data if is_plain_png(data) else png_bytes(pixels)
    path = unit.png(plan.folder)
    write_whole(path, png)
    digest = hashlib.sha256(png).hexdigest()
    checksums.written(path, digest)
    write_json(unit.json(plan.folder), record_of(unit, source, model) | size_of(pixels) | {"png_sha256": digest})
    return True


def record_of(unit: Unit, source: Path, model: Mapping[str, Any]) -> dict[str, Any]:
    """What is known: of a panorama of this repository, with its record beside it, also what its making took."""
    its: Record | None = read_whole(source) if source.suffix == ".png" else None
    return {
        "key": unit_key(unit, model),
        "label": unit.label,
        "method": unit.method,
        "settings": dict(unit.settings),
        "prompt": unit.prompt,
        "seed": unit.seed,
        "seconds": its["seconds"] if its else None,
        "peak_memory_bytes": its["peak_memory_bytes"] if its else None,
        "device": its["device"] if its else "",
        "model": dict(model),
        "imported": {"file": source.name, "record": dict(its) if its else None},
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def size_of(pixels: np.ndarray) -> dict[str, int]:
    return {"width": pixels.shape[1], "height": pixels.shape[0]}


def is_plain_png(data: bytes) -> bool:
    """Whether the bytes are a PNG of 8 bits a channel, red, green and blue, and nothing else."""
    depth, kind = (data[24], data[25]) if len(data) > 25 else (0, 0)
    return data.startswith(b"\x89PNG\r\n\x1a\n") and (depth, kind) == (8, 2)


def told(plan: Plan) -> str:
    """The dry run of such a plan, as text to be printed."""
    lines = [f"dry run of {plan.name} in {plan.folder}: nothing is taken or scored"]
    for label in plan.labels:
        units = [unit for unit in plan.units if unit.label == label]
        prompts = len({unit.prompt for unit in units})
        lines.append(f"  {label}: {plural(len(units), 'picture')} of {plural(prompts, 'prompt')}")
    lines.append(f"  reference: {plural(len(plan.references), 'picture')}")
    noise = "shared by the methods: compared pair by pair" if plan.shared_noise else "each method's own: not paired"
    return "\n".join([*lines, f"  noise: {noise}", f"  metrics: {', '.join(plan.metrics['metrics'])}", *plan.remarks])
