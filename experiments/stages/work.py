"""What making a panorama takes: seconds by rates that were measured before, or by FLOPs where none is known.

Seconds come from panoramas that the run or the shared folder already holds, and from the results committed under
``results/``, made by the same model at the same precision on the same kind of device.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baselines import METHODS
from experiments.panoramas.store import Unit, deciding, unit_key
from experiments.stages.flops import calls, flops
from syncdiffusion.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

    from experiments.plan.plan import Plan
    from experiments.results.study import Study

RESULTS = Path(__file__).parents[2] / "results"


@dataclass(frozen=True)
class KnownTime:
    """Seconds that one panorama of a method and its settings took."""

    method: str
    settings: Mapping[str, Any]
    seconds: float


def predict(units: Sequence[Unit], backbone: Mapping[str, Any], known: Sequence[KnownTime]) -> float | None:
    """Seconds for all of `units`; None where what they need was never measured.

    Settings that were measured cost their mean. Others are reckoned from the rates of a plain window and of a pulled
    one, the non-negative least squares fit over all panoramas known; what a pull costs depends on its loss.
    """
    import numpy as np
    from scipy.optimize import nnls

    groups: dict[tuple, list[float]] = {}
    amounts: dict[tuple, dict[str, float]] = {}
    for each in known:
        key = settings_key(each.method, each.settings)
        groups.setdefault(key, []).append(each.seconds)
        amounts[key] = amounts.get(key) or work(each, backbone)
    kinds = list(dict.fromkeys(kind for amount in amounts.values() for kind in amount))
    matrix = np.array([[amounts[key].get(kind, 0.0) for kind in kinds] for key in groups for _ in groups[key]])
    seconds = np.array([each for its in groups.values() for each in its])
    rates = dict(zip(kinds, nnls(matrix, seconds)[0], strict=True)) if kinds else {}
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
    return _settings_key(method, tuple((name, tuple(v) if isinstance(v, list) else v) for name, v in settings.items()))


@functools.lru_cache(maxsize=None, typed=True)
def _settings_key(method: str, settings: tuple[tuple[str, Any], ...]) -> tuple:
    """Once for all of thousands of panoramas that were made with the same."""
    return method, *sorted(deciding(method, dict(settings)).items())


def measured_rate(backbone: Mapping[str, Any], known: Sequence[KnownTime]) -> float | None:
    """FLOP/s at which the known panoramas were made; None where there are none, or their FLOPs cannot be told."""
    counted = [flops(each.method, each.settings, backbone) for each in known]
    seconds = sum(each.seconds for each in known)
    if not seconds or None in counted:
        return None
    return sum(filter(None, counted)) / seconds


def expected_work(plan: Plan) -> dict[str, float]:
    """Label -> how much work one picture of it is, in a unit that is the same for all: to tell one's time by another's.

    As measured before, by the same model on the same kind of device, for all labels; else in FLOPs. Empty where neither
    is known.
    """
    every = {unit.label: unit for unit in (*plan.units, *plan.references)}
    try:
        earlier = committed(RESULTS, plan.backbone, device_here(plan.backbone["device"]))
    except (UsageError, OSError, KeyError, ValueError):  # results that cannot be read: no reason to stop a run
        earlier = []
    for reckon in (
        lambda unit: predict([unit], plan.backbone, earlier) if earlier else None,
        lambda unit: flops(unit.method, unit.settings, plan.backbone),
    ):
        found = {label: reckon(unit) for label, unit in every.items()}
        if None not in found.values():
            return {label: amount for label, amount in found.items() if amount is not None}
    return {}


def committed(results: Path, backbone: Mapping[str, Any], device: str) -> list[KnownTime]:
    """What the folders under `results` that hold a study.json measured with this model on this kind of device."""
    import pandas as pd

    from experiments.results.study import read_study
    from experiments.stages.model import model_facts

    found: list[KnownTime] = []
    for path in sorted(results.rglob("study.json")):
        study = read_study(path.parent)
        if (study.model["name"], study.model["precision"]) != (backbone["name"], backbone["precision"]):
            continue
        panoramas = pd.read_csv(path.parent / "panoramas.csv", dtype={"method": str, "prompt": str})
        fingerprint = model_facts(backbone)["fingerprint"]
        try:
            if not made_by(study, panoramas, fingerprint):
                continue
        except UsageError:  # made with a layout or a picture, of which a study keeps the name alone
            continue
        for label, mine in panoramas[panoramas["device"] == device].groupby("method"):
            entry = study.row(str(label))
            if entry.method not in METHODS:  # of a plugin that is not there
                continue
            found += [KnownTime(entry.method, entry.settings, seconds) for seconds in mine["seconds"]]
    return found


def made_by(study: Study, panoramas: pd.DataFrame, fingerprint: str) -> bool:
    """Whether the panoramas are of the model with this fingerprint, as the first one's key has it.

    A miniature that was trained anew has the name of the one before it, and may be larger.
    """
    if panoramas.empty or "key" not in panoramas:
        return not panoramas.empty
    first = panoramas.iloc[0]
    row = study.row(first["method"])
    unit = Unit(row.label, row.method, row.settings, first["prompt"], int(first["seed"]))
    model = {"fingerprint": fingerprint, "precision": study.model["precision"]}
    return unit_key(unit, model) == first["key"]


def device_here(setting: str) -> str:
    """The name that records give the device which `backbone.device` would choose."""
    import torch

    if setting.startswith("cpu") or not torch.cuda.is_available():
        return "cpu"
    return torch.cuda.get_device_name(None if setting == "auto" else setting)
