"""The gate's numbers, each against one computed otherwise."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from scipy.ndimage import uniform_filter

from experiments.metrics.estimates import Estimate
from experiments.mini import gate
from experiments.mini.panoramas import method_settings


def test_top_one_counts_right_answers() -> None:
    texts = torch.eye(3)
    images = torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.3, 0.1], [0.0, 0.9, 0.1]])
    assert gate.top_one(images, texts, [0, 1, 2]).tolist() == [1.0, 1.0, 0.0]


def test_captions_are_distinct_and_their_scenes_repeatable() -> None:
    assert len(set(gate.CAPTIONS)) == len(gate.CAPTIONS) == 12
    for caption in gate.CAPTIONS[::4]:
        picture = gate.heldout_scene(caption, 0, 0)
        assert picture.shape == (128, 128, 3) and picture.dtype == np.uint8
        assert np.array_equal(picture, gate.heldout_scene(caption, 0, 0))
        assert not np.array_equal(picture, gate.heldout_scene(caption, 0, 1))


@pytest.mark.parametrize("value, passes", [(29.0, True), (28.0, True), (27.9, False), (math.nan, False)])
def test_limits(value: float, passes: bool) -> None:
    assert gate.LIMITS["psnr"] == (">=", 28.0)
    assert (not gate.failures([gate.row("psnr", Estimate(value, None), 10, "none")])) == passes


def test_fog_and_noise_are_not_sharp() -> None:
    rng = np.random.default_rng(0)
    sharp = np.where(rng.random((8, 64, 64, 3)) < 0.1, 255, 40).astype(np.uint8)
    fog = np.stack([np.asarray(Image.fromarray(p).filter(ImageFilter.GaussianBlur(2))) for p in sharp])
    noise = rng.integers(0, 256, sharp.shape, dtype=np.uint8)
    shares = {r.name: r.value for r in gate.measure_sharpness(sharp, {"same": sharp, "fog": fog, "noise": noise}, 2)}
    assert shares["sharpness_same"] == 1.0
    assert shares["sharpness_fog"] < 0.1 and shares["sharpness_noise"] < 0.8


def test_detail_is_what_a_blur_takes() -> None:
    image = np.random.default_rng(1).integers(0, 256, (1, 9, 12, 3), dtype=np.uint8)
    luma = image[0].astype(float) @ [0.2126, 0.7152, 0.0722]
    left = luma - uniform_filter(luma, 3)
    assert gate.detail(image)[0] == pytest.approx((left[1:-1, 1:-1] ** 2).mean())


def test_spread_of_colour_is_a_ratio_to_the_renders() -> None:
    plain = np.zeros((4, 8, 8, 3), np.uint8)
    plain[0, ..., 0], plain[1, ..., 0] = 40, 0  # one caption: red 20 ± 20
    plain[2, ..., 1], plain[3, ..., 1] = 10, 30  # another: green 20 ± 10
    half = plain // 2
    assert gate.colour_spread(plain[:2]) == 20 and gate.colour_spread(plain[2:]) == 10
    (row,) = gate.measure_spread(plain, {"half": half}, 2)
    assert row.name == "spread_half" and row.value == pytest.approx(0.5)


def test_panoramas_take_the_steps_and_guidance_that_were_asked_for(tmp_path, monkeypatch):
    """Of a folder without a sampling.json, as a model has that was exported a moment ago."""
    used = []

    def drawn(backbone, folder, method, prompt, seed, **given):
        settings = method_settings(folder, method, **given)
        used.append((settings.steps, settings.guidance_scale))
        return np.zeros((16, 32, 3), np.uint8)

    monkeypatch.setattr(gate, "load_backbone", lambda *_, **__: SimpleNamespace(window=2, factor=8))
    monkeypatch.setattr(gate, "make_panorama", drawn)
    monkeypatch.setattr(gate, "pair_distances", lambda *_: np.ones(1))
    networks = {"lpips": SimpleNamespace(load=lambda: None, network="none")}
    gate.measure_panoramas(tmp_path, networks, 7, 2.5, 0, torch.device("cpu"), 4)
    assert used == [(7, 2.5)] * 6


def test_inception_limit_does_not_bind_a_stand_in() -> None:
    far = Estimate(9.0, None)
    assert gate.failures([gate.row("kid_samples", far, 10, "inception-v3")])
    assert not gate.failures([gate.row("kid_samples", far, 10, "mini-CLIP image tower, not Inception")])
    assert not gate.failures([gate.row("kid_renders", far, 10, "inception-v3")])


def test_the_shipped_model_passed_its_gate():
    """The numbers in gate.json are of these very weights, and within the limits that stand in the code now."""
    import json

    from syncdiffusion.backbones.model_files import EMBEDDED_FOLDER

    record = json.loads((EMBEDDED_FOLDER / "gate.json").read_text())
    assert record["model"] == gate.fingerprint_folder(EMBEDDED_FOLDER)
    rows = [gate.Row(**entry) for entry in record["rows"]]
    assert {row.name for row in rows} >= set(gate.LIMITS)
    assert record["passed"] and gate.failures(rows) == []
