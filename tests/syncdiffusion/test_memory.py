"""Where memory runs out, the windows at once are halved, the step goes on, and the latents are the same."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from baselines import METHODS
from baselines.stable_diffusion import StableDiffusionSettings
from syncdiffusion import memory
from syncdiffusion.errors import UsageError
from syncdiffusion.memory import Batch, PeakMemory, by_batches, fitting, free_memory
from syncdiffusion.settings import AUTO
from syncdiffusion.sync import METHOD, SyncDiffusionSettings
from tests.metric_networks import load_or_skip

# What PyTorch raises on a GPU, and on a CPU.
ERRORS = {
    "cuda": torch.OutOfMemoryError("CUDA out of memory."),
    "cpu": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:125] DefaultCPUAllocator: can't allocate memory: you tried ..."
    ),
    "oneDNN": RuntimeError("could not create a primitive"),
}


def test_a_process_may_have_a_limit_of_its_own(monkeypatch):
    """`ulimit -v`; without one, and with one that is far away, the machine's free memory counts."""
    import psutil

    resource = pytest.importorskip("resource")
    cpu, taken = torch.device("cpu"), psutil.Process().memory_info().vms
    for limit, most in ((taken + 10**8, 0.5e8), (1, 0.0)):
        monkeypatch.setattr(resource, "getrlimit", lambda kind, limit=limit: (limit, limit))
        assert 0 <= free_memory(cpu) <= most
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert free_memory(cpu) == pytest.approx(0.5 * psutil.virtual_memory().available, rel=0.2)


def group(folder: Path, limit: str, usage: str, **values: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / limit).write_text(f"{values['most']}\n")
    (folder / usage).write_text(f"{values['taken']}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{values['name']} {values['cache']}\n")


