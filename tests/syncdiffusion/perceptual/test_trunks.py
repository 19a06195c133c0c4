"""Trunks read from torchvision's own file format, on files made here with random weights."""

import hashlib
from pathlib import Path

import pytest
import torch
from torch import nn

from syncdiffusion.perceptual import pretrained
from syncdiffusion.perceptual.pretrained import Official
from syncdiffusion.perceptual.trunks import load_trunk

# the layers that are wanted, by torchvision's indices: LPIPS's ReLUs and conv_1 ... conv_5
TAPS = {"vgg16": (3, 8, 15), "vgg19": (0, 2, 5, 7, 10), "alexnet": (1, 4, 7, 9, 11)}


@pytest.mark.parametrize("network", TAPS)
def test_activations_equal_those_of_torchvisions_layers(network: str, tmp_path: Path, monkeypatch) -> None:
    import torchvision

    with torch.device("meta"):
        features = getattr(torchvision.models, network)().features
    generator = torch.Generator().manual_seed(0)
    state = {
        name: 0.05 * torch.randn(value.shape, generator=generator) for name, value in features.state_dict().items()
    }
    path = tmp_path / "weights.pth"
    torch.save(
        {f"features.{name}": value for name, value in state.items()} | {"classifier.0.weight": torch.ones(1)}, path
    )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setenv("SYNCDIFFUSION_CACHE", str(tmp_path))
    monkeypatch.delenv("SYNCDIFFUSION_SOURCES", raising=False)
    source = Official("torchvision", "https://nowhere.invalid/weights.pth", digest[:8])
    monkeypatch.setitem(pretrained.NETWORKS, network, (source,))

    trunk, label = load_trunk(network, TAPS[network])
    features.load_state_dict(state, assign=True)
    images = torch.randn(2, 3, 64, 64, generator=generator)
    with torch.no_grad():
        found = trunk(images)
        for tap, activation in zip(TAPS[network], found, strict=True):
            # the library's layers overwrite their input at each ReLU, so every tap starts afresh
            torch.testing.assert_close(activation, features[: tap + 1](images.clone()))
    assert label == "torchvision"
    assert len(trunk.layers) == max(TAPS[network]) + 1
    assert not any(isinstance(layer, nn.ReLU) and layer.inplace for layer in trunk.layers)
    assert not any(parameter.requires_grad for parameter in trunk.parameters())
