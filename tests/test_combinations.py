"""Every cell of README's table of what combines with what: made at the tiny model's size, or refused in one line."""

import json
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from baselines import METHODS
from experiments.combinations import AXES, NO, RING, SAMPLER, cell, ring_of, table
from experiments.common.command_line import error_line
from experiments.plan.plan import Entry, check_conditioning
from syncdiffusion import cli
from syncdiffusion.errors import UsageError
from syncdiffusion.method_settings import SAMPLERS
from syncdiffusion.settings import facts_of
from tests.experiments.composing import compose_plan
from tests.syncdiffusion.conditioning.test_control import controlnet

PROMPT = "a photo of a forest"
# Three windows of 64 px; three steps tell all samplers apart, for of two DPM-Solver++ takes both like DDIM.
SMALL = {"height": 64, "width": 128, "steps": 3, "guidance_scale": 2.0, "stride": 4}
FEW = {"rounds": 2, "candidates": 2, "overlap": 0.5, "first_n": 1}  # less than the defaults of some, which take long
COLOUR = {"loss": "colour"}  # a pull through no network, so that no weights are needed
CELLS = [(name, axis) for name in sorted(METHODS) for axis in AXES]
YES = [each for each in CELLS if cell(METHODS[each[0]], each[1]) != NO]
REFUSED = [each for each in CELLS if each not in YES]
OF_A_RUN = ("start image", "mask", "layout", "control image")  # given for all methods at once


@pytest.fixture(scope="module")
def given(tiny, tmp_path_factory) -> dict[str, dict]:
    """The settings of each axis but rings and samplers, with files that are there."""
    folder = tmp_path_factory.mktemp("given")
    pixels = np.random.default_rng(0).integers(0, 256, (64, 128, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "picture.png")
    half = np.zeros((64, 128), dtype=np.uint8)
    half[:, 64:] = 255
    Image.fromarray(half).save(folder / "mask.png")
    region = {"prompt": "a city", "box": [0, 0, 0.5, 1]}
    (folder / "layout.json").write_text(json.dumps({"background": PROMPT, "regions": [region]}))
    picture = str(folder / "picture.png")
    return {
        "start image": {"start_image": picture, "start_strength": 0.7},
        "mask": {"start_image": picture, "mask": str(folder / "mask.png")},
        "layout": {"layout": str(folder / "layout.json")},
        "control image": {"control_image": picture, "controlnet": controlnet(tiny, folder / "controlnet", 0)},
        "pull toward a picture or words": {"toward": "orange"},
    }


@pytest.fixture(scope="module")
def latents_of(tiny):
    """latents_of(name, settings) -> the canvas, made once."""
    known = {}

    def make(name, **chosen):
        key = name, json.dumps(chosen, sort_keys=True)
        if key not in known:
            known[key] = METHODS[name].sample_latents(tiny, [PROMPT], [0], settings_of(name, **chosen))
        return known[key]

    return make


def settings_of(name, **chosen):
    settings = METHODS[name].settings
    usual = {key: value for key, value in (SMALL | FEW | COLOUR).items() if hasattr(settings, key)}
    return settings(**usual, **chosen)


def ways(name, axis, given) -> list[dict]:
    """The settings that a cell is about."""
    if axis == SAMPLER:
        return [{"sampler": sampler} for sampler in facts_of(METHODS[name].settings)["sampler"].choices]
    return [dict(ring_of(METHODS[name]) or {}) if axis == RING else given[axis]]


@pytest.mark.parametrize(("name", "axis"), YES)
def test_what_combines_makes_a_panorama(latents_of, given, name, axis):
    tried = ways(name, axis, given)
    found = [latents_of(name, **way) for way in tried]
    for latents in found:
        assert latents.shape == (1, 4, 8, 16)
        assert latents.isfinite().all() and latents.std() > 0.1
    if axis == RING:
        assert METHODS[name].closed(asdict(settings_of(name, **tried[0])))
    # It says something: the canvas is another than without. A ring that always closes has none without.
    others = found if axis == SAMPLER else [*found, latents_of(name)] if tried != [{}] else []
    for i, latents in enumerate(others):
        assert not any(torch.allclose(latents, other, atol=1e-3) for other in others[:i])


@pytest.mark.parametrize(("name", "axis"), REFUSED)
def test_what_does_not_combine_is_refused_in_one_line(given, name, axis):
    """By the command for one panorama, setting by setting; by a run, of what it is given for all its methods."""
    settings = {"loop_closure": "full"} if axis == RING else given[axis]
    for key, value in settings.items():
        arguments = cli.parser().parse_args([PROMPT, "--method", name, "--set", f"{key}={value}"])
        if key not in METHODS[name].settings.__dataclass_fields__:
            with pytest.raises(UsageError, match=rf"^--set {key}: {name} has no such setting; it has [^\n]*$"):
                cli.chosen_settings(METHODS[name], arguments)
    assert any(key not in METHODS[name].settings.__dataclass_fields__ for key in settings)
    if axis in OF_A_RUN:
        run = dict.fromkeys(("start_image", "start_strength", "mask", "layout", "control_image")) | settings
        entries = (Entry("plain", "multidiffusion", run), Entry(name, name, asdict(settings_of(name))))
        with pytest.raises(UsageError, match=rf"^\w+=[^\n]*: {name} cannot [^\n]* one; leave that method out$"):
            check_conditioning(entries, (PROMPT,), run)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_sampler_that_a_method_cannot_take_is_refused_in_one_line(name):
    able = facts_of(METHODS[name].settings)["sampler"].choices
    assert able and set(able) <= set(SAMPLERS)
    for sampler in {*SAMPLERS, "plms"} - set(able):
        with pytest.raises(UsageError, match=rf"^sampler={sampler}: use [^\n]*ddim[^\n]*$"):
            settings_of(name, sampler=sampler)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["method=cdgs", "start_image=conf/experiment/sdedit.png"], "start_image="),
        (["method=cdgs", "mask=conf/experiment/sdedit.png"], "mask="),
        (["method=cdgs", "start_strength=0.5"], "start_strength=0.5: "),
        (["method=safa", "method.loop_closure=full"], "method.loop_closure=full: no such setting"),
        (["method=mad", "method.toward=orange"], "method.toward=orange: no such setting"),
    ],
)
def test_the_runner_refuses_too(words, told):
    with pytest.raises(Exception) as refusal:  # noqa: B017 - Hydra has many kinds
        compose_plan(["experiment=panorama", *words])
    line = error_line(refusal.value, words)
    assert line.startswith(told) and "\n" not in line


def test_the_table_of_the_readme_is_this_one():
    text = (Path(__file__).parents[1] / "README.md").read_text()
    (shown,) = re.findall(r"<!-- combinations -->\n(.*?)\n<!-- end of combinations -->", text, re.DOTALL)
    assert shown.strip() == table(), "python -m experiments.combinations prints the table as it is now"
