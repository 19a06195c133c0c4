"""What a run would take, told without loading a model: panoramas, network calls, disk, hours.

Hours come from rates measured before: of panoramas that this run or the shared folder already hold, and of the results
committed under ``results/``, made by the same model at the same precision on the same kind of device. Where there are
none, no hours are told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.common.progress import clock
from experiments.panoramas.store import Unit, deciding
from experiments.plan.plan import Plan

if TYPE_CHECKING:
    from experiments.panoramas.records import Record
    from experiments.panoramas.store import Picture
    from syncdiffusion.cost import NetworkCalls

RESULTS = Path(__file__).parents[2] / "results"
BYTES_PER_PIXEL = 1.5  # of a PNG of a photograph, where the run has no panorama yet to be measured
Pictures = Mapping["Picture", "Record | None"]  # every picture of a plan once, with its record where it is there
HEADERS = (
    *("method", "to make", "there", "UNet", "UNet backward", "decoder", "decoder backward", "loss", "loss backward"),
    "time",
)


@dataclass(frozen=True)
class KnownTime:
    """Seconds that one panorama of a method and its settings took."""

    method: str
    settings: Mapping[str, Any]
    seconds: float


def estimate(plan: Plan) -> str:
    """The dry run of a plan, as text to be printed.

    Raises:
        UsageError: a setting that a method refuses.
    """
    from experiments.stages.generate import find_pictures, load_libraries, model_facts, typed_settings

    load_libraries("dry run")
    typed_settings(plan)  # refuses bad values
    found = find_pictures(plan, model_facts(plan.backbone))
    device = device_here(plan.backbone["device"])
    # The plan's own settings: a record tells of a file by its content.
    known = [
        KnownTime(picture.units[0].method, picture.units[0].settings, record["seconds"])
        for picture, record in found.items()
        if record is not None
    ]
    known += committed(RESULTS, plan.backbone, device)
    labels = dict.fromkeys(unit.label for unit in (*plan.units, *plan.references))
    rows = [row(label, of_label(found, label), plan.backbone, known) for label in labels]
    rows.append(row("in all", found, plan.backbone, known))
    todo = [picture.units[0] for picture, record in found.items() if record is None]
    return "\n".join([heading(plan), "", table(rows), "", *notes(plan, todo, known, device), *shared_note(found)])


def of_label(found: Pictures, label: str) -> Pictures:
    """The pictures that are counted under this label: those of several labels under the first of them."""
    return {picture: record for picture, record in found.items() if picture.label == label}


def row(label: str, found: Pictures, backbone: Mapping[str, Any], known: Sequence[KnownTime]) -> list[str]:
    missing = [picture.units[0] for picture, record in found.items() if record is None]
    counts = [f"{value:,.0f}" for value in astuple(total_calls(missing, backbone))]
    seconds = predict(missing, backbone, known)
    return [
        label,
        str(len(missing)),
        str(len(found) - len(missing)),
        *counts,
        "?" if seconds is None else clock(seconds),
    ]


def shared_note(found: Pictures) -> list[str]:
    """A line where labels share pictures: how many of which label are counted under another."""
    counts = Counter((unit.label, picture.label) for picture in found for unit in picture.units[1:])
    if not counts:
        return []
    told = ", ".join(f"{count} of {label} (under {first})" for (label, first), count in counts.items())
    return [f"Made once and counted once, where settings come to the same: {told}."]


def heading(plan: Plan) -> str:
    share = "" if plan.shard is None else f", before it is parted into {plan.shard[1]} shards"
    return f"dry run of {plan.name} in {plan.folder}: nothing is made{share}"


def table(rows: Sequence[Sequence[str]]) -> str:
    from tabulate import tabulate

    return tabulate(rows, HEADERS, "github", disable_numparse=True, colalign=("left", *["right"] * (len(HEADERS) - 1)))


def notes(plan: Plan, todo: Sequence[Unit], known: Sequence[KnownTime], device: str) -> list[str]:
    each = bytes_per_pixel(plan)
    pixels = sum(unit.settings["height"] * unit.settings["width"] for unit in todo)
    lines = [
        "Network calls count windows; UNet ones are guided, two passes each.",
        f"Disk: {pixels * (each or BYTES_PER_PIXEL) / 2**20:,.0f} MiB of pictures, at {each or BYTES_PER_PIXEL:.1f} "
        f"bytes per pixel ({'measured' if each else 'as photographs take'}).",
    ]
    if predict(todo, plan.backbone, known) is None:
        lines.append(
            f"Time: no rate known for backbone {plan.backbone['name']} at {plan.backbone['precision']} on {device}; "
            "make one panorama of each method first (seeds.count=1), then ask again."
        )
    else:
        lines.append(
            f"Time: of one process on {device}, from {len(known)} panoramas measured here or under results/, without "
            "loading and scoring."
        )
    return lines


def total_calls(units: Sequence[Unit], backbone: Mapping[str, Any]) -> NetworkCalls:
    from syncdiffusion.cost import NetworkCalls

    return sum((calls(unit.method, unit.settings, backbone) for unit in units), NetworkCalls())


def calls(method: str, settings: Mapping[str, Any], backbone: Mapping[str, Any]) -> NetworkCalls:
    """Network calls of one panorama."""
    from baselines import METHODS
    from syncdiffusion.cost import Square

    square = Square(backbone["window"] // backbone["factor"], backbone["factor"])
    return METHODS[method].network_calls(METHODS[method].settings(**settings), square)


def predict(units: Sequence[Unit], backbone: Mapping[str, Any], known: Sequence[KnownTime]) -> float | None:
    """Seconds for all of `units`; None where what they need was never measured.

    Settings that were measured cost their mean. Others are reckoned from the rates of a plain window and of a pulled
    one, the non-negative least squares fit over all panoramas known; what a pull costs depends on its loss.
    """
    import numpy as np
    from scipy.optimize import nnls

    groups: dict[tuple, list[float]] = {}
    for each in known:
        groups.setdefault(settings_key(each.method, each.settings), []).append(each.seconds)
    kinds = [kind for kind in dict.fromkeys(kind for each in known for kind in work(each, backbone))]
    matrix = np.array([[work(each, backbone).get(kind, 0.0) for kind in kinds] for each in known])
    rates = dict(zip(kinds, nnls(matrix, np.array([m.seconds for m in known]))[0], strict=True)) if kinds else {}
    total = 0.0
    for unit in units:
        before = groups.get(settings_key(unit.method, unit.settings))
        needed = work(unit, backbone)
        if before:
            total += sum(before) / len(before)
        elif needed.keys() <= rates.keys():
            total += sum(rates[kind] * amount for kind, amount in needed.items())
        else:
            return None
    return total


def work(each: Unit | KnownTime, backbone: Mapping[str, Any]) -> dict[str, float]:
    """Kind of work -> how many windows: plain denoising, and pulls through each loss."""
    counts = calls(each.method, each.settings, backbone)
    kinds = {"plain": counts.unet - counts.unet_backward}
    if counts.loss_backward:
        kinds[each.settings["loss"]] = counts.loss_backward
    return kinds


def settings_key(method: str, settings: Mapping[str, Any]) -> tuple:
    told = deciding(method, settings)
    return method, *sorted((name, tuple(each) if isinstance(each, list) else each) for name, each in told.items())


def bytes_per_pixel(plan: Plan) -> float | None:
    """Of the run's own pictures, as far as they are there."""
    sizes = [
        (unit.png(plan.folder).stat().st_size, unit.settings["height"] * unit.settings["width"])
        for unit in plan.units
        if unit.png(plan.folder).is_file()
    ]
    return sum(size for size, _ in sizes) / sum(pixels for _, pixels in sizes) if sizes else None


def committed(results: Path, backbone: Mapping[str, Any], device: str) -> list[KnownTime]:
    """What the folders under `results` that hold a study.json measured with this model on this kind of device."""
    import pandas as pd

    from experiments.results.study import read_study

    found = []
    for path in sorted(results.rglob("study.json")):
        study = read_study(path.parent)
        if (study.model["name"], study.model["precision"]) != (backbone["name"], backbone["precision"]):
            continue
        panoramas = pd.read_csv(path.parent / "panoramas.csv")
        for label, mine in panoramas[panoramas["device"] == device].groupby("method"):
            entry = study.row(str(label))
            found += [KnownTime(entry.method, entry.settings, seconds) for seconds in mine["seconds"]]
    return found


def device_here(setting: str) -> str:
    """The name that records give the device which `backbone.device` would choose."""
    import torch

    if setting.startswith("cpu") or not torch.cuda.is_available():
        return "cpu"
    return torch.cuda.get_device_name(None if setting == "auto" else setting)
