"""The autoencoder in half precision: what overflows is done again in float32, or refused; a lack of memory is told."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from baselines.multidiffusion import MultiDiffusionSettings
from syncdiffusion.errors import UsageError
from syncdiffusion.joint.decode import decode_canvas
from syncdiffusion.joint.start import read_start


@pytest.fixture
def overflowing(tiny, monkeypatch):
    """overflowing(always): from now on the autoencoder is lost where it runs under autocast, or always."""
    decode, encode = tiny.vae.decode, tiny.vae.encode

    def call(always: bool = False) -> None:
        def lost(x):
            return x * torch.nan if always or torch.is_autocast_enabled("cpu") else x

        def encoded(images):
            mode = lost(encode(images).latent_dist.mode())
            return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: mode))

        monkeypatch.setattr(tiny.vae, "decode", lambda x: SimpleNamespace(sample=lost(decode(x).sample)))
        monkeypatch.setattr(tiny.vae, "encode", encoded)

    return call


def test_a_picture_that_overflows_is_decoded_again_in_float32(tiny, overflowing):
    canvas = torch.randn(1, 4, 8, 12, generator=torch.Generator().manual_seed(0))
    whole = decode_canvas(tiny, canvas)
    overflowing()
    with pytest.warns(RuntimeWarning, match="bfloat16: a picture was not finite; it was done again in float32"):
        ours = decode_canvas(replace(tiny, precision="bfloat16"), canvas)
    assert torch.equal(ours, whole)
    overflowing(always=True)
    with pytest.raises(UsageError, match="^precision=float32: a picture is not finite; use"):
        decode_canvas(tiny, canvas)


def test_a_start_image_that_overflows_is_encoded_again_in_float32(tiny, overflowing, tmp_path):
    path = tmp_path / "start.png"
    Image.new("RGB", (96, 64), (200, 30, 90)).save(path)
    settings = MultiDiffusionSettings(height=64, width=96, start_image=str(path))
    whole = read_start(tiny, settings).latents
    overflowing()
    with pytest.warns(RuntimeWarning, match="bfloat16: a start image was not finite"):
        ours = read_start(replace(tiny, precision="bfloat16"), settings).latents
    assert torch.equal(ours, whole)


def test_a_start_image_beyond_the_memory_is_told_in_a_line(tiny, tmp_path, monkeypatch):
    path = tmp_path / "start.png"
    Image.new("RGB", (96, 64)).save(path)

    def full(images):
        raise torch.OutOfMemoryError("for the test")

    monkeypatch.setattr(tiny.vae, "encode", full)
    with pytest.raises(UsageError, match="^start_image=.*start.png: encoding it takes more than the free memory"):
        read_start(tiny, MultiDiffusionSettings(height=64, width=96, start_image=str(path)))
