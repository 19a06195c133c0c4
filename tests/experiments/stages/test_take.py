"""Pictures made elsewhere, from their folder to the report: never changed, never made anew, paired only if they are."""

import hashlib
import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from experiments.metrics import networks
from experiments.metrics.inception import FeatureNetwork
from experiments.panoramas.index import read_index
from experiments.panoramas.records import Checksums
from experiments.results.numbers import comparisons
from experiments.results.study import read_results
from experiments.stages.sequence import run
from experiments.stages.take import take
from syncdiffusion.errors import UsageError
from tests.experiments.composing import compose_plan
from tests.experiments.metrics.conftest import picture

PROMPTS = ("a-photo-of-a-lake", "a city, by night")


def moments(crops: list[np.ndarray]) -> torch.Tensor:
    values = np.stack(crops).astype(np.float64) / 255
    return torch.from_numpy(np.concatenate([values.mean((1, 2)), values.std((1, 2))], axis=1))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two methods, two prompts, two seeds; one JPEG; two reference squares of each prompt."""
    monkeypatch.setattr(networks, "load_networks", lambda config: {"inception": FeatureNetwork("moments", moments)})
    for number, path in enumerate(
        tmp_path / "given" / method / prompt / f"{seed}.png"
        for method in ("ours", "theirs", "reference")
        for prompt in PROMPTS
        for seed in range(2)
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(number, 32, 32 if "reference" in path.parts else 96)).save(path)
    jpeg = tmp_path / "given" / "ours" / PROMPTS[0] / "0.png"
    Image.open(jpeg).save(jpeg.with_suffix(".jpg"))
    jpeg.unlink()
    return tmp_path / "given"


def plan_of(folder, *words: str):
    own = [f"pictures={folder}", f"run_dir={folder.parent / 'run'}", "shared_dir=null", "metrics.giqa_neighbours=2"]
    return compose_plan(["experiment=score", "metrics.metrics=[kid,giqa,seam_score]", *own, *words])


def digests(folder):
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_is_scored_and_reported_without_a_model(folder, capsys):
    before = digests(folder)
    run(plan_of(folder))
    results = read_results(folder.parent / "run")
    assert digests(folder) == before
    assert results.study.made_elsewhere and not results.study.shared_noise
    made = results.panoramas
    assert list(made["method"]) == ["ours", "theirs"] * 4 and made["seconds"].isna().all()
    kept = folder.parent / "run" / made["file"][1]
    assert kept.read_bytes() == (folder / "theirs" / PROMPTS[1] / "0.png").read_bytes()
    told = capsys.readouterr().out
    assert "pictures made elsewhere" in told and "steps" not in told and "rounded to 8 bits" not in told
    page = (folder.parent / "run" / "report" / "index.html").read_text()
    assert "not known: pictures made elsewhere" in page
    value = results.scores.set_index(["method", "prompt", "metric"])["value"]
    assert np.isfinite(value["ours", "all", "kid"]) and value["ours", "all", "kid"] != value["theirs", "all", "kid"]
    found = comparisons(results).set_index("metric")
    assert (found.loc["kid", "n"], found.loc["giqa", "n"]) == (8, 8)
    difference = value["theirs", "all", "kid"] - value["ours", "all", "kid"]
    assert found.loc["kid", "difference"] == pytest.approx(difference, rel=1e-9)
    assert 0 < found.loc["giqa", "p"] <= 1


def test_shared_noise_makes_pairs(folder):
    run(plan_of(folder, "shared_noise=true"))
    results = read_results(folder.parent / "run")
    assert set(results.swaps["n"]) == {4} and set(comparisons(results)["n"]) == {4}
    assert "on the same prompts and noise" in (folder.parent / "run" / "table.md").read_text()


def test_what_is_there_is_never_overwritten(folder):
    plan = plan_of(folder)
    assert take(plan, Checksums()) == 12
    assert take(plan, Checksums()) == 0
    index = read_index(plan)
    assert len(index.panoramas) == 8 and len(index.references) == 4 and not index.missing
    jpeg = next(each for each in index.panoramas if each.record["imported"]["file"] == "0.jpg")
    source = np.asarray(Image.open(folder / "ours" / PROMPTS[0] / "0.jpg"))
    assert np.array_equal(np.asarray(Image.open(jpeg.png)), source)
    record = json.loads(jpeg.png.with_suffix(".json").read_text())
    assert (record["seconds"], record["model"]["id"], record["width"]) == (None, "unknown", 96)
    Image.new("RGB", (96, 32)).save(folder / "ours" / PROMPTS[1] / "0.png")
    before = digests(folder.parent / "run")
    with pytest.raises(UsageError, match="is another picture than .* and is kept; give another run_dir"):
        take(plan_of(folder), Checksums())
    assert digests(folder.parent / "run") == before


def test_a_damaged_picture_is_told_and_left_out(folder, capsys):
    broken = folder / "theirs" / PROMPTS[0] / "1.png"
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(UsageError, match="strict=true: 1 pictures could not be read"):
        run(plan_of(folder, "strict=true", "stage=all"))
    run(plan_of(folder))
    told = capsys.readouterr().err
    assert f"{broken}: cannot be read (damaged, or no picture); it is left out" in told
    assert "score: 1 pictures could not be read; the others are scored" in told
    assert len(pd.read_csv(folder.parent / "run" / "panoramas.csv")) == 7


def test_without_references_the_others_are_scored(folder, capsys):
    for path in (folder / "reference").rglob("*.png"):
        path.unlink()
    run(plan_of(folder, "metrics.metrics=[kid,seam_score]"))
    assert "no reference pictures: kid are left out" in capsys.readouterr().err


def test_a_run_of_this_repository_is_taken_with_its_costs(compose, folder):
    from experiments.stages.generate import generate

    made = compose("reference.count=2")
    generate(made)
    (made.folder / "config.yaml").write_text("")  # what tells a run folder; written by a whole run
    plan = plan_of(made.folder, f"run_dir={folder.parent / 'again'}", "shared_noise=true")
    run(plan)
    results = read_results(plan.folder)
    assert set(results.panoramas["method"]) == {"multidiffusion", "blended_latent"}
    assert (results.panoramas["seconds"] > 0).all() and results.study.reference_count == 2
    assert set(results.study.prompts) == set(made.prompts)
    assert set(results.scores["metric"]) == {"kid", "giqa"}  # nobody knows where windows met


def test_a_run_folder_of_two_settings_is_refused(compose, folder):
    """Gone on with at other settings, it holds pictures of both; scored as one method they would be nobody's."""
    from experiments.stages.generate import generate

    generate(compose("reference.count=0"))
    (compose().folder / "config.yaml").write_text("")
    assert plan_of(compose().folder, f"run_dir={folder.parent / 'again'}").units
    generate(compose("reference.count=0", "seeds.count=1", "method.steps=2"))
    with pytest.raises(UsageError, match="multidiffusion holds pictures made with steps=[23] and [23]; take those"):
        plan_of(compose().folder, f"run_dir={folder.parent / 'again'}")


def test_what_is_refused_changes_nothing_that_a_finished_run_says(compose, known_scores):
    plan = compose("tracking=disabled", "metrics.metrics=[seam_score]", "reference.count=0")
    run(plan)
    before = digests(plan.folder)
    with pytest.raises(UsageError, match="scores.csv is of other panoramas"):
        run(compose("tracking=disabled", "seeds.count=1", "stage=report"))
    assert digests(plan.folder) == before
