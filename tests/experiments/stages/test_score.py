"""The scoring stage: its four files, exact numbers in them, and features that runs share."""

import io
import time

import numpy as np
import pandas as pd
import pytest
import torch

from experiments.common.progress import report_images
from experiments.metrics import networks
from experiments.metrics.config import MetricsConfig
from experiments.metrics.inception import FeatureNetwork
from experiments.metrics.score import PanoramaImage, score_panoramas
from experiments.panoramas.index import read_index
from experiments.results.study import read_results, study_of
from experiments.stages.generate import generate
from experiments.stages.score import score
from experiments.stages.score_files import keep_panoramas, read_scores
from experiments.stages.sequence import run
from syncdiffusion.errors import UsageError

OPTIONS = ["reference.count=2", "metrics.giqa_neighbours=2", "metrics.metrics=[fid,kid,giqa]"]


@pytest.fixture
def shown(monkeypatch) -> list[int]:
    """One entry per crop that the only network, a stand-in for Inception, has seen."""
    seen: list[int] = []

    def embed(crops: list[np.ndarray]) -> torch.Tensor:
        seen.extend(range(len(crops)))
        values = np.stack(crops).astype(np.float64)
        return torch.from_numpy(np.concatenate([values.mean((1, 2)), values.std((1, 2))], axis=1) / 7)

    found = {"inception": FeatureNetwork("colour moments", embed)}
    monkeypatch.setattr(networks, "load_networks", lambda config: found)
    return seen


def test_weights_that_cannot_be_had_end_a_run_before_its_first_panorama(compose, monkeypatch):
    def refuse(config):
        raise UsageError("weights of vgg19 cannot be had")

    monkeypatch.setattr(networks, "find_networks", refuse)
    with pytest.raises(UsageError, match="vgg19 cannot be had; or stage=generate, which needs no metric"):
        run(compose())
    assert not list(compose().folder.rglob("*.png"))
    run(compose("stage=generate", "prompts.texts=[hills]", "seeds.count=1", "reference.count=0"))
    assert len(list(compose().folder.rglob("panoramas/*/*/*.png"))) == 2


def test_the_files_hold_the_numbers_exactly(compose, shown):
    plan = compose(*OPTIONS, "seeds.count=4")
    generate(plan)
    score(plan, read_index(plan))
    results = read_results(plan.folder)
    assert results.study == study_of(plan)
    images = [PanoramaImage(unit.prompt, unit.seed, unit.label, unit.png(plan.folder)) for unit in plan.units]
    reference = [PanoramaImage(unit.prompt, unit.seed, unit.label, unit.png(plan.folder)) for unit in plan.references]
    config = MetricsConfig(**plan.metrics)
    expected = score_panoramas(images, reference, config, networks.load_networks(config), against=plan.compare_with)
    assert list(results.scores.columns) == ["method", "prompt", "metric", "value", "stderr", "n", "network"]
    assert list(results.replicates.columns) == ["method", "replicate", "metric", "value", "n", "network"]
    assert set(results.swaps["metric"]) == {"fid", "kid", "giqa"} and set(results.swaps["n"]) == {8}
    frames = (results.scores, results.replicates, results.swaps)
    for frame, rows in zip(frames, (expected.scores, expected.replicates, expected.swaps), strict=True):
        whole = pd.DataFrame(rows, columns=frame.columns)
        if "freedom" in whole:  # None of pairs, which in a column of nothing else is an object to pandas
            whole = whole.astype({"freedom": float})
        pd.testing.assert_frame_equal(frame, whole, check_exact=True)
    assert set(results.replicates["replicate"]) == {0, 1}  # of two seeds each
    digits = results.scores["value"].map(lambda value: len(repr(value)))
    assert digits.max() > 15  # else the test of exactness tests nothing


def test_metrics_that_find_nothing_to_measure_are_told(compose, shown, capsys):
    """One panorama and no reference image make no set, and in a canvas of one window none meet."""
    options = ["seeds.count=1", "reference.count=0", "width=64", "metrics.metrics=[fid,kid,seam_score,edge_score]"]
    plan = compose(*options)
    generate(plan)
    score(plan, read_index(plan))
    told = [line for line in capsys.readouterr().err.splitlines() if "without a number" in line]
    assert [line.split("; wanted: ")[0] for line in told] == [
        "score: without a number: fid, kid",
        "score: without a number: seam_score",
    ]


