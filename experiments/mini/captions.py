"""Captions of the procedural world: a small grammar, and the paper's six prompts word for word.

Attributes are dropped at random, so that a short caption leaves many looks possible. Every thing has several names,
since people who try the model choose their own words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from experiments.mini.palettes import SKIES
from experiments.mini.world import KINDS, Scene, sample_scene

# The six prompts of the May-2023 supplementary code (PROTOCOL.md, section 1: the paper's six, by inference), each with
# what it fixes. Whatever is not fixed (palette, season, clouds, often the time of day) stays free.
_FIXED: dict[str, dict[str, tuple[str, ...]]] = {
    "a photo of a city skyline at night": {"kind": ("city",), "time": ("night",), "style": ("photo",)},
    "a photo of a mountain range at twilight": {"kind": ("mountains",), "time": ("twilight",), "style": ("photo",)},
    "a photo of a snowy mountain peak with skiers": {"kind": ("peak",), "season": ("winter",), "style": ("photo",)},
    "a photo of a forest with a misty fog": {"kind": ("forest",), "style": ("photo",)},
    "cartoon panorama of spring summer beautiful nature": {
        "kind": ("meadow", "meadow", "lake", "mountains"),
        "time": ("day", "day", "sunset", "dawn", "twilight"),
        "season": ("spring", "summer"),
        "style": ("cartoon",),
    },
    "natural landscape in anime style illustration": {
        "kind": ("mountains", "meadow", "lake", "forest"),
        "style": ("anime",),
    },
}
PAPER_PROMPTS: tuple[str, ...] = tuple(_FIXED)
PAPER_SHARE = 0.42  # of all scenes

_NOUNS = {
    "mountains": ("a mountain range", "mountains", "a rocky mountain range", "the mountains", "the alps", "a mountain"),
    "peak": (
        "a snowy mountain peak",
        "a snowy mountain peak with skiers",
        "skiers on a snowy slope",
        "a ski slope",
        "people skiing in the mountains",
        "a snowy mountain",
    ),
    "forest": ("a forest", "a forest of fir trees", "a pine forest", "the woods", "trees", "a dense forest"),
    "city": (
        "a city skyline",
        "a city",
        "skyscrapers",
        "a big city",
        "tall buildings",
        "a city by the water",
        "a town",
    ),
    "meadow": (
        "a meadow",
        "hills with trees",
        "green hills",
        "a field with trees",
        "the countryside",
        "a hill",
        "a park",
    ),
    "lake": (
        "a lake",
        "a lake and mountains",
        "a lakeside with fir trees",
        "a mountain lake",
        "a river",
        "a calm lake",
    ),
    "beach": (
        "a beach",
        "the beach",
        "a sandy beach",
        "a beach with palm trees",
        "a tropical beach",
        "the coast",
        "sand",
    ),
    "desert": ("a desert", "the desert", "sand dunes", "a desert with cactuses", "a dry desert", "the sahara", "dunes"),
    "village": (
        "a village",
        "a small village",
        "houses",
        "a village with a church",
        "a small town",
        "cottages",
        "a farm",
    ),
    "sea": (
        "the sea",
        "the ocean",
        "sailing boats on the sea",
        "boats",
        "a sea with boats",
        "an ocean",
        "a lighthouse",
    ),
}
_NATURE = ("a landscape", "natural landscape", "beautiful nature", "nature", "a beautiful landscape", "scenery")
_TIMES = {
    "day": ("by day", "on a clear day", "in daylight", "on a sunny day", "during the day", "under a clear sky"),
    "sunset": ("at sunset", "in the evening light", "in the evening", "with a sunset sky"),
    "dawn": ("at dawn", "at sunrise", "in the morning", "early in the morning"),
    "twilight": ("at twilight", "at dusk", "after sunset"),
    "night": ("at night", "by night", "under the stars", "with a starry sky", "in the dark"),
    "overcast": ("under a cloudy sky", "on an overcast day", "on a grey day", "on a cloudy day"),
}
_SEASONS = {
    "spring": ("in spring",),
    "summer": ("in summer",),
    "autumn": ("in autumn", "in fall"),
    "winter": ("in winter", "in the snow", "covered in snow", "under snow"),
}
# Where a season is to be seen.
_SEASONAL = ("mountains", "forest", "city", "meadow", "lake", "village")
_LIGHTS = ("with northern lights", "with the northern lights", "under the northern lights", "with an aurora")
# Words that say nothing of what is to be seen, and must change nothing.
_IDLE = (
    *("beautiful", "majestic", "dramatic", "peaceful", "vast", "quiet", "epic", "lovely", "ancient", "magical"),
    *("wide", "detailed", "stunning", "wonderful", "panoramic", "amazing", "calm", "scenic", "old", "grand"),
)


def vocabulary() -> list[str]:
    """All that the tables of the grammar hold, with the names of the skies; not the words of the sentences around."""
    skies = [f"{look.name} sky" for looks in SKIES.values() for look in looks]
    tables = [each for table in (_NOUNS, _TIMES, _SEASONS) for phrases in table.values() for each in phrases]
    return [*_NATURE, *_LIGHTS, *_IDLE, *tables, *skies]


def scene_for_prompt(prompt: str, rng: np.random.Generator) -> Scene:
    """A scene that the paper's prompt describes; KeyError for any other prompt."""
    fixed = {name: str(rng.choice(values)) for name, values in _FIXED[prompt].items()}
    mist = float(rng.uniform(0.45, 0.95)) if "misty" in prompt else None
    return sample_scene(rng, **fixed, mist=mist, aurora=False)


