"""DINOv2 features of a small untrained network against transformers called by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch

from experiments.metrics.config import MetricsConfig
from experiments.metrics.networks import load_networks
from syncdiffusion.errors import UsageError


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    from transformers import Dinov2Config, Dinov2Model

    path = tmp_path_factory.mktemp("dino")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Dinov2Model(
            Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=56, patch_size=14)
        )
    model.save_pretrained(path)
    return path


def test_features_are_the_normalised_class_token(folder, picture):
    from torchvision.transforms import Compose, InterpolationMode, Normalize, Resize, ToPILImage, ToTensor
    from transformers import Dinov2Model

    config = MetricsConfig(metrics=["fd_dinov2", "kd_dinov2"], dino=str(folder), device="cpu")
    (network,) = load_networks(config).values()
    crop = picture(0, 64, 64)
    prepare = Compose(
        [
            ToPILImage(),
            Resize((224, 224), InterpolationMode.BICUBIC),
            ToTensor(),
            Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    with torch.inference_mode():
        expected = Dinov2Model.from_pretrained(folder).eval()(prepare(crop)[None]).pooler_output
    found = network.features([crop, crop], 2)
    assert found.shape == (2, 16) and network.network == f"dinov2 ({folder.name})" and network.fingerprint
    np.testing.assert_allclose(found[0], expected[0].numpy(), atol=1e-5)  # float32


def test_what_is_no_dinov2_is_refused_in_one_line(tmp_path):
    with pytest.raises(UsageError, match="no config.json there; name a DINOv2 folder"):
        load_networks(MetricsConfig(metrics=["fd_dinov2"], dino=str(tmp_path), device="cpu"))
    (tmp_path / "config.json").write_text("{}")
    network = load_networks(MetricsConfig(metrics=["fd_dinov2"], dino=str(tmp_path), device="cpu"))["dinov2"]
    with pytest.raises(UsageError, match="cannot be had .*leave out fd_dinov2") as refused:
        network.features([np.zeros((32, 32, 3), np.uint8)], 1)
    assert "\n" not in str(refused.value)
