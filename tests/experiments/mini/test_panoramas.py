"""The contact sheet of panoramas takes its settings from the miniature's configuration, and the methods as they are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from baselines import METHODS
from experiments.mini import panoramas
from syncdiffusion.backbones.loading import load_backbone
from syncdiffusion.backbones.model_files import EMBEDDED_FOLDER
from syncdiffusion.errors import UsageError

TINY = {"height": 128, "width": 160, "steps": 1}


def test_settings_are_the_models_but_for_what_is_given(tmp_path: Path) -> None:
    told = {"every_method": {"steps": 7, "guidance_scale": 2.5}, "syncdiffusion": {"weight": 1.5}}
    (tmp_path / "sampling.json").write_text(json.dumps(told))
    chosen = panoramas.method_settings(tmp_path, "syncdiffusion", guidance_scale=3.0)
    assert (chosen.steps, chosen.guidance_scale, chosen.weight) == (7, 3.0, 1.5)
    chosen = panoramas.method_settings(tmp_path, "multidiffusion")
    assert (chosen.steps, chosen.guidance_scale, chosen.height, chosen.width, chosen.stride) == (7, 2.5, 128, 768, 4)
    with pytest.raises(UsageError, match="methods=nothing"):
        panoramas.method_settings(tmp_path, "nothing")


def test_rows_are_the_methods_pictures_of_each_prompt() -> None:
    backbone = load_backbone(device="cpu")
    prompts = ["a beach", "a desert"]
    rows = panoramas.make_panoramas(
        backbone, EMBEDDED_FOLDER, ["multidiffusion", "profile_matching"], prompts, 3, **TINY
    )
    assert [len(row) for row in rows] == [1] * 4
    settings = panoramas.method_settings(EMBEDDED_FOLDER, "multidiffusion", **TINY)
    both = METHODS["multidiffusion"].generate(backbone, prompts, [3, 3], settings)
    for row, image in zip(rows[::2], both, strict=True):
        expected = np.round(image.permute(1, 2, 0).clamp(0, 1).numpy() * 255)
        # Two panoramas at once are summed in another order.
        assert row[0].shape == (128, 160, 3) and np.abs(row[0] - expected).max() <= 2
