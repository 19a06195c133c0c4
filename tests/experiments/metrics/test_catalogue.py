"""The metrics there are, and how one from elsewhere joins them."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.metrics import definitions
from experiments.metrics.catalogue import DEFINED, METRICS, register
from experiments.metrics.config import MetricsConfig, check_config, metric_names
from experiments.metrics.metric import Measurement, Metric, PanoramaMetric
from experiments.metrics.score import PanoramaImage, score_panoramas
from syncdiffusion.errors import UsageError


@pytest.fixture
def as_before():
    """What a test registers is gone after it."""
    kept = dict(DEFINED), dict(METRICS)
    yield
    for there, before in zip((DEFINED, METRICS), kept, strict=True):
        there.clear()
        there.update(before)


def test_every_file_is_a_metric_and_every_metric_a_file():
    files = {path.stem for path in Path(definitions.__path__[0]).glob("*.py")} - {"__init__"}
    assert files == set(DEFINED)
    first = [name for name in METRICS if name in ("fid", "kid", "giqa", "clip_score", "intra_lpips")]
    assert first == ["fid", "kid", "giqa", "clip_score", "intra_lpips"]
    assert len(METRICS) == sum(len(metric.columns) for metric in DEFINED.values())  # no column has another's name


def test_facts_of_metrics_need_no_torch():
    code = (
        "import sys; from experiments.metrics.catalogue import METRICS; assert METRICS and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def brightness(files, network, config):
    assert network is None
    return [np.array([file.pixels.mean() / file.item.made["scale"]]) for file in files]


BRIGHTNESS = PanoramaMetric(
    name="brightness",
    place=45,
    measurement=Measurement("brightness", 1, None, lambda item, config: {"scale": item.made["scale"]}, brightness),
    numbers={Metric("mean_brightness", "brightness", "higher", per_panorama=True): np.mean},
)


def test_a_metric_from_elsewhere_is_named_scored_and_sorted_among_the_others(as_before, tmp_path):
    with pytest.raises(UsageError, match="metrics.metrics=brightness: choose from"):
        check_config(MetricsConfig(metrics=["brightness"]))
    assert register(BRIGHTNESS) is register(BRIGHTNESS) is BRIGHTNESS
    names = list(METRICS)
    assert names.index("mini_clip_score") < names.index("mean_brightness") < names.index("intra_lpips")
    assert "brightness" in metric_names()
    Image.fromarray(np.full((16, 48, 3), 30, np.uint8)).save(tmp_path / "a.png")
    items = [PanoramaImage("p", seed, "m", tmp_path / "a.png", {"scale": 10}) for seed in range(2)]
    config = MetricsConfig(metrics=["brightness"], crop=16)
    scored = score_panoramas(items, [], config, {})
    assert [row["mean_brightness"] for row in scored.rows] == [3, 3]
    whole = scored.scores[0]
    assert (whole["metric"], whole["value"], whole["n"]) == ("mean_brightness", 3, 2)
    assert whole["network"] == "the picture alone"


def test_names_are_taken_once(as_before):
    register(BRIGHTNESS)
    other = replace(BRIGHTNESS, place=3)
    with pytest.raises(UsageError, match="plugins: there is a metric brightness already"):
        register(other)
    with pytest.raises(UsageError, match="plugins: there is a metric mean_brightness already"):
        register(replace(other, name="darkness"))
