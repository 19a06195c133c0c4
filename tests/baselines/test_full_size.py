"""Every method takes a step at Stable Diffusion 2.0's own size, from a folder with random weights."""

import warnings
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from baselines import METHODS
from syncdiffusion.backbones.backbone import Backbone
from syncdiffusion.backbones.loading import load_backbone
from syncdiffusion.cost import Square
from syncdiffusion.errors import UsageError
from syncdiffusion.method import Method, no_corners
from tests.metric_networks import load_or_skip
from tests.tiny_model import build_stable_diffusion_2

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def full_size(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder: Path = build_stable_diffusion_2(tmp_path_factory.mktemp("sd2"))
        return load_backbone(str(folder), device="cpu")


def test_it_is_stable_diffusion_2_base(full_size):
    # The published model's counts: UNet 865,910,724, decoder and encoder 83,653,863, text encoder 340,387,840.
    count = [
        sum(p.numel() for p in part.parameters()) for part in (full_size.unet, full_size.vae, full_size.text_encoder)
    ]
    assert count == [865_910_724, 83_653_863, 340_387_840]
    assert (full_size.window, full_size.factor, full_size.channels) == (64, 8, 4)
    assert abs(full_size.vae.config.scaling_factor - 0.18215) < 1e-9


def least_width(method: Method, options: dict) -> int:
    """Of a canvas with more than one window, in pixels."""
    for width in (640, 768, 832, 1024):
        try:
            method.corners(method.settings(height=512, width=width, **options), Square(64, 8))
            return width
        except UsageError:
            continue
    raise AssertionError(f"{method.name} covers none of these canvases")


@pytest.mark.parametrize("name", [name for name in METHODS if name != "syncdiffusion"])
def test_one_step_of_every_baseline(full_size, name):
    method = METHODS[name]
    own = {each.name for each in fields(method.settings)}
    least = {"stride": 16, "window_batch": 1, "rounds": 1, "candidates": 1}
    options = {key: value for key, value in least.items() if key in own}
    width = 512 if method.corners is no_corners else least_width(method, options)
    image = method.generate(full_size, ["a forest"], [0], method.settings(height=512, width=width, steps=1, **options))
    assert image.shape == (1, 3, 512, width)
    assert torch.isfinite(image).all() and 0 <= image.min() and image.max() <= 1


def test_one_step_of_syncdiffusion(full_size):
    load_or_skip("lpips_vgg")
    common = {"height": 512, "width": 640, "steps": 1, "stride": 16, "window_batch": 1}

    def latents(name, **options):
        method = METHODS[name]
        return method.sample_latents(full_size, ["a forest"], [0], method.settings(**common, **options))

    pulled, free = latents("syncdiffusion", gradient_batch=1), latents("multidiffusion")
    assert pulled.shape == (1, 4, 64, 80) and torch.isfinite(pulled).all()
    assert (pulled - free).abs().max() > 0  # the gradient went through UNet and decoder to the latents
