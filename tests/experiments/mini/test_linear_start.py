"""The encoder's beginning is a principal component analysis, held against one written with matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny

from experiments.mini.linear_decoder import LinearDecoder, set_linear_decoder
from experiments.mini.linear_start import principal_components, set_linear_encoder


def make_encoder(width: int, channels: int, blocks: tuple[int, ...]) -> torch.nn.Module:
    torch.manual_seed(0)
    sizes = {"encoder_block_out_channels": (width,) * 4, "decoder_block_out_channels": (8,) * 4}
    depths = {"num_encoder_blocks": blocks, "num_decoder_blocks": (0, 0, 0, 0)}
    return AutoencoderTiny(**sizes, **depths, latent_channels=channels).encoder


def pictures(count: int) -> np.ndarray:
    """Smooth pictures with a little noise, so that the components differ in size."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, 5, 7, 3), dtype=np.uint8)
    fine = np.kron(coarse, np.ones((1, 8, 8, 1))) * 0.7 + np.kron(coarse[:, ::-1], np.ones((1, 8, 8, 1))) * 0.2
    return np.clip(fine + rng.normal(0, 8, fine.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "width, channels, blocks", [(48, 16, (0, 1, 3, 5)), (64, 4, (1, 0, 2, 1)), (48, 16, (0, 0, 0, 0))]
)
def test_encoder_computes_the_components(width: int, channels: int, blocks: tuple[int, ...]) -> None:
    images = pictures(12)
    mean, components, deviations = principal_components(list(images), channels)
    encoder = make_encoder(width, channels, blocks)
    set_linear_encoder(encoder, mean, components, deviations)
    found = encoder(torch.from_numpy(images[:3].copy()).permute(0, 3, 1, 2) / 127.5 - 1)
    assert found.shape == (3, channels, 5, 7)
    for image, row, column in ((0, 0, 0), (1, 2, 6), (2, 4, 3)):
        block = images[image, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8].reshape(192) / 255.0
        expected = components.double() @ (torch.from_numpy(block) - mean.double())
        expected = expected / deviations * (deviations / deviations[0]) ** (1 / 3)
        # float32 sums of 192 values.
        torch.testing.assert_close(found[image, :, row, column].double(), expected, rtol=1e-4, atol=1e-5)


def test_components_are_those_of_a_singular_value_decomposition() -> None:
    images = pictures(6)
    mean, components, deviations = principal_components(list(images), 8)
    blocks = [
        image[y : y + 8, x : x + 8].reshape(192) / 255.0
        for image in images
        for y in range(0, 40, 8)
        for x in range(0, 56, 8)
    ]
    centred = np.stack(blocks) - np.mean(blocks, 0)
    _, values, vectors = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(mean.numpy(), np.mean(blocks, 0), atol=1e-6)
    np.testing.assert_allclose(deviations.numpy(), values[:8] / np.sqrt(len(blocks) - 1), rtol=1e-4)
    # Either sign is a component.
    np.testing.assert_allclose(np.abs((components.numpy() @ vectors[:8].T).diagonal()), 1, atol=1e-3)


def test_too_narrow_an_encoder_is_refused() -> None:
    with pytest.raises(ValueError, match="width 32"):
        set_linear_encoder(make_encoder(32, 4, (0, 1, 1, 1)), *principal_components(list(pictures(3)), 4))


def test_decoder_computes_the_linear_chain() -> None:
    torch.manual_seed(1)
    sizes = {"encoder_block_out_channels": (8,) * 4, "decoder_block_out_channels": (24,) * 4}
    depths = {"num_encoder_blocks": (0, 1, 1, 1), "num_decoder_blocks": (2, 1, 3, 0)}
    decoder = AutoencoderTiny(**sizes, **depths, latent_channels=4).decoder
    linear = LinearDecoder(4, 24)
    latents = torch.randn(2, 4, 5, 6)
    expected = linear(latents)
    assert expected.shape == (2, 3, 40, 48) and expected.std() > 0.01
    set_linear_decoder(decoder, linear)
    # float32 sums in another order.
    torch.testing.assert_close(decoder(latents), expected, rtol=1e-4, atol=1e-5)


def test_a_decoder_with_blocks_at_full_resolution_is_refused() -> None:
    sizes = {"encoder_block_out_channels": (8,) * 4, "decoder_block_out_channels": (24,) * 4}
    depths = {"num_encoder_blocks": (0, 1, 1, 1), "num_decoder_blocks": (2, 1, 3, 1)}
    decoder = AutoencoderTiny(**sizes, **depths, latent_channels=4).decoder
    with pytest.raises(ValueError, match="without blocks at full resolution"):
        set_linear_decoder(decoder, LinearDecoder(4, 24))
