"""Groups: pictures that go through the networks together. Nothing here looks at what is on the disk."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from experiments.panoramas.store import Picture

Group = tuple[Picture, ...]  # of one label


def groups_of(pictures: Sequence[Picture], size: int) -> tuple[Group, ...]:
    """Pictures of one label in groups of `size`, the last of a label may be smaller; in the order of their first ones.

    What is on the disk has no part in it: rounding depends on what shares a batch, and gradient steps amplify it.
    """
    of_label: dict[str, list[Picture]] = defaultdict(list)
    for picture in pictures:
        of_label[picture.label].append(picture)
    groups = [tuple(each[i : i + size]) for each in of_label.values() for i in range(0, len(each), size)]
    place = {picture: index for index, picture in enumerate(pictures)}
    return tuple(sorted(groups, key=lambda group: place[group[0]]))


def told(group: Group) -> str:
    """A group in words."""
    unit = group[0].units[0]
    more = f" and {len(group) - 1} more" if len(group) > 1 else ""
    return f"{unit.label}, seed {unit.seed}, {unit.prompt!r}{more}"
