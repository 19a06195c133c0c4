"""Where memory runs out, the windows at once are halved, the step goes on, and the latents are the same."""

from dataclasses import replace

import pytest
import torch

from syncdiffusion.errors import UsageError
from syncdiffusion.guidance import SyncDiffusionSettings, sample_latents
from syncdiffusion.joint import Batch, by_batches

# What PyTorch raises on a GPU, and on a CPU.
ERRORS = {
    "cuda": torch.OutOfMemoryError("CUDA out of memory."),
    "cpu": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:125] DefaultCPUAllocator: can't allocate memory: you tried ..."
    ),
}


@pytest.mark.parametrize("kind", ERRORS)
def test_batches_are_halved_for_good(kind):
    sizes = []

    def double(rows: torch.Tensor, more: torch.Tensor) -> torch.Tensor:
        sizes.append(len(rows))
        if len(rows) > 3:
            raise ERRORS[kind]
        return rows + more

    batch, rows = Batch(9), torch.arange(11.0)
    assert torch.equal(by_batches(double, batch, rows, rows), 2 * rows)
    assert sizes == [9, 4, 2, 2, 2, 2, 2, 1] and batch.size == 2
    sizes.clear()
    by_batches(double, batch, rows, rows)
    assert max(sizes) == 2  # the next step does not try again


def test_what_is_no_lack_of_memory_is_raised():
    def fail(rows: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        by_batches(fail, Batch(4), torch.zeros(4))


def test_one_window_too_many_is_told_in_a_line():
    def fail(rows: torch.Tensor) -> torch.Tensor:
        raise ERRORS["cuda"]

    with pytest.raises(UsageError, match="^window_batch=1: not even one window fits") as error:
        by_batches(fail, Batch(4), torch.zeros(5))
    assert "\n" not in str(error.value)


class Scarce(torch.nn.Module):
    """A UNet that takes two guided windows and no more, in its forward or in its backward pass."""

    def __init__(self, unet: torch.nn.Module, where: str):
        super().__init__()
        self.unet, self.where, self.config, self.refused = unet, where, unet.config, 0

    def forward(self, latents, *arguments, **options):
        if self.where == "forward" and len(latents) > 4:
            self.refuse()
        found = self.unet(latents, *arguments, **options)
        if self.where == "backward" and len(latents) > 4 and found.sample.requires_grad:
            found.sample.register_hook(lambda gradient: self.refuse())
        return found

    def refuse(self):
        self.refused += 1
        raise ERRORS["cuda"]


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_latents_after_running_out_of_memory_are_those_of_before(tiny, where):
    """Bit by bit: 4 windows become 2, and batches of 2 are what the other run has from the start."""
    canvas = {"height": 64, "width": 128, "stride": 2, "steps": 3, "guidance_scale": 3.0}
    chosen = SyncDiffusionSettings(**canvas, weight=5.0, first_n=2, loss="lpips_alex", window_batch=4)
    scarce, pulls, expected = replace(tiny, unet=Scarce(tiny.unet, where)), [], []
    latents = sample_latents(scarce, ["a city"], [0], chosen, on_pull=pulls.append)
    # Once for the gradient's batch, once for the denoising's, which has no backward pass.
    assert scarce.unet.refused == {"forward": 2, "backward": 1}[where]
    # The denoising's batch size matters to the last bit, too.
    same = replace(chosen, window_batch=2)
    if where == "forward":
        assert torch.equal(latents, sample_latents(tiny, ["a city"], [0], same, on_pull=expected.append))
    else:
        torch.testing.assert_close(latents, sample_latents(tiny, ["a city"], [0], same), atol=1e-4, rtol=0)
        sample_latents(tiny, ["a city"], [0], chosen, on_pull=expected.append)
    for ours, theirs in zip(pulls, expected, strict=True):
        assert ours.distances.shape == (1, 4)  # what the failed attempt saw is not told
        torch.testing.assert_close(ours.distances, theirs.distances, atol=1e-5, rtol=0)
