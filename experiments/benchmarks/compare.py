"""Ours against another sampler: first equal in float64, then timed in pairs, then one row for each of the two."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, fields, replace
from typing import Any

from torch import Tensor

from experiments.benchmarks.cases import Case
from experiments.benchmarks.samplers import Job, Sampler
from experiments.benchmarks.timing import Run, alternate, count_flops, flops_of_each, pairwise, timed
from syncdiffusion.backbones.backbone import Backbone
from syncdiffusion.cost import NetworkCalls
from syncdiffusion.perceptual.distances import load_perceptual
from syncdiffusion.sync import SyncDiffusionSettings

NETWORKS = [field.name for field in fields(NetworkCalls)]

OnRun = Callable[[str, float], None]  # (what ran, seconds)


@dataclass(frozen=True)
class Comparison:
    """ours and theirs on `settings`.

    timed_tolerance: None where the float64 check alone can tell (see Case).
    approximate: ours computes something else by intention, so that the latents cannot be equal.
    """

    name: str
    ours: Sampler
    theirs: Sampler
    settings: SyncDiffusionSettings
    timed_tolerance: float | None = None
    approximate: bool = False


@dataclass(frozen=True)
class Verdict:
    """Largest absolute difference of the latents, in the check and in the timed runs, and what is made of it.

    equal, and with it checked and tolerance: None for an approximation.
    """

    equal: bool | None
    checked: float | None
    timed: float
    difference: float
    tolerance: float | None
    source: str


class Bench:
    """One case on one loaded model.

    rate: FLOP/s that the machine reaches in a matrix product. on_run: told after every run.
    """

    def __init__(self, case: Case, backbone: Backbone, pairs: int, rate: float, on_run: OnRun) -> None:
        self.case, self.backbone, self.pairs, self.rate, self.on_run = case, backbone, pairs, rate, on_run
        self.each: dict[str | None, NetworkCalls] = {}
        self.whole: dict[tuple[str, SyncDiffusionSettings], int] = {}

    def job(self, settings: SyncDiffusionSettings) -> Job:
        return Job(self.backbone, self.case.prompt, self.case.seed, settings)

    def run(self, sampler: Sampler, settings: SyncDiffusionSettings, kind: str = "timed") -> Run:
        """One measured run, told to `on_run` as "kind sampler"."""
        done = timed(lambda: sampler.latents(self.job(settings)), str(self.backbone.device))
        self.on_run(f"{kind} {sampler.name}", done.seconds)
        return done

    def warm_up(self, sampler: Sampler, settings: SyncDiffusionSettings) -> None:
        """Two steps, the first of them synchronised."""
        self.run(sampler, replace(settings, steps=2, first_n=1), "warm-up")

    def flops(self, sampler: Sampler, settings: SyncDiffusionSettings) -> int:
        """FLOPs of a whole run, counted once in a pass of its own that is not timed; `warm_up` comes before it."""
        key, started = (sampler.name, settings), time.perf_counter()
        if key not in self.whole:
            self.whole[key] = count_flops(lambda: sampler.latents(self.job(settings)))
        self.on_run(f"count {sampler.name}", time.perf_counter() - started)
        return self.whole[key]

    def flops_of_networks(self, calls: NetworkCalls, loss: str) -> NetworkCalls:
        """FLOPs of `calls` network by network."""
        key = loss if calls.loss else None
        if key not in self.each:
            network = None if key is None else load_perceptual(key, self.backbone.device, self.backbone.dtype)
            self.each[key] = flops_of_each(self.backbone, network)
        pairs = zip(astuple(calls), astuple(self.each[key]), strict=True)
        return NetworkCalls(*(count * flops for count, flops in pairs))


def checked_differences(bench: Bench, ours: Sampler, others: Sequence[Sampler]) -> dict[str, float]:
    """Largest absolute difference of each other sampler's latents from ours, on the case's check."""
    reference = bench.run(ours, bench.case.check, "check").latents
    return {
        other.name: largest_difference(reference, bench.run(other, bench.case.check, "check").latents)
        for other in others
    }


def largest_difference(a: Tensor, b: Tensor) -> float:
    """max |a - b|; infinite where either is not a number or the shapes differ."""
    if a.shape != b.shape:
        return math.inf
    difference = float((a.double() - b.double()).abs().max())
    return difference if math.isfinite(difference) else math.inf


def judge(case: Case, checked: float, timed_difference: float, timed_tolerance: float | None) -> Verdict:
    """Equal where the check is within its tolerance and the timed latents are finite and, in float32, within theirs."""
    binding = timed_tolerance is not None and case.precision in ("float32", "float64")
    equal = checked <= case.check_tolerance and math.isfinite(timed_difference)
    if binding:
        equal = equal and timed_difference <= timed_tolerance
        return Verdict(equal, checked, timed_difference, timed_difference, timed_tolerance, "the timed runs")
    check = case.check
    source = f"float64 check, {check.height}x{check.width}, {check.steps} steps, first_n {check.first_n}"
    return Verdict(equal, checked, timed_difference, checked, case.check_tolerance, source)


def compare(bench: Bench, comparison: Comparison, checked: float | None = None) -> list[dict[str, Any]]:
    """Warm up, time in pairs, count; a row for ours and one for theirs.

    The ratio is empty where they ought to be equal and are not. checked: their difference in the float64 check.
    """
    settings, samplers = comparison.settings, (comparison.ours, comparison.theirs)
    for sampler in samplers:
        bench.warm_up(sampler, settings)
    runs = alternate(*(lambda s=sampler: bench.run(s, settings) for sampler in samplers), bench.pairs)
    difference = max(largest_difference(a.latents, b.latents) for a, b in zip(*runs, strict=True))
    if comparison.approximate:
        verdict = Verdict(None, None, difference, difference, None, "an approximation")
    else:
        verdict = judge(bench.case, checked, difference, comparison.timed_tolerance)
    ratios = (None,) * 3 if verdict.equal is False else astuple(pairwise(*runs))
    common = {
        **dict(zip(("ratio", "ratio_min", "ratio_max"), ratios, strict=True)),
        "equal": verdict.equal,
        "difference": verdict.difference,
        "tolerance": verdict.tolerance,
        "difference_from": verdict.source,
        "check_difference": verdict.checked,
        "timed_difference": verdict.timed,
    }
    return [
        {
            **described(bench, comparison.name, sampler, settings),
            **spent(own),
            **common,
            **run_counts(bench, sampler, settings, own),
        }
        for sampler, own in zip(samplers, runs, strict=True)
    ]


def described(bench: Bench, name: str, sampler: Sampler, settings: SyncDiffusionSettings) -> dict[str, Any]:
    """What a row is of."""
    return {
        "comparison": name,
        "sampler": sampler.name,
        "case": bench.case.name,
        "device": bench.backbone.device.type,
        "precision": bench.case.precision,
        **{each: getattr(settings, each) for each in ("height", "width", "stride", "steps", "first_n")},
        "window_batch": sampler.window_batch or settings.window_batch,
        "gradient_batch": sampler.window_batch or settings.gradient_batch,
    }


def spent(runs: Sequence[Run]) -> dict[str, Any]:
    """Median, least and most seconds of the runs, and their highest peak memory in bytes."""
    seconds = [run.seconds for run in runs]
    return {
        "runs": len(runs),
        "seconds": statistics.median(seconds),
        "seconds_min": min(seconds),
        "seconds_max": max(seconds),
        "peak_memory_bytes": max(run.peak_memory_bytes for run in runs),
    }


def run_counts(bench: Bench, sampler: Sampler, settings: SyncDiffusionSettings, runs: Sequence[Run]) -> dict[str, Any]:
    """NetworkCalls and FLOPs of each network, FLOPs in all, and the fraction of the machine's rate that was reached."""
    calls = sampler.calls(bench.job(settings))
    by_network = bench.flops_of_networks(calls, settings.loss)
    flops = bench.flops(sampler, settings)
    seconds = statistics.median(run.seconds for run in runs)
    return {
        **dict(zip(NETWORKS, astuple(calls), strict=True)),
        **{f"flops_{name}": value for name, value in zip(NETWORKS, astuple(by_network), strict=True)},
        "flops": flops,
        "matmul_tflops": bench.rate / 1e12,
        "fraction_of_matmul": flops / seconds / bench.rate,
    }
