"""What combines with what, as methods declare it by the settings that they have.

    python -m experiments.combinations     # README's table, in Markdown

tests/test_combinations.py runs every cell: one that says yes makes a panorama, one that says no refuses in a line.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from baselines import METHODS
from syncdiffusion.method import Method
from syncdiffusion.method_settings import SAMPLERS
from syncdiffusion.settings import facts_of

NO = "–"
SAMPLER, RING = "each sampler", "ring"
# What a panorama may be made with -> the settings that this takes; of a ring, each method has its own.
AXES: Mapping[str, tuple[str, ...]] = {
    SAMPLER: ("sampler",),
    "start image": ("start_image", "start_strength"),
    "mask": ("start_image", "mask"),
    RING: (),
    "layout": ("layout", "bootstrapping"),
    "control image": ("control_image", "controlnet"),
    "pull toward a picture or words": ("toward", "toward_picture"),
}
RINGS: tuple[Mapping[str, Any], ...] = ({}, {"loop_closure": "full"}, {"ring": True})


def ring_of(method: Method) -> Mapping[str, Any] | None:
    """The settings that close a method's panoramas: none where they always are closed; None where none does."""
    known = facts_of(method.settings)
    return next((each for each in RINGS if each.keys() <= known.keys() and method.closed(each)), None)


def cell(method: Method, axis: str) -> str:
    """What the table says of a method and an axis: yes, `always`, the setting that it takes, or `NO`.

    >>> cell(METHODS["multidiffusion"], "ring"), cell(METHODS["spotdiffusion"], "ring"), cell(METHODS["cdgs"], "mask")
    ('`loop_closure=full`', 'always', '–')
    """
    known = facts_of(method.settings)
    if axis == RING:
        ring = ring_of(method)
        if ring is None:
            return NO
        return " ".join(f"`{name}={str(value).lower()}`" for name, value in ring.items()) or "always"
    if axis == SAMPLER and set(known["sampler"].choices) != set(SAMPLERS):
        return f"`{'`, `'.join(known['sampler'].choices)}` alone"
    return "yes" if all(name in known for name in AXES[axis]) else NO


def table() -> str:
    """A row for each method, by title; a column for each axis."""
    lines = [f"| method | {' | '.join(AXES)} |", f"|---|{'---|' * len(AXES)}"]
    for name, method in sorted(METHODS.items(), key=lambda item: item[1].title.lower()):
        cells = " | ".join(cell(method, axis) for axis in AXES)
        lines.append(f"| {method.title} (`{name}`) | {cells} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
