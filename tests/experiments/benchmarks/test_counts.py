"""FLOPs by adding up: against those of whole runs, and against Stable Diffusion's known counts."""

import csv

import pytest

from experiments.benchmarks.compare import Bench
from experiments.benchmarks.counts import counts
from experiments.benchmarks.run import main
from experiments.benchmarks.samplers import APPROXIMATIONS, LITERAL, MULTIDIFFUSION, SYNCDIFFUSION
from tests.metric_networks import load_or_skip


def test_they_are_what_whole_runs_take(tiny_case):
    """But for the text encoder, which a run needs once: a thousandth of the tiny model's work."""
    rows = {row["sampler"]: row for row in counts(tiny_case)}
    bench = Bench(tiny_case, tiny_case.load("cpu", "float32"), 1, 1.0, lambda what, seconds: None)
    for sampler in (SYNCDIFFUSION, LITERAL, MULTIDIFFUSION, *APPROXIMATIONS):
        bench.warm_up(sampler, tiny_case.timed[0])  # measures what memory a window takes, as every bench does first
        whole = bench.flops(sampler, tiny_case.timed[0])
        assert rows[sampler.name]["flops"] == pytest.approx(whole, rel=3e-3)
    assert rows["multidiffusion"]["times_multidiffusion"] == 1 < rows["syncdiffusion"]["times_multidiffusion"]


def test_stable_diffusions_size_is_counted_without_its_weights(tmp_path):
    """Per evaluation 1.61, 2.51 and 0.16 T forward, reckoned for PROTOCOL.md, section 5, by other means."""
    load_or_skip("lpips_vgg"), load_or_skip("lpips_alex")
    assert main(["--case", "sd2", "--device", "cpu", "--count", "--out", str(tmp_path)]) == 0
    with (tmp_path / "sd2_counts.csv").open() as file:
        rows = list(csv.DictReader(file))
    plain, pulled = rows[0], next(row for row in rows if row["sampler"] == "syncdiffusion" and row["first_n"] == "50")
    assert float(plain["unet"]) == 21 * 50 and plain["first_n"] == ""
    assert float(plain["flops"]) / (21 * 50) == pytest.approx(1.61e12, rel=3e-3)
    for network, each in (("decoder", 2.51e12), ("loss", 0.16e12)):
        assert float(pulled[f"flops_{network}"]) / float(pulled[network]) == pytest.approx(each, rel=3e-3)
