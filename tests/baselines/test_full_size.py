"""Every method takes a step at Stable Diffusion 2.0's own size, from a folder with random weights."""

import warnings
from pathlib import Path

import pytest
import torch

from baselines import METHODS
from syncdiffusion.backbones.backbone import Backbone, load_backbone
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


@pytest.mark.parametrize("name", [name for name in METHODS if name != "syncdiffusion"])
def test_one_step_of_every_baseline(full_size, name):
    method = METHODS[name]
    width = {"stable_diffusion": 512, "blended_latent": 768}.get(name, 640)
    options = {"stride": 16, "window_batch": 1} if hasattr(method.settings, "stride") else {}
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
