"""Seconds in pairs, FLOPs by counting, and the machine's own rate of multiplying matrices."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from experiments.common.resources import measure_cost
from syncdiffusion.conditioning.text import encode
from syncdiffusion.cost import NetworkCalls
from syncdiffusion.perceptual.distances import PerceptualLoss

if TYPE_CHECKING:
    from syncdiffusion.backbones.backbone import Backbone


@dataclass(frozen=True)
class Run:
    """Latents that a sampler made, its seconds, and the peak memory in bytes (see `experiments.common.resources`)."""

    latents: Tensor
    seconds: float
    peak_memory_bytes: int


@dataclass(frozen=True)
class Ratios:
    """Pairwise ratios of seconds, theirs over ours: above 1 ours is the faster."""

    median: float
    least: float
    most: float


def timed(function: Callable[[], Tensor], device: str) -> Run:
    """One run, measured; the latents come back on the CPU."""
    with measure_cost(device) as cost:
        latents = function()
    return Run(latents.detach().cpu(), cost.seconds, cost.peak_memory_bytes)


def alternate(
    ours: Callable[[], Run], theirs: Callable[[], Run], pairs: int, on_run: Callable[[int, Run], None] | None = None
) -> tuple[list[Run], list[Run]]:
    """Ours, theirs, ours, theirs ...: `pairs` of each, so that what slows the machine for a while slows both.

    on_run: told after every run which it was (0 ours, 1 theirs).
    """
    runs: tuple[list[Run], list[Run]] = ([], [])
    for _ in range(pairs):
        for which, function in enumerate((ours, theirs)):
            runs[which].append(function())
            if on_run is not None:
                on_run(which, runs[which][-1])
    return runs


def pairwise(ours: Sequence[Run], theirs: Sequence[Run]) -> Ratios:
    """The median of the ratios pair by pair, and the least and greatest of them."""
    ratios = [b.seconds / a.seconds for a, b in zip(ours, theirs, strict=True)]
    return Ratios(statistics.median(ratios), min(ratios), max(ratios))


def count_flops(function: Callable[[], object]) -> int:
    """FLOPs of `function`: two per multiply-add of convolutions and matrix products, backward passes included.

    Attention runs in its plain form meanwhile, since not every fused kernel is counted; the count is the same on
    every device.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def flops_of_each(backbone: "Backbone", loss: PerceptualLoss | None) -> NetworkCalls:
    """FLOPs of one evaluation of each network, forward and backward to its input, in the fields of `NetworkCalls`.

    One window [1, 4, s, s], guidance pair included; `loss` None leaves the perceptual network at 0.
    """
    latents = torch.zeros(1, backbone.channels, backbone.window, backbone.window)
    latents = latents.to(backbone.device, backbone.dtype)
    images = backbone.decode(latents).detach()
    told = encode(backbone, [""], "", 2.0)
    unet = forward_and_backward(lambda x: [backbone.predict_noise(x, 1, told)], latents)
    decoder = forward_and_backward(lambda x: [backbone.decode(x)], latents)
    seen = (0, 0)
    if loss is not None:
        with backbone.autocast():
            seen = forward_and_backward(loss.features, images)
    return NetworkCalls(*unet, *decoder, *seen)


def forward_and_backward(network: Callable[[Tensor], list[Tensor]], given: Tensor) -> tuple[int, int]:
    """FLOPs of `network`, and of the gradient of the sum of what it hands out, in its input."""
    with torch.no_grad():
        forward = count_flops(lambda: network(given))
    leaf = given.clone().requires_grad_()

    def both() -> Tensor:
        # a copy, for the counter cannot follow a module that is given a leaf itself
        return torch.autograd.grad(sum(each.sum() for each in network(leaf.clone())), leaf)[0]

    return forward, count_flops(both) - forward


def matmul_rate(
    device: torch.device, dtype: torch.dtype, repeats: int = 4, sizes: Sequence[int] | None = None, budget: float = 3.0
) -> float:
    """FLOP/s of a square matrix product: the best that any of `repeats` products of any of `sizes` reached.

    The best, not a middle one, because the machine can do it: what made another product slower (threads and kernels
    that had to start, caches, other processes) does not count against it.

    sizes: sides, the smallest first; by default 8192 on a GPU, where that is enough, and several on a CPU, where small
        products keep several cores waiting and which size is best depends on the caches.
    budget: seconds. On a CPU products that would take longer are left out; half precision is a hundred times slower.
    """
    gpu = device.type == "cuda"
    generator, started, best = torch.Generator().manual_seed(0), time.perf_counter(), 0.0
    for size in sizes or ((8192,) if gpu else (512, 1024, 2048, 4096)):
        a, b = (torch.randn(size, size, generator=generator).to(device, dtype) for _ in range(2))
        for _ in range(repeats):
            flops = 2 * size**3
            if best and not gpu and time.perf_counter() - started + flops / best > budget:
                return best
            best = max(best, flops / _product_seconds(a, b))
    return best


def _product_seconds(a: Tensor, b: Tensor) -> float:
    gpu = a.device.type == "cuda"
    if gpu:
        torch.cuda.synchronize(a.device)
    started = time.perf_counter()
    a @ b
    if gpu:
        torch.cuda.synchronize(a.device)
    return time.perf_counter() - started
