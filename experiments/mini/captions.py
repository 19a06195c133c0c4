"""Captions of the procedural world: a small grammar, and the paper's six prompts word for word.

Attributes are dropped at random, so that a short caption leaves many looks possible.
"""

import numpy as np

from experiments.mini.scenes import KINDS, Scene, sample_scene

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

_NOUNS = {
    "mountains": ("a mountain range", "mountains", "a rocky mountain range"),
    "peak": ("a snowy mountain peak", "a snowy mountain peak with skiers", "skiers on a snowy slope"),
    "forest": ("a forest", "a forest of fir trees", "a pine forest"),
    "city": ("a city skyline", "a city", "skyscrapers"),
    "meadow": ("a meadow", "hills with trees", "beautiful nature", "natural landscape"),
    "lake": ("a lake", "a lake and mountains", "a lakeside with fir trees"),
}
_TIMES = {
    "day": ("by day", "on a clear day", "in daylight"),
    "sunset": ("at sunset", "in the evening light"),
    "dawn": ("at dawn", "at sunrise"),
    "twilight": ("at twilight", "at dusk"),
    "night": ("at night", "by night"),
    "overcast": ("under a cloudy sky", "on an overcast day"),
}


def scene_for_prompt(prompt: str, rng: np.random.Generator) -> Scene:
    """A scene that the paper's prompt describes; KeyError for any other prompt."""
    fixed = {name: str(rng.choice(values)) for name, values in _FIXED[prompt].items()}
    mist = float(rng.uniform(0.45, 0.95)) if "misty" in prompt else None
    return sample_scene(rng, **fixed, mist=mist)


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """One of many true descriptions of a scene."""

    def pick(options) -> str:
        return options[int(rng.integers(len(options)))]

    words = [pick(_NOUNS[scene.kind])]
    if rng.random() < 0.6:
        words.append(pick(_TIMES[scene.time]))
    if rng.random() < 0.3:
        words.append(f"in {scene.season}")
    extras = [f"with a {scene.look.name} sky"] if rng.random() < 0.35 else []
    if scene.sun and rng.random() < 0.35:
        extras.append("with a moon" if scene.time == "night" else "with a sun")
    if scene.clouds > 0.5 and rng.random() < 0.25:
        extras.append("with clouds")
    if scene.mist > 0.3 and rng.random() < 0.5:
        extras.append("with a misty fog")
    text = " ".join(words + extras[:2])
    if scene.style == "photo":
        return pick(("a photo of ", "a photo of ", "")) + text
    if scene.style == "cartoon":
        return pick(("cartoon panorama of ", "a cartoon of ")) + text
    return text + pick((" in anime style illustration", " in anime style"))


def sample_pair(rng: np.random.Generator) -> tuple[Scene, str]:
    """A training pair: in 45 of 100 cases one of the paper's prompts, else a caption of the grammar."""
    if rng.random() < 0.45:
        prompt = PAPER_PROMPTS[int(rng.integers(len(PAPER_PROMPTS)))]
        return scene_for_prompt(prompt, rng), prompt
    scene = sample_scene(rng, kind=KINDS[int(rng.integers(len(KINDS)))])
    return scene, caption(scene, rng)
