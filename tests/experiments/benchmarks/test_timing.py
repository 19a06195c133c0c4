"""Alternation and ratios on a clock of our own; FLOPs against what can be reckoned by hand."""

import time
from dataclasses import astuple
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from experiments.benchmarks import timing
from experiments.benchmarks.samplers import LITERAL, MULTIDIFFUSION, SYNCDIFFUSION, Job, panorama
from experiments.benchmarks.timing import alternate, count_flops, flops_of_each, matmul_rate, pairwise, timed
from experiments.common import resources as cost
from syncdiffusion.perceptual.distances import load_perceptual

CPU = torch.device("cpu")


class Clock:
    """Stands still but for what the functions under test take."""

    def __init__(self) -> None:
        self.now, self.order = 100.0, []

    def perf_counter(self) -> float:
        return self.now

    def taking(self, name: str, *seconds: float):
        left = list(seconds)

        def function() -> torch.Tensor:
            self.order.append(name)
            self.now += left.pop(0)
            return torch.ones(1)

        return lambda: timed(function, "cpu")


def test_runs_alternate_and_the_ratio_is_the_median_of_the_pairs(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(cost, "time", SimpleNamespace(perf_counter=clock.perf_counter))
    told = []
    ours, theirs = clock.taking("ours", 1.0, 2.0, 10.0), clock.taking("theirs", 3.0, 4.0, 50.0)
    runs = alternate(ours, theirs, 3, lambda which, run: told.append((which, run.seconds)))
    assert clock.order == ["ours", "theirs"] * 3
    assert told == [(0, 1.0), (1, 3.0), (0, 2.0), (1, 4.0), (0, 10.0), (1, 50.0)]
    # pair by pair 3, 2 and 5; the ratio of the medians would be 2, that of the sums 57 / 13
    assert astuple(pairwise(*runs)) == (3.0, 2.0, 5.0)


def test_flops_of_a_product_and_a_convolution_are_the_analytic_count():
    a, b = torch.zeros(5, 7), torch.zeros(7, 11)
    assert count_flops(lambda: a @ b) == 2 * 5 * 7 * 11
    images, kernel = torch.zeros(2, 3, 8, 10), torch.zeros(4, 3, 3, 3)
    forward = 2 * (2 * 4 * 8 * 10) * (3 * 3 * 3)
    assert count_flops(lambda: functional.conv2d(images, kernel, padding=1)) == forward
    leaf = images.clone().requires_grad_()
    gradient = lambda: torch.autograd.grad(functional.conv2d(leaf, kernel, padding=1).sum(), leaf)  # noqa: E731
    assert count_flops(gradient) == 2 * forward  # backward to the input alone: the kernel is frozen
    query = torch.zeros(1, 2, 6, 4)
    attention = 2 * (2 * 2 * 6 * 6 * 4)  # two products for each of two heads
    assert count_flops(lambda: functional.scaled_dot_product_attention(query, query, query)) == attention


@pytest.mark.parametrize("sampler", [SYNCDIFFUSION, LITERAL, MULTIDIFFUSION, panorama(2)], ids=lambda s: s.name)
def test_calls_times_the_flops_of_each_are_the_flops_of_a_whole_run(tiny, tiny_case, sampler):
    """Two independent counts: a wrong number of calls, or a network that is left out, parts them."""
    task = Job(tiny, tiny_case.prompt, tiny_case.seed, tiny_case.timed[0])
    each = flops_of_each(tiny, load_perceptual("lpips_alex"))
    calls = sampler.calls(task)
    assert each.unet > 0 and each.decoder_backward > 0 and each.loss_backward > 0
    expected = sum(count * flops for count, flops in zip(astuple(calls), astuple(each), strict=True))
    sampler.latents(task)  # what memory a window takes is measured once for a model, and is no work of a run
    prompts = count_flops(lambda: tiny.encode_prompts([""]))
    whole = count_flops(lambda: sampler.latents(task))
    assert whole == expected + 2 * prompts


def products(monkeypatch, rate_of) -> list[int]:
    """Products take the seconds that `rate_of(side, repeat)` in FLOP/s gives them; returns the sides, as they come."""
    sides: list[int] = []

    def seconds(a: torch.Tensor, b: torch.Tensor) -> float:
        (side,) = {*a.shape, *b.shape}
        sides.append(side)
        return 2 * side**3 / rate_of(side, sides.count(side))

    monkeypatch.setattr(timing, "_product_seconds", seconds)
    return sides


def test_the_rate_is_the_best_of_all_sizes_and_repeats(monkeypatch):
    rates = {(10, 1): 1e8, (10, 2): 3e8, (20, 1): 2e8, (20, 2): 7e8, (30, 1): 5e8, (30, 2): 4e8}
    sides = products(monkeypatch, lambda *product: rates[product])
    assert matmul_rate(CPU, torch.float32, repeats=2, sizes=(10, 20, 30)) == pytest.approx(7e8)
    assert sides == [10, 10, 20, 20, 30, 30]


def test_what_would_take_too_long_on_a_cpu_is_left_out(monkeypatch):
    """At 1 GFLOP/s the product of 1024 takes two seconds, beyond the second that is left for it."""
    sides = products(monkeypatch, lambda *product: 1e9)
    assert matmul_rate(CPU, torch.float32, repeats=2, sizes=(64, 1024, 2048), budget=1.0) == pytest.approx(1e9)
    assert sides == [64, 64]


def test_the_rate_is_of_this_clock():
    """No less than what products in a row reach; the factor is for other processes on the machine."""
    a = torch.ones(256, 256)
    started = time.perf_counter()
    for _ in range(20):
        a @ a
    in_a_row = 20 * 2 * 256**3 / (time.perf_counter() - started)
    assert matmul_rate(CPU, torch.float32, repeats=20, sizes=(256,)) > in_a_row / 5
