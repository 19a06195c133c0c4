"""The critic's stretch can be interrupted, moves nothing but the decoder, and each loss moves its own network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny
from torch import Tensor

from experiments.mini import train_decoder as stretch
from experiments.mini.diffusion_data import encoder_hash

SMALL = stretch.DecoderSettings(batch=2, crop=32, warmup=2, critic_width=8)


def make_vae() -> AutoencoderTiny:
    torch.manual_seed(0)
    blocks = {"encoder_block_out_channels": (8,) * 4, "decoder_block_out_channels": (8,) * 4}
    depths = {"num_encoder_blocks": (0, 1, 1, 1), "num_decoder_blocks": (1, 1, 1, 0)}
    vae = AutoencoderTiny(**blocks, **depths, latent_channels=8, scaling_factor=1.7)
    vae.encoder.requires_grad_(False)
    return vae


def pictures(count: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)


def mean_square(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square().mean((1, 2, 3))


def test_resumed_stretch_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    images, heldout = pictures(5), pictures(2)
    before = make_vae()
    whole = stretch.train(SMALL, 4, 2, tmp_path / "whole", make_vae(), images, heldout, mean_square)
    for _ in range(2):
        parts = stretch.train(SMALL, 4, 2, tmp_path / "parts", make_vae(), images, heldout, mean_square, stop_after=3)
    moved = 0.0
    for a, b, c in zip(
        whole.decoder.parameters(), parts.decoder.parameters(), before.decoder.parameters(), strict=True
    ):
        # The same operations on the same numbers: no tolerance.
        assert torch.equal(a, b)
        moved = max(moved, (a - c).abs().max().item())
    assert moved > 1e-4
    assert encoder_hash(whole) == encoder_hash(before)
    assert (tmp_path / "whole" / "decoder" / "reconstructions.png").exists()


@pytest.mark.parametrize("part, other", [("decoder", "critic"), ("critic", "decoder")])
def test_each_network_has_the_gradient_of_its_own_loss(part: str, other: str) -> None:
    """The gradient of the sum in one network's weights is that of its own loss, written out anew."""
    vae = make_vae()
    models = stretch.build_models(vae, SMALL)
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    latents = vae.encoder(images)
    stretch.losses(models, latents, images, mean_square, SMALL)[0].backward()
    found = [p.grad.clone() for p in models[part].parameters()]
    models.zero_grad()
    models[other].requires_grad_(False)
    decoded = models["decoder"](latents)
    (fake, seen), (true, wanted) = models["critic"](decoded), models["critic"](images)
    if part == "critic":
        own = (1 - true).clamp(min=0).mean() + (1 + fake).clamp(min=0).mean()
    else:
        alike = sum((a - b).abs().mean() for a, b in zip(seen, wanted, strict=True))
        own = (decoded - images).abs().mean() + 0.25 * (decoded - images).square().mean()
        own = own + SMALL.critic_weight * (alike - fake.mean())
    own.backward()
    for a, p in zip(found, models[part].parameters(), strict=True):
        torch.testing.assert_close(a, p.grad, rtol=1e-4, atol=1e-6)  # float32 sums in another order
    assert max(a.abs().max().item() for a in found) > 1e-5


def test_critic_judges_every_eighth_pixel() -> None:
    verdict, features = stretch.Critic(8)(torch.zeros(2, 3, 64, 48))
    assert verdict.shape == (2, 1, 8, 6) and len(features) == 3
