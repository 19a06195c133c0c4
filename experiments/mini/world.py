"""What a picture of the procedural world shows: place, hour, season, style, weather, and the seed of its shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.mini.palettes import SEASONS, SKIES, Palette

KINDS = ("mountains", "peak", "forest", "city", "meadow", "lake", "beach", "desert", "village", "sea")
STYLES = ("photo", "cartoon", "anime")
_AURORA_SKIES = (0, 1, 2, 4)  # of the night: not amber, not crimson


@dataclass(frozen=True)
class Scene:
    """One picture of the procedural world."""

    kind: str  # one of KINDS
    time: str  # a key of SKIES
    palette: int  # which of SKIES[time]
    season: str  # a key of SEASONS
    tones: int  # which of SEASONS[season]
    style: str  # one of STYLES
    sun: float | None  # where the sun (by night the moon) stands, as a share of the width; None: nowhere
    aurora: bool  # northern lights
    clouds: float  # 0 none … 1 covered
    mist: float  # 0 none … 1 thick
    seed: int  # shapes

    @property
    def look(self) -> Palette:
        return SKIES[self.time][self.palette]

    def window_range(self, size: int, width: int) -> tuple[int, int]:
        """First and last left edge, in pixels, of the windows of `size` that show what the scene's words may name.

        A scene with a sun is drawn `width` wide, and a window of it shows the sun.
        """
        last = width - size
        if self.sun is None:
            return 0, last
        centre, margin = self.sun * width, size / 16
        return int(np.clip(centre + margin - size, 0, last)), int(np.clip(centre - margin, 0, last))


def sample_scene(
    rng: np.random.Generator,
    kind: str | None = None,
    time: str | None = None,
    season: str | None = None,
    style: str | None = None,
    mist: float | None = None,
    aurora: bool | None = None,
) -> Scene:
    """A random scene; what is given stays fixed."""

    def choose(names: Sequence[Any]) -> Any:
        return names[int(rng.integers(len(names)))]

    time = time or choose(list(SKIES))
    season = season or choose(list(SEASONS))
    kind = kind or choose(KINDS)
    if aurora is None:
        aurora = time == "night" and kind != "city" and bool(rng.random() < 0.15)
    thick = (0.35, 0.9) if kind == "forest" else (0.1, 0.5)
    return Scene(
        kind=kind,
        time=time,
        palette=choose(_AURORA_SKIES) if aurora else int(rng.integers(len(SKIES[time]))),
        season=season,
        tones=int(rng.integers(len(SEASONS[season]))),
        style=style or str(rng.choice(STYLES, p=(0.6, 0.2, 0.2))),
        sun=float(rng.uniform(0.04, 0.96)) if rng.random() < 0.35 and time != "overcast" and not aurora else None,
        aurora=aurora,
        clouds=0.0 if aurora else float(rng.choice([0.0, rng.uniform(0.2, 0.9)], p=(0.3, 0.7))),
        mist=float(rng.choice([0.0, rng.uniform(*thick)], p=(0.6, 0.4))) if mist is None else mist,
        seed=int(rng.integers(2**31)),
    )
