"""The dry run: counts against what a run then makes, times against rates worked out by hand."""

import pytest

from experiments.panoramas.store import Unit
from experiments.stages.estimate import estimate
from experiments.stages.generate import generate
from experiments.stages.work import KnownTime, predict
from tests.experiments.composing import compose_plan


def counts(text: str) -> dict[str, tuple[int, int]]:
    """Method -> (to make, there)."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")
    ]
    return {row[0]: (int(row[1]), int(row[2])) for row in rows[1:]}


def test_counts_what_is_made_afterwards(compose):
    plan = compose("dry_run=true")
    before = counts(estimate(plan))
    assert before == {
        "multidiffusion": (4, 0),
        "blended_latent": (4, 0),
        "stable_diffusion": (2, 0),
        "in all": (10, 0),
    }
    assert not plan.folder.exists()
    assert generate(plan) == before["in all"][0]
    assert counts(estimate(plan))["in all"] == (0, 10)


def test_a_picture_of_two_labels_is_counted_once(compose):
    """Two labels whose settings come to the same share their pictures: to be made once, told once."""
    plan = compose("dry_run=true", "+variants.same={}", "shared_dir=null")
    before = estimate(plan)
    assert counts(before) == {
        "multidiffusion": (4, 0),
        "same": (0, 0),
        "blended_latent": (4, 0),
        "stable_diffusion": (2, 0),
        "in all": (10, 0),
    }
    assert "settings come to the same: 4 of same (under multidiffusion)." in before
    pixels = 8 * 192 * 64 + 2 * 64 * 64
    assert f"Disk: {pixels * 1.5 / 2**20:,.0f} MiB" in before
    assert generate(plan) == 10 and len(plan.units) == 12
    assert counts(estimate(plan))["in all"] == (0, 10)


def test_seconds_are_the_mean_where_measured_and_the_rate_elsewhere():
    plan = compose_plan(["experiment=ablation_weight", "ablations.weight=[5,10]", "seeds.count=1"])
    pulled, stronger = plan.units[0], plan.units[1]
    plain = next(unit for unit in plan.units if unit.label == "multidiffusion")
    known = [KnownTime("multidiffusion", plain.settings, seconds) for seconds in (20.0, 22.0)]
    assert predict([plain, plain], plan.backbone, known) == pytest.approx(42)
    assert predict([pulled], plan.backbone, known) is None  # a pull was never measured
    known.append(KnownTime("syncdiffusion", pulled.settings, 100.0))
    assert predict([pulled], plan.backbone, known) == pytest.approx(100)
    # Another weight takes the same work, which the fit of two rates meets exactly.
    assert predict([stronger], plan.backbone, known) == pytest.approx(100)
    # 21 windows, 25 steps at 21 seconds: 0.04 s a plain window; half the steps take half.
    half = Unit(plain.label, plain.method, {**plain.settings, "steps": 5}, plain.prompt, 0)
    assert predict([half], plan.backbone, known) == pytest.approx(21 / 5)
