"""The counted network calls of every method against what the networks really saw."""

import pytest

from tests.baselines.counting import check_calls

COMMON = {"height": 64, "width": 192, "steps": 5}
CASES = [
    ("stable_diffusion", {**COMMON, "width": 128}),
    ("multidiffusion", {**COMMON, "stride": 2, "window_batch": 3}),
    ("multidiffusion", {**COMMON, "stride": 2, "loop_closure": "full"}),
    ("multidiffusion", {**COMMON, "height": 128, "stride": 4}),
    ("blended_latent", COMMON),
    ("blended_latent", {**COMMON, "overlap": 0.25, "width": 64 + 2 * 48, "start": 0.5}),
    ("syncdiffusion", {**COMMON, "stride": 4, "loss": "lpips_alex"}),
    ("syncdiffusion", {**COMMON, "stride": 4, "loss": "lpips_alex", "every_n": 2, "window_batch": 2}),
    ("syncdiffusion", {**COMMON, "stride": 4, "loss": "lpips_alex", "first_n": 3}),
    ("syncdiffusion", {**COMMON, "stride": 4, "loss": "lpips_alex", "first_n": 3, "unet_gradient": False}),
    ("profile_matching", {**COMMON, "stride": 4, "first_n": 3}),
    ("syncdiffusion", {**COMMON, "stride": 4, "loss": "lpips_alex", "weight": 0.0}),
]


@pytest.mark.parametrize(("name", "settings"), CASES, ids=lambda case: str(case) if isinstance(case, str) else "")
def test_calls_are_what_the_networks_saw(tiny, monkeypatch, name, settings):
    check_calls(tiny, monkeypatch, name, settings)
