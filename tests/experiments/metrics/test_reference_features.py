"""Features of reference images in a file: the same numbers as from the images, or a refusal."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from experiments.metrics import networks
from experiments.metrics.config import MetricsConfig
from experiments.metrics.estimates import ImageSet
from experiments.metrics.features import INCEPTION
from experiments.metrics.inception import FeatureNetwork
from experiments.metrics.measure import BoundMeasurement
from experiments.metrics.reference_features import facts_of, read_features, save_features
from experiments.panoramas.index import read_index
from experiments.stages.generate import generate
from experiments.stages.score import score
from syncdiffusion.errors import UsageError

OPTIONS = ["metrics.giqa_neighbours=2", "metrics.metrics=[fid,kid,giqa]"]


def moments(crops: list[np.ndarray]) -> torch.Tensor:
    values = np.stack(crops).astype(np.float64) / 255
    return torch.from_numpy(np.concatenate([values.mean((1, 2)), values.std((1, 2))], axis=1))


@pytest.fixture(autouse=True)
def network(monkeypatch) -> None:
    monkeypatch.setattr(networks, "load_networks", lambda config: {"inception": FeatureNetwork("moments", moments)})


def bound() -> BoundMeasurement:
    return BoundMeasurement(INCEPTION, MetricsConfig(crop=64), FeatureNetwork("moments", moments, "abc"))


def test_of_images_of_different_sizes_what_has_no_array_is_left_out(tmp_path):
    uneven = np.empty(2, dtype=object)
    uneven[:] = [np.ones((2, 3)), np.ones((3, 3))]
    sets = {"whole": ImageSet(np.ones((2, 3)), ("p", "p")), "grid": ImageSet(uneven, ("p", "p"))}
    save_features(tmp_path / "squares.safetensors", sets, {"whole": {}, "grid": {}})
    assert set(read_features(tmp_path / "squares.safetensors").sets) == {"whole"}


def test_another_run_has_the_same_scores_without_the_squares(compose, tmp_path, capsys):
    file = tmp_path / "features" / "squares.safetensors"
    first = compose(*OPTIONS, "reference.count=3", f"reference.features={file}")
    generate(first)
    score(first, read_index(first))
    assert f"reference features are written to {file}" in capsys.readouterr().err
    content = file.read_bytes()
    second = compose(*OPTIONS, f"reference.features={file}", f"run_dir={tmp_path / 'second'}")
    assert second.references == () and second.resolved["reference"]["count"] == 3
    generate(second)
    assert not (second.folder / "panoramas" / "stable_diffusion").exists()
    score(second, read_index(second))
    for name in ("scores.csv", "replicates.csv", "swaps.csv"):
        assert (second.folder / name).read_bytes() == (first.folder / name).read_bytes()
    assert file.read_bytes() == content
    assert not [line for line in second.remarks if "reference.features" in line]
    other = compose(*OPTIONS, f"reference.features={file}", "steps=2", "backbone.precision=bfloat16")
    (line,) = [line for line in other.remarks if line.startswith(f"reference.features={file}: its images were made")]
    assert "precision=bfloat16 (there float32), steps=2 (there 3)" in line
    fewer = compose(*OPTIONS, f"reference.features={file}", "prompts.texts=[a city]", f"run_dir={tmp_path / 'third'}")
    generate(fewer)
    score(fewer, read_index(fewer))  # the squares of one prompt alone
    with pytest.raises(UsageError, match="no features of 'a lake'"):
        compose(*OPTIONS, f"reference.features={file}", "prompts.texts=[a city,a lake]")


def test_what_was_saved_comes_back_to_the_bit(tmp_path):
    each, rows = bound(), np.random.default_rng(0).standard_normal((3, 5))
    save_features(tmp_path / "f", {"inception": ImageSet(rows, ("p", "q", "p"))}, {"inception": facts_of(each)})
    saved = read_features(tmp_path / "f")
    assert saved.count(("p", "q")) == 1 and saved.count(("p",)) == 2
    found = saved.of(each, {"p"})
    assert found.prompts == ("p", "p") and np.array_equal(found.features, rows[[0, 2]])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"measurement": replace(INCEPTION, version=99)}, "inception there has version 3 .here 99."),
        ({"through": FeatureNetwork("another", moments, "abc")}, "network moments .here another."),
        ({"through": FeatureNetwork("moments", moments, "x")}, "fingerprint abc .here x."),
        ({"config": MetricsConfig(crop=32)}, "crop 64 .here 32."),
        ({"measurement": replace(INCEPTION, name="other")}, "no features of other"),
    ],
)
def test_features_of_anything_else_are_refused(tmp_path, change, words):
    save_features(
        tmp_path / "f", {"inception": ImageSet(np.ones((2, 2)), ("p", "p"))}, {"inception": facts_of(bound())}
    )
    with pytest.raises(UsageError, match=words):
        read_features(tmp_path / "f").of(replace(bound(), **change), {"p"})


def test_another_file_is_refused(compose, tmp_path):
    (tmp_path / "text").write_text("no features")
    with pytest.raises(UsageError, match="holds no features of reference images"):
        compose(f"reference.features={tmp_path / 'text'}")