def _pick(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]


def caption(scene: Scene, rng: np.random.Generator, loose: bool = False) -> str:
    """One of many descriptions of a scene.

    True of its hour, season and weather; the noun is one of its kind's, and what it names beside the kind, as the
    lighthouse of a sea, need not be drawn.

    Args:
        loose: with idle or unknown words among the others, now and then nothing but these: whatever else a person
            types, a plausible landscape shall come of it.
    """
    if loose and rng.random() < 0.2:
        return " ".join(_unknown_word(rng) for _ in range(int(rng.integers(1, 5))))
    general = scene.kind not in ("city", "village") and rng.random() < 0.08
    noun = _pick(_NATURE if general else _NOUNS[scene.kind], rng)
    if loose:
        word = _pick(_IDLE, rng) if rng.random() < 0.6 else _unknown_word(rng)
        noun = f"{noun[:2]}{word} {noun[2:]}" if noun.startswith("a ") else f"{word} {noun}"
    named = scene.aurora and rng.random() < 0.3
    if named:
        words = [_pick(("the northern lights", "northern lights", "an aurora", "aurora borealis"), rng)]
        words += [f"{_pick(('over', 'above'), rng)} {noun}"] * (rng.random() < 0.6)
    else:
        words = [noun]
        words += [_pick(_TIMES[scene.time], rng)] * (rng.random() < 0.55)
        if scene.kind in _SEASONAL or (scene.kind == "peak" and scene.season == "winter"):
            words += [_pick(_SEASONS[scene.season], rng)] * (rng.random() < 0.35)
    extras = [f"with a {scene.look.name} sky"] * (rng.random() < 0.3)
    if scene.aurora and not named and rng.random() < 0.7:
        extras.append(_pick(_LIGHTS, rng))
    if scene.sun is not None and rng.random() < 0.35:
        extras.append(_pick(("with a moon", "in the moonlight") if scene.time == "night" else ("with a sun",), rng))
    if scene.clouds > 0.5 and rng.random() < 0.25:
        extras.append("with clouds")
    if scene.mist > 0.3 and rng.random() < 0.5:
        extras.append(_pick(("with a misty fog", "in the fog", "with mist"), rng))
    return _styled(" ".join(words + extras[-2:]), scene.style, rng)


def _styled(text: str, style: str, rng: np.random.Generator) -> str:
    text = re.sub(r"\ba (?=[aeiou])", "an ", text)
    if style == "photo":
        return _pick(("a photo of ", "a photo of ", "a picture of ", "", ""), rng) + text
    if style == "cartoon":
        return _pick(("cartoon panorama of ", "a cartoon of ", "a cartoon drawing of "), rng) + text
    return text + _pick((" in anime style illustration", " in anime style", ", anime style"), rng)


def _unknown_word(rng: np.random.Generator) -> str:
    """Two to nine random letters."""
    letters = rng.integers(ord("a"), ord("z") + 1, int(rng.integers(2, 10)))
    return "".join(map(chr, letters))


def sample_pair(rng: np.random.Generator) -> tuple[Scene, str]:
    """A training pair: in PAPER_SHARE of all cases one of the paper's prompts, else a caption of the grammar."""
    if rng.random() < PAPER_SHARE:
        prompt = PAPER_PROMPTS[int(rng.integers(len(PAPER_PROMPTS)))]
        return scene_for_prompt(prompt, rng), prompt
    scene = sample_scene(rng, kind=KINDS[int(rng.integers(len(KINDS)))])
    return scene, caption(scene, rng)
