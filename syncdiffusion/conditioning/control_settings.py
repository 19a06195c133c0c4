"""Which ControlNet goes with which picture, strength and steps. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from syncdiffusion.errors import UsageError

NUMBERS = ("control_scale", "control_start", "control_end")


def paired(given: Mapping[str, list[Any]], unset: Mapping[str, Any]) -> list[tuple[str, str, float, float, float]]:
    """(ControlNet, picture, scale, start, end) of each; one scale, start or end may stand for all.

    Args:
        given: the values of `controlnet`, `control_image` and each of NUMBERS.
        unset: what each is where it was not given.

    Raises:
        UsageError: unequally many, numbers without a ControlNet, no step between start and end.
    """
    for name in ("controlnet", "control_image"):
        if "" in given[name]:
            raise UsageError(f"{name}: is empty; give control_image=FILE and controlnet=FOLDER, or null for none")
    networks, pictures = (
        [each for each in given[name] if each is not None] for name in ("controlnet", "control_image")
    )
    if len(pictures) != len(networks):
        raise UsageError(
            f"control_image, controlnet: {len(pictures)} and {len(networks)} of them; give a controlnet for each "
            "control_image"
        )
    columns: list[list[Any]] = [networks, pictures]
    for name in NUMBERS:
        values = given[name]
        shown = values[0] if len(values) == 1 else values
        if not pictures and values != [unset[name]]:
            raise UsageError(f"{name}={shown}: is of a ControlNet; give control_image and controlnet")
        if pictures and len(values) not in (1, len(pictures)):
            raise UsageError(f"{name}={shown}: give one, or one for each of {len(pictures)} pictures")
        columns.append(values if len(values) == len(pictures) else values * len(pictures))
    found: list[tuple[str, str, float, float, float]] = list(zip(*columns, strict=True))
    for _, _, _, start, end in found:
        if start >= end:
            raise UsageError(f"control_start={start}, control_end={end}: no step lies between them; give start < end")
    return found


def lies_between(index: int, count: int, start: float, end: float) -> bool:
    """Whether step `index` of `count` lies wholly between two shares of the steps: those in which a ControlNet acts."""
    return start <= index / count and (index + 1) / count <= end