def test_features_are_shared_by_runs_and_else_stay_in_the_run_folder(compose, shown, tmp_path):
    first, other = compose(*OPTIONS), compose(*OPTIONS, f"run_dir={tmp_path / 'other'}", "seeds.first=1")
    alone = compose(*OPTIONS, f"run_dir={tmp_path / 'alone'}", "shared_dir=null")
    for plan in (first, other, alone):
        generate(plan)
    score(first, read_index(first))
    assert len(shown) == 8 + 4
    values = (first.folder / "scores.csv").read_bytes()
    score(first, read_index(first))
    assert len(shown) == 12 and (first.folder / "scores.csv").read_bytes() == values
    score(other, read_index(other))  # seeds 1 and 2: one of two is known
    assert len(shown) == 12 + 4
    assert (first.shared / "features").is_dir() and not (first.folder / "features").exists()
    score(alone, read_index(alone))
    assert len(shown) == 16 + 12
    assert (alone.folder / "features").is_dir() and (alone.folder / "scores.csv").read_bytes() == values


def test_scores_go_where_a_panorama_was_made_anew(compose, known_scores):
    plan = compose()
    generate(plan)
    score(plan, read_index(plan))
    before = {path.name: path.read_bytes() for path in plan.folder.glob("*.csv")}
    assert {"panoramas.csv", "scores.csv", "replicates.csv", "swaps.csv"} == before.keys()
    generate(plan)
    keep_panoramas(plan.folder, read_index(plan))
    assert {path.name: path.read_bytes() for path in plan.folder.glob("*.csv")} == before
    changed = compose("steps=2")
    generate(changed)
    keep_panoramas(changed.folder, read_index(changed))
    assert [path.name for path in plan.folder.glob("*.csv")] == ["panoramas.csv"]
    assert "intra_lpips" not in pd.read_csv(plan.folder / "panoramas.csv")


def test_time_left_is_told_at_the_pace_of_late(monkeypatch):
    now, stream = [0.0], io.StringIO()
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    say = report_images("score", stream, every=10.0)
    # the first image waits 100 s for the networks, 100 are found again within a second, then one takes 5 s
    for done in range(1, 141):
        now[0] += 100 if done == 1 else 0.01 if done <= 101 else 5
        say(done, 200)
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("score: 103/200 images; ")
    # six lines ago 10 images less were done
    assert lines[-1] == "score: 139/200 images; 5 min 05 s left"


def test_scores_go_where_a_reference_image_was_made_anew(compose, shown):
    plan = compose(*OPTIONS)
    generate(plan)
    score(plan, read_index(plan))
    other = compose(*OPTIONS, "reference.settings.steps=2")
    generate(other)
    with pytest.raises(UsageError, match="scores.csv is of other reference images than those there; run stage=score"):
        read_scores(plan.folder, read_index(other))
    keep_panoramas(plan.folder, read_index(other))
    assert not (plan.folder / "scores.csv").exists()
    score(other, read_index(other))
    read_scores(plan.folder, read_index(other))


def test_precision_of_other_panoramas_is_named(compose, tiny_settings):
    """What `auto` means on a machine without a GPU is not what the others of a run have made."""
    plan = compose("backbone.precision=bfloat16")
    generate(plan)
    other = compose()  # auto: float32 here
    assert other.backbone["precision"] == "float32"
    with pytest.raises(UsageError, match="no panorama of these settings there; .* give backbone.precision=bfloat16$"):
        score(other, read_index(other))
    changed = compose("prompts.texts=[hills by the sea,a lake]")
    with pytest.raises(UsageError, match="^backbone.precision=auto: float32 here, .* in bfloat16; give"):
        generate(changed)
    assert generate(compose("backbone.precision=float32", "reference.count=0", "seeds.count=1")) == 4
