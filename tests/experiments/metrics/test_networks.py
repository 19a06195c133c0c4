"""Which network stands behind which metric, and the refusals at the door."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from experiments.metrics import networks
from experiments.metrics.clip_network import ClipNetwork
from experiments.metrics.config import MetricsConfig, check_config, metric_names
from experiments.metrics.inception import FeatureNetwork
from experiments.metrics.measure import measurements
from experiments.metrics.networks import find_networks, load_networks
from syncdiffusion.errors import UsageError


def refuse(*args: object, **options: object) -> None:
    raise UsageError("weights cannot be had")


def test_only_what_the_chosen_metrics_need_is_loaded(clip_folder, monkeypatch) -> None:
    monkeypatch.setattr(networks, "network_label", refuse)
    monkeypatch.setattr(networks, "load_inception", refuse)
    bundle = load_networks(MetricsConfig(metrics=["clip_score"], clip_folder=str(clip_folder)))
    assert list(bundle) == ["clip"] and bundle["clip"].metric == "mini_clip_score"


def test_the_two_sets_ask_for_different_style_networks(monkeypatch) -> None:
    monkeypatch.setattr(networks, "network_label", lambda name: f"weights of {name}")
    monkeypatch.setattr(networks, "load_perceptual", lambda name, device: f"{name} on {device}")
    asked: list[tuple[str, str]] = []
    for name in ("mini", "paper"):
        found = load_networks(MetricsConfig(networks=name, metrics=["intra_style", "intra_lpips"], device="cpu"))
        asked += [(each.network, each.load()) for each in (found["lpips"], found["style"])]
    names = ["lpips_vgg", "style", "lpips_vgg", "style_vgg19"]
    assert asked == [(f"weights of {name}", f"{name} on cpu") for name in names]


def test_layout_lpips_looks_through_the_network_of_intra_lpips(monkeypatch) -> None:
    monkeypatch.setattr(networks, "network_label", lambda name: f"weights of {name}")
    both, layout, intra = (
        load_networks(MetricsConfig(metrics=names, device="cpu"))
        for names in (["intra_lpips", "layout_lpips"], ["layout_lpips"], ["intra_lpips"])
    )
    assert list(both) == list(layout) == list(intra) == ["lpips"]
    assert {each["lpips"].network for each in (both, layout, intra)} == {"weights of lpips_vgg"}
    assert len(measurements(MetricsConfig(metrics=["intra_lpips", "layout_lpips"]), both)) == 2


@pytest.mark.network
def test_networks_are_named_as_those_that_then_load() -> None:
    """The label is told before loading; it must be that of what is loaded. There is one LPIPS, for both metrics."""
    try:
        found = load_networks(MetricsConfig(metrics=["intra_style", "intra_lpips", "layout_lpips"], device="cpu"))
    except UsageError as error:
        pytest.skip(str(error))
    assert sorted(found) == ["lpips", "style"]
    assert [each.network for each in found.values()] == [each.load().network for each in found.values()]


def test_without_inception_the_mini_set_says_which_network_stands_in(clip_folder, picture, monkeypatch) -> None:
    monkeypatch.setattr(networks, "load_inception", refuse)
    config = MetricsConfig(metrics=["kid"], clip_folder=str(clip_folder), device="cpu")
    stand_in = load_networks(config)["inception"]
    assert "mini-CLIP" in stand_in.network and "not Inception" in stand_in.network
    features = stand_in.features([picture(seed, 64, 64) for seed in range(3)], batch=2)
    assert features.shape == (3, 16)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-5)
    with pytest.raises(UsageError, match="cannot be had"):
        load_networks(replace(config, networks="paper"))


@pytest.mark.parametrize("find", [load_networks, find_networks])
def test_all_that_cannot_be_had_is_told_with_what_can_be_measured_without(monkeypatch, find):
    def lacking(config, device):
        raise UsageError("weights of vgg19 cannot be had")

    def absent():
        raise UsageError("no CLIP here")

    clip = ClipNetwork("clip_score", "a CLIP of the hub", "", torch.device("cpu"), absent)
    seen = FeatureNetwork("moments", lambda crops: torch.zeros(len(crops), 4))
    stand_ins = {"style": lacking, "clip": lambda *words: clip, "inception": lambda *words: seen}
    for name, loader in stand_ins.items():
        monkeypatch.setitem(networks.LOADERS, name, loader)
    config = MetricsConfig(metrics=["clip_score", "fid", "intra_style", "kid", "seam_score"], device="cpu")
    hub = "no CLIP here; " if find is find_networks else ""  # which scoring is told when it first looks
    others = "[fid,kid,clip_score,seam_score]" if not hub else "[fid,kid,seam_score]"
    with pytest.raises(UsageError) as caught:
        find(config)
    told = str(caught.value)
    assert "weights of vgg19 cannot be had" in told and ("no CLIP here" in told) is bool(hub)
    assert told.endswith(f"; or give metrics.metrics={others}, which need none of these")
    assert find(replace(config, metrics=["fid", "seam_score"])) in (None, {"inception": seen})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"networks": "papr"}, "metrics.networks=papr: choose paper or mini"),
        ({"metrics": ["fid", "lpips"]}, "metrics.metrics=lpips: choose from fid, "),
        ({"crop": 0}, "metrics.crop=0: 16 or more"),
        ({"giqa_neighbours": 0}, "metrics.giqa_neighbours=0: 1 or more"),
        ({"replicates": 1}, "metrics.replicates=1: 2 or more"),
        ({"batch": 0}, "metrics.batch=0: 1 or more"),
        ({"device": "gpu"}, "metrics.device=gpu: choose auto, cpu"),
        ({"device": "cuda:99"}, "metrics.device=cuda:99: "),
    ],
)
def test_bad_settings_are_refused_in_one_line(change, message) -> None:
    with pytest.raises(UsageError) as caught:
        load_networks(MetricsConfig(**({"metrics": []} | change)))
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_the_defaults_are_valid() -> None:
    check_config(MetricsConfig())
    assert set(metric_names()) - set(MetricsConfig().metrics) >= {"fd_dinov2", "kd_dinov2"}
