"""The drawn world: every kind in every style, and words that people would choose."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from experiments.mini.captions import PAPER_PROMPTS, caption, sample_pair, scene_for_prompt
from experiments.mini.scenes import KINDS, STYLES, render, render_window, sample_scene


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_drawn_in_every_style(kind: str) -> None:
    rng = np.random.default_rng(1)
    scene = sample_scene(rng, kind=kind, time="day", season="summer", mist=0.0)
    pictures = [render(replace(scene, style=style), 128, 256) for style in STYLES]
    for picture in pictures:
        assert picture.shape == (128, 256, 3) and picture.dtype == np.uint8
        # Not a plain sky: what stands below the horizon has its own colours.
        assert np.abs(picture[20].mean(0) - picture[-10].mean(0).astype(float)).max() > 15
    assert not np.array_equal(pictures[0], pictures[1]) and not np.array_equal(pictures[0], pictures[2])
    assert np.array_equal(render(scene, 128, 256), render(scene, 128, 256))


def test_northern_lights_are_in_the_sky_alone_and_green() -> None:
    rng = np.random.default_rng(2)
    scene = sample_scene(rng, kind="mountains", time="night", style="photo", mist=0.0, aurora=True)
    picture = render(scene, 128, 256)[:60].astype(float)
    plain = render(replace(scene, aurora=False), 128, 256)[:60].astype(float)
    assert (picture - plain)[..., 1].mean() > 10
    assert (picture - plain)[..., 1].mean() > (picture - plain)[..., 0].mean()


def test_a_window_is_a_part_of_the_wide_scene() -> None:
    rng = np.random.default_rng(3)
    scene = sample_scene(rng, kind="village")
    wide, window = render(scene, 128, 256), render_window(scene, np.random.default_rng(0))
    first, last = scene.window_range(128, 256)
    assert sum(np.array_equal(wide[:, x : x + 128], window) for x in range(first, last + 1)) == 1


def test_the_papers_prompts_keep_their_share() -> None:
    rng = np.random.default_rng(4)
    pairs = [sample_pair(rng) for _ in range(2000)]
    share = np.mean([text in PAPER_PROMPTS for _, text in pairs])
    # Binomial: 0.011 is one standard deviation.
    assert 0.40 - 0.02 < share < 0.46
    assert {scene.kind for scene, _ in pairs} == set(KINDS)
    for prompt in PAPER_PROMPTS:
        assert not scene_for_prompt(prompt, rng).aurora


@pytest.mark.parametrize(
    "words, kind",
    [("a beach", "beach"), ("a desert", "desert"), ("a village in the snow", "village"), ("the northern lights", None)],
)
def test_a_newcomers_words_are_captions(words: str, kind: str | None) -> None:
    rng = np.random.default_rng(5)
    season, time = ("winter", "night") if kind in ("village", None) else (None, None)
    scene = sample_scene(rng, kind=kind, season=season, time=time, style="photo", aurora=kind is None)
    scene = replace(scene, sun=None, mist=0.0, clouds=0.0)
    assert words in {caption(scene, rng) for _ in range(3000)}


def test_loose_captions_have_words_that_say_nothing() -> None:
    rng = np.random.default_rng(6)
    known = {word for _ in range(3000) for word in sample_pair(rng)[1].split()}
    loose = [caption(sample_pair(rng)[0], rng, loose=True).split() for _ in range(300)]
    assert np.mean([any(word not in known for word in words) for words in loose]) > 0.5
    assert 0.1 < np.mean([all(word not in known for word in words) for words in loose]) < 0.3
