"""Decoding in tiles equals decoding the whole, rings close, and nothing is asked of memory twice."""

import warnings
from dataclasses import replace

import pytest
import torch

from baselines import METHODS
from syncdiffusion.errors import UsageError
from syncdiffusion.joint import decode as decoding
from syncdiffusion.joint.decode import decode_canvas

# What PyTorch raises on a CPU.
NO_MEMORY = RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried")


class Limited(torch.nn.Module):
    """An autoencoder that runs out of memory above so many latent cells, and notes how many it was given."""

    def __init__(self, vae: torch.nn.Module, most: int):
        super().__init__()
        self.vae, self.most, self.config, self.seen = vae, most, vae.config, []
        self.decoder = vae.decoder

    def decode(self, latents):
        self.seen.append(latents[0, 0].numel())
        if self.seen[-1] > self.most:
            raise NO_MEMORY
        return self.vae.decode(latents)


def limited(backbone, most):
    """The same backbone with its decoder measured and then limited."""
    found = replace(backbone, vae=Limited(backbone.vae, 10**9))
    assert found.decoder == backbone.decoder
    found.vae.seen.clear()
    found.vae.most = most
    return found


@pytest.fixture(scope="module")
def convolutional(tiny):
    """The tiny model with a random AutoencoderTiny of the same factor, in float64: rounding is 1e-16 there."""
    from diffusers import AutoencoderTiny

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        vae = AutoencoderTiny(
            encoder_block_out_channels=(4, 4, 4, 4),
            decoder_block_out_channels=(4, 4, 4, 4),
            num_encoder_blocks=(1, 1, 1, 1),
            num_decoder_blocks=(2, 1, 1, 1),
            latent_channels=4,
        )
    return replace(tiny, vae=vae.double().eval().requires_grad_(False), precision="float64")


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_the_reach_is_how_far_a_gradient_comes_from(convolutional, tiny):
    """1 + 6 convolutions at the latents' resolution, 4 at twice, 4 at four times and 5 at eight times that."""
    assert convolutional.decoder.reach == 11 == -(-(7 * 8 + 4 * 4 + 4 * 2 + 5) // 8)
    farthest = 0
    for seed in range(20):  # ReLUs cut single paths
        latents = noise(1, 4, 2, 48, seed=seed).double().requires_grad_()
        image = convolutional.vae.decode(latents).sample[..., 24 * 8 : 25 * 8]
        (gradient,) = torch.autograd.grad(image.sum(), latents)
        columns = gradient.abs().sum(dim=(0, 1, 2)).nonzero().flatten()
        farthest = max(farthest, 24 - int(columns.min()), int(columns.max()) - 24)
    assert farthest == 11
    assert convolutional.decoder.local and not tiny.decoder.local


@pytest.mark.parametrize("circular", [False, True])
@pytest.mark.parametrize(("height", "width", "most"), [(8, 96, 480), (40, 40, 1200)])
def test_tiles_of_convolutions_equal_the_whole(convolutional, height, width, most, circular):
    canvas = noise(2, 4, height, width).double()
    whole = decode_canvas(convolutional, canvas, circular)
    scarce = limited(convolutional, most)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tiles = decode_canvas(scarce, canvas, circular)
    refused = [cells for cells in scarce.vae.seen if cells > most]
    assert refused == sorted(set(refused), reverse=True) and refused  # no size is tried again, by no canvas
    assert len(scarce.vae.seen) - len(refused) >= 4  # two canvases of two tiles at least
    assert whole.shape == (2, 3, 8 * height, 8 * width)
    assert (tiles - whole).abs().max() <= 1e-6  # float64's rounding, kept as float32


def test_what_free_memory_cannot_hold_is_not_tried(convolutional, monkeypatch):
    """A process that runs out of a CPU's memory is ended by the system, not told."""
    monkeypatch.setattr(decoding, "free_memory", lambda device: 500 * convolutional.decoder.cell_bytes)
    scarce = limited(convolutional, 10**9)
    decode_canvas(scarce, noise(1, 4, 8, 96).double())
    assert len(scarce.vae.seen) > 1 and max(scarce.vae.seen) <= 500


def test_memory_of_a_cell_is_what_a_larger_canvas_takes(convolutional):
    from syncdiffusion.memory import PeakMemory

    taken = []
    for width in (16, 48):
        with PeakMemory() as peak:
            convolutional.decode(noise(1, 4, 16, width).double())
        taken.append(peak.bytes)
    assert convolutional.decoder.cell_bytes == pytest.approx((taken[1] - taken[0]) / (16 * 32), rel=0.02)


def test_an_autoencoder_that_sees_the_whole_canvas_says_that_its_tiles_differ(tiny):
    canvas = noise(1, 4, 8, 96)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = decode_canvas(limited(tiny, 10**9), canvas)
    assert torch.equal(whole, tiny.decode(canvas))
    scarce = limited(tiny, 700)
    with pytest.warns(RuntimeWarning, match="decoded in 2 tiles; Limited sees the whole") as told:
        tiles = decode_canvas(scarce, canvas)
    assert "\n" not in str(told[0].message)
    assert 0 < (tiles - whole).abs().max()
    assert (tiles - whole).abs().mean() < 0.05  # of pixels in [0, 1] that vary by 0.33; 0.015 measured


def test_one_window_too_many_is_told_in_a_line(tiny):
    with pytest.raises(UsageError, match="^decoder: not even one window fits") as told:
        decode_canvas(limited(tiny, 0), noise(1, 4, 8, 96))
    assert "\n" not in str(told.value)
    with pytest.raises(UsageError, match="^decoder: not even one window fits"):  # it cannot be measured either
        decode_canvas(replace(tiny, vae=Limited(tiny.vae, 0)), noise(1, 4, 8, 96))


def test_a_ring_has_no_end(convolutional, tiny):
    """Where a ring is cut open is nothing that its picture shows; without wrapping it shows at both ends."""
    canvas = noise(1, 4, 8, 12).double()  # narrower than twice the reach: around more than once
    rolled = canvas.roll(5, dims=-1)
    ring = decode_canvas(convolutional, canvas, circular=True)
    assert ring.shape == (1, 3, 64, 96)
    assert (decode_canvas(convolutional, rolled, circular=True) - ring.roll(40, dims=-1)).abs().max() <= 1e-6
    flat, flat_rolled = decode_canvas(convolutional, canvas), decode_canvas(convolutional, rolled)
    assert (flat_rolled - flat.roll(40, dims=-1)).abs().max() > 0.01
    five_times = canvas.repeat(1, 1, 1, 5)
    middle = decode_canvas(convolutional, five_times)[..., 2 * 96 : 3 * 96]
    assert (ring - middle).abs().max() <= 1e-6


@pytest.mark.parametrize(
    ("name", "changes", "closed"),
    [
        ("multidiffusion", {"stride": 4}, False),
        ("multidiffusion", {"stride": 2, "loop_closure": "released"}, True),
        ("multidiffusion", {"stride": 4, "loop_closure": "full"}, True),
        ("spotdiffusion", {}, True),
        ("diffcollage", {}, False),
        ("diffcollage", {"ring": True}, True),
        ("blended_latent", {}, False),
    ],
)
def test_methods_whose_windows_wrap_around_are_decoded_as_rings(tiny, name, changes, closed):
    method = METHODS[name]
    settings = method.settings(height=64, width=128, steps=1, **changes)
    latents = method.sample_latents(tiny, ["a city"], [0], settings)
    images = method.generate(tiny, ["a city"], [0], settings)
    assert torch.equal(images, decode_canvas(tiny, latents, circular=closed))
    assert not torch.equal(images, decode_canvas(tiny, latents, circular=not closed))
