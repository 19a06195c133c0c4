"""The contact sheet of panoramas takes its settings from the miniature's configuration, and the methods as they are."""

from __future__ import annotations

import numpy as np
import pytest

from baselines import METHODS
from experiments.mini import panoramas
from syncdiffusion.backbones.backbone import load_backbone
from syncdiffusion.errors import UsageError

TINY = {"height": 128, "width": 160, "steps": 1}


def test_settings_are_the_configurations_but_for_what_is_given() -> None:
    from omegaconf import OmegaConf

    conf = OmegaConf.load(panoramas.CONFIGURATION)
    chosen = panoramas.method_settings("syncdiffusion", weight=3.0)
    assert (chosen.width, chosen.guidance_scale, chosen.first_n) == (conf.width, conf.guidance_scale, conf.first_n)
    assert chosen.weight == 3.0
    assert panoramas.method_settings("multidiffusion").stride == conf.stride
    with pytest.raises(UsageError, match="methods=nothing"):
        panoramas.method_settings("nothing")


def test_rows_are_the_methods_pictures_of_each_prompt() -> None:
    backbone = load_backbone(device="cpu")
    prompts = ["a beach", "a desert"]
    rows = panoramas.make_panoramas(backbone, ["multidiffusion", "profile_matching"], prompts, 3, **TINY)
    assert [len(row) for row in rows] == [1] * 4
    settings = panoramas.method_settings("multidiffusion", **TINY)
    both = METHODS["multidiffusion"].generate(backbone, prompts, [3, 3], settings)
    for row, image in zip(rows[::2], both, strict=True):
        expected = np.round(image.permute(1, 2, 0).clamp(0, 1).numpy() * 255)
        # Two panoramas at once are summed in another order.
        assert row[0].shape == (128, 160, 3) and np.abs(row[0] - expected).max() <= 2