def test_what_containers_and_clusters_leave_to_a_process(tmp_path, monkeypatch):
    """Its own group's limit and every higher one's, less what is taken but for cache; both versions of the kernel's."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/job/step\n")
    two, root = ("memory.max", "memory.current"), tmp_path / "sys/fs/cgroup"
    group(root / "job/step", *two, most="max", taken=30, cache=1, name="inactive_file")
    group(root / "job", *two, most=100, taken=70, cache=20, name="inactive_file")
    assert memory._left_to_groups(tmp_path) == [50]
    (tmp_path / "proc/self/cgroup").write_text("5:cpuset:/\n4:memory:/docker/a\n0::/nowhere\n")
    one = ("memory.limit_in_bytes", "memory.usage_in_bytes")
    group(root / "memory/docker/a", *one, most=10, taken=90, cache=0, name="total_inactive_file")
    assert memory._left_to_groups(tmp_path) == [0]  # beyond its limit already
    assert memory._left_to_groups(tmp_path / "no-linux") == []
    monkeypatch.setattr(memory, "_left_to_groups", lambda: [1e6])
    assert free_memory(torch.device("cpu")) == 0.5e6


@pytest.mark.parametrize("kind", ERRORS)
def test_batches_are_halved_for_good(kind):
    sizes = []

    def double(rows: torch.Tensor, more: torch.Tensor) -> tuple[torch.Tensor]:
        sizes.append(len(rows))
        if len(rows) > 3:
            raise ERRORS[kind]
        return (rows + more,)

    batch, rows = Batch(9), torch.arange(11.0)
    assert torch.equal(by_batches(double, batch, rows, rows)[0], 2 * rows)
    assert sizes == [9, 4, 2, 2, 2, 2, 2, 1] and batch.size == 2
    sizes.clear()
    by_batches(double, batch, rows, rows)
    assert max(sizes) == 2  # the next step does not try again


def test_what_is_no_lack_of_memory_is_raised():
    def fail(rows: torch.Tensor) -> tuple[torch.Tensor]:
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        by_batches(fail, Batch(4), torch.zeros(4))


def test_one_window_too_many_is_told_in_a_line():
    def fail(rows: torch.Tensor) -> tuple[torch.Tensor]:
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


def test_peak_memory_counts_what_lives_at_once():
    """float32: 4 bytes each. `a` was there before; views and operations in place take nothing."""
    a = torch.zeros(1000)
    with PeakMemory() as peak:
        b = a + 1  # 4,000
        c = b * 2  # 8,000
        del b
        d = c - 1  # 8,000 again
        d.view(10, 100).add_(1)
    assert peak.bytes == 8000
    x = torch.rand(100, requires_grad=True)
    with PeakMemory() as with_gradient:
        torch.autograd.grad(x.exp().exp().exp().sum(), x)
    with PeakMemory() as without, torch.no_grad():
        x.exp().exp().exp().sum()
    # Three kept results, the sum and what flows back against two at a time and the sum.
    assert 1700 >= with_gradient.bytes >= 1200 > without.bytes >= 800


def test_auto_measures_one_row_and_takes_what_fits(monkeypatch):
    sizes = []

    def grow(rows: torch.Tensor) -> tuple[torch.Tensor]:
        sizes.append(len(rows))
        return (rows.unsqueeze(1).expand(-1, 250).clone(),)  # 1,000 bytes a row

    monkeypatch.setattr("syncdiffusion.memory.free_memory", lambda device: 4999.0)
    batch = Batch(AUTO)
    assert by_batches(grow, batch, torch.arange(10.0))[0].shape == (10, 250)
    assert sizes == [1, 4, 4, 2] and batch.size == 4  # the first row once more, with its company
    sizes.clear()
    known: dict = {}
    for kind in ("this", "this", "that"):
        batch = Batch(AUTO, kind=(kind,), known=known)
        assert by_batches(grow, batch, torch.arange(4.0))[0].shape == (4, 250)
    assert sizes == [1, 4, 4, 1, 4]  # the same kind of work is measured once
    assert fitting(1000, 10) == 1  # never none


def test_checkpointing_changes_memory_and_not_the_result(tiny):
    load_or_skip("lpips_alex")
    canvas = {"height": 64, "width": 128, "stride": 4, "steps": 3, "guidance_scale": 3.0, "gradient_batch": 2}
    plain = SyncDiffusionSettings(**canvas, weight=5.0, first_n=2, loss="lpips_alex")
    latents, bytes_taken = [], []
    for checkpointing in (False, True):
        with PeakMemory() as peak:
            latents.append(METHOD.sample_latents(tiny, ["a city"], [0], replace(plain, checkpointing=checkpointing)))
        bytes_taken.append(peak.bytes)
    assert torch.equal(*latents)
    assert bytes_taken[1] < 0.8 * bytes_taken[0]


class Overflowing(torch.nn.Module):
    """A UNet whose prediction is infinite for the first of its windows, while the lower precision runs."""

    def __init__(self, unet: torch.nn.Module, always: bool):
        super().__init__()
        self.unet, self.always, self.config = unet, always, unet.config

    def forward(self, latents, *arguments, **options):
        found = self.unet(latents, *arguments, **options)
        if self.always or torch.is_autocast_enabled("cpu"):
            mask = torch.zeros_like(found.sample)
            mask[0] = torch.inf
            found.sample = found.sample + mask
        return found


def test_what_overflows_is_done_again_in_float32(tiny):
    """The first window of every batch, with all of its gradient: as if it had been float32 from the start."""
    load_or_skip("lpips_alex")
    canvas = {"height": 64, "width": 96, "stride": 4, "steps": 2, "guidance_scale": 3.0}
    chosen = SyncDiffusionSettings(**canvas, weight=5.0, loss="lpips_alex", window_batch=1, gradient_batch=1)
    low = replace(tiny, precision="bfloat16")
    with pytest.warns(RuntimeWarning, match="1 of 1 windows were not finite; they were done again in float32"):
        latents = METHOD.sample_latents(
            replace(low, unet=Overflowing(tiny.unet, always=False)), ["a city"], [0], chosen
        )
    torch.testing.assert_close(latents, METHOD.sample_latents(tiny, ["a city"], [0], chosen), atol=1e-5, rtol=0)
    assert (
        latents - METHOD.sample_latents(low, ["a city"], [0], chosen)
    ).abs().max() > 1e-3  # bfloat16 itself is far off


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_is_never_finite_ends_in_a_line(tiny, precision):
    broken = replace(tiny, unet=Overflowing(tiny.unet, always=True), precision=precision)
    chosen = SyncDiffusionSettings(height=64, width=96, stride=4, steps=1, weight=0.0)
    with pytest.raises(UsageError, match=f"^precision={precision}: 1 of 2 windows were not finite") as error:
        METHOD.sample_latents(broken, ["a city"], [0], replace(chosen, window_batch=5))
    assert "\n" not in str(error.value)


def test_squares_without_windows_are_guarded_too(tiny):
    broken = replace(tiny, unet=Overflowing(tiny.unet, always=True))
    chosen = StableDiffusionSettings(height=64, width=64, steps=1)
    with pytest.raises(UsageError, match="^precision=float32: 1 of 2 windows were not finite"):
        METHODS["stable_diffusion"].sample_latents(broken, ["a city", "a lake"], [0, 0], chosen)


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_latents_after_running_out_of_memory_are_those_of_before(tiny, where):
    """Bit by bit: 4 windows become 2, and batches of 2 are what the other run has from the start."""
    canvas = {"height": 64, "width": 128, "stride": 2, "steps": 3, "guidance_scale": 3.0}
    chosen = SyncDiffusionSettings(**canvas, weight=5.0, first_n=2, loss="lpips_alex", window_batch=4, gradient_batch=4)
    scarce, pulls, expected = replace(tiny, unet=Scarce(tiny.unet, where)), [], []
    latents = METHOD.sample_latents(scarce, ["a city"], [0], chosen, on_pull=pulls.append)
    # Once for the gradient's batch, once for the denoising's, which has no backward pass.
    assert scarce.unet.refused == {"forward": 2, "backward": 1}[where]
    # The denoising's batch size matters to the last bit, too.
    same = replace(chosen, window_batch=2, gradient_batch=2)
    if where == "forward":
        assert torch.equal(latents, METHOD.sample_latents(tiny, ["a city"], [0], same, on_pull=expected.append))
    else:
        torch.testing.assert_close(latents, METHOD.sample_latents(tiny, ["a city"], [0], same), atol=1e-4, rtol=0)
        METHOD.sample_latents(tiny, ["a city"], [0], chosen, on_pull=expected.append)
    for ours, theirs in zip(pulls, expected, strict=True):
        assert ours.distances.shape == (1, 4)  # what the failed attempt saw is not told
        torch.testing.assert_close(ours.distances, theirs.distances, atol=1e-5, rtol=0)
