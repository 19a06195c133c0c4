"""What a run would take, told without loading a model: panoramas, network calls, disk, hours.

Hours come from rates measured before (see `work`). Where there are none they come from counted FLOPs and the rate at
which this device multiplies matrices, and are marked so: a network reaches a part of that rate.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from experiments.common.progress import clock
from experiments.panoramas.store import Unit
from experiments.plan.plan import Plan
from experiments.stages.flops import calls, flops, matrix_rate
from experiments.stages.model import load_libraries, model_facts, unknown_words
from experiments.stages.work import RESULTS, KnownTime, committed, device_here, measured_rate, predict

if TYPE_CHECKING:
    from experiments.panoramas.records import Record
    from experiments.panoramas.store import Picture
    from syncdiffusion.cost import NetworkCalls

BYTES_PER_PIXEL = 1.5  # of a PNG of a photograph, where the run has no panorama yet to be measured
WITHIN = 3  # how many times too long or too short hours from FLOPs may be
Pictures = Mapping["Picture", "Record | None"]  # every picture of a plan once, with its record where it is there
HEADERS = (
    *("method", "to make", "there", "UNet", "UNet backward", "decoder", "decoder backward", "loss", "loss backward"),
    "time",
)


def estimate(plan: Plan) -> str:
    """The dry run of a plan, as text to be printed."""
    from experiments.stages.generate import find_pictures

    load_libraries("dry run")
    found = find_pictures(plan, model_facts(plan.backbone))
    device = device_here(plan.backbone["device"])
    # The plan's own settings: a record tells of a file by its content.
    known = [
        KnownTime(picture.units[0].method, picture.units[0].settings, record["seconds"])
        for picture, record in found.items()
        if record is not None and record["device"] == device
    ]
    known += committed(RESULTS, plan.backbone, device)
    pricing = Pricing(plan.backbone, known, device)
    labels = dict.fromkeys(unit.label for unit in (*plan.units, *plan.references))
    rows = [row(label, of_label(found, label), pricing) for label in labels]
    rows.append(row("in all", found, pricing))
    todo = missing(found)
    words = unknown_words(plan.backbone, plan.prompts)
    return "\n".join(
        [heading(plan), "", table(rows), "", *notes(plan, todo, pricing), *shared_note(found), *filter(None, [words])]
    )


@dataclass(frozen=True)
class Pricing:
    """Hours of panoramas: by the seconds of those known, else by FLOPs.

    backbone: a `backbone` section. known: what was measured with its model. device: what records call the device.
    """

    backbone: Mapping[str, Any]
    known: Sequence[KnownTime]
    device: str

    @cached_property
    def rate(self) -> float:
        """FLOP/s: of the panoramas known, else of products of matrices, measured now."""
        return measured_rate(self.backbone, self.known) or matrix_rate(
            self.backbone["device"], self.backbone["precision"]
        )

    def measured(self, units: Sequence[Unit]) -> bool:
        """Whether all that these need was measured before."""
        return all(predict([unit], self.backbone, self.known) is not None for unit in of_each_label(units))

    def flops(self, units: Sequence[Unit]) -> float | None:
        """Of all of them; None where the model's architecture is not known here."""
        counts, each = Counter(unit.label for unit in units), of_each_label(units)
        found = [flops(unit.method, unit.settings, self.backbone) for unit in each]
        if None in found:
            return None
        return sum(counts[unit.label] * (one or 0.0) for unit, one in zip(each, found, strict=True))

    def seconds(self, units: Sequence[Unit]) -> float | None:
        """For all of them, label by label; None where neither a time nor the FLOPs are known."""
        total = 0.0
        for first in of_each_label(units):
            mine = [unit for unit in units if unit.label == first.label]
            seconds = predict(mine, self.backbone, self.known)
            if seconds is None:
                counted = self.flops(mine)
                seconds = None if counted is None else counted / self.rate
            if seconds is None:
                return None
            total += seconds
        return total

    def told(self, units: Sequence[Unit]) -> str:
        """The seconds in words, with "~" where some of them come from FLOPs."""
        seconds = self.seconds(units)
        return "?" if seconds is None else f"{'' if self.measured(units) else '~'}{clock(seconds)}"


def of_each_label(units: Sequence[Unit]) -> list[Unit]:
    """The first of each label; those of one label have the same settings, and cost the same."""
    return list({unit.label: unit for unit in reversed(units)}.values())


def missing(found: Pictures) -> list[Unit]:
    return [picture.units[0] for picture, record in found.items() if record is None]


def of_label(found: Pictures, label: str) -> Pictures:
    """The pictures that are counted under this label: those of several labels under the first of them."""
    return {picture: record for picture, record in found.items() if picture.label == label}


def row(label: str, found: Pictures, pricing: Pricing) -> list[str]:
    todo = missing(found)
    counts = [f"{value:,.0f}" for value in astuple(total_calls(todo, pricing.backbone))]
    return [label, str(len(todo)), str(len(found) - len(todo)), *counts, pricing.told(todo)]


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


def notes(plan: Plan, todo: Sequence[Unit], pricing: Pricing) -> list[str]:
    each = bytes_per_pixel(plan)
    pixels = sum(unit.settings["height"] * unit.settings["width"] for unit in todo)
    return [
        "Network calls count windows; UNet ones are guided, two passes each.",
        f"Disk: {pixels * (each or BYTES_PER_PIXEL) / 2**20:,.0f} MiB of pictures, at {each or BYTES_PER_PIXEL:.1f} "
        f"bytes per pixel ({'measured' if each else 'as photographs take'}).",
        time_note(plan, todo, pricing),
    ]


def time_note(plan: Plan, todo: Sequence[Unit], pricing: Pricing) -> str:
    """Where the hours come from, and how far they can be trusted."""
    known = f"{len(pricing.known)} panoramas measured here or under results/"
    if pricing.measured(todo):
        return f"Time: of one process on {pricing.device}, from {known}, without loading and scoring."
    where = f"backbone {plan.backbone['name']} at {plan.backbone['precision']} on {pricing.device}"
    total = pricing.flops(todo)
    if total is None:
        return (
            f"Time: no rate known for {where}, and no architecture to count FLOPs of; make one panorama of each method "
            "first (seeds.count=1), then ask again."
        )
    source = f"the rate of {known}" if pricing.known else "at which this device multiplies matrices, measured just now"
    return (
        f"Time: ~ is from FLOPs ({total:.1e} in all), at {pricing.rate:.1e} FLOP/s, {source}; right within a factor of "
        f"about {WITHIN}. For better ones make one panorama of each method first (seeds.count=1), then ask again."
    )


def total_calls(units: Sequence[Unit], backbone: Mapping[str, Any]) -> NetworkCalls:
    from syncdiffusion.cost import NetworkCalls

    return sum((calls(unit.method, unit.settings, backbone) for unit in units), NetworkCalls())


def bytes_per_pixel(plan: Plan) -> float | None:
    """Of the run's own pictures, as far as they are there."""
    sizes = [
        (unit.png(plan.folder).stat().st_size, unit.settings["height"] * unit.settings["width"])
        for unit in plan.units
        if unit.png(plan.folder).is_file()
    ]
    return sum(size for size, _ in sizes) / sum(pixels for _, pixels in sizes) if sizes else None
