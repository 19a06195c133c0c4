"""FID features: clean-fid's graph with the same weights, the resizer, batches."""

import numpy as np
import pytest
import torch
from torch import nn

from experiments.metrics.inception import FeatureNetwork, load_inception, resize_clean
from syncdiffusion.errors import UsageError
from syncdiffusion.perceptual.pretrained import weight_file


@pytest.fixture(scope="module")
def inception() -> FeatureNetwork:
    try:
        return load_inception(torch.device("cpu"))
    except UsageError as error:
        pytest.skip(str(error))


def clean_fid_graph(monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """clean-fid's PyTorch Inception, filled with the TorchScript file's weights convolution by convolution."""
    from cleanfid import inception_pytorch
    from torchvision.models.inception import BasicConv2d

    state = torch.jit.load(weight_file("fid_inception").path, map_location="cpu").state_dict()
    convolutions = list(dict.fromkeys(n.rsplit(".", 1)[0] for n in state if n.endswith(".beta")))
    with monkeypatch.context() as patch:
        patch.setattr(inception_pytorch, "load_state_dict_from_url", lambda *args, **options: {})
        patch.setattr(nn.Module, "load_state_dict", lambda *args, **options: None)
        graph = inception_pytorch.InceptionV3([3], resize_input=False, normalize_input=False)
    layers = [layer for layer in graph.modules() if isinstance(layer, BasicConv2d)]
    for layer, name in zip(layers, convolutions, strict=True):
        assert layer.conv.weight.shape == state[f"{name}.weight"].shape
        layer.conv.weight.data = state[f"{name}.weight"].float()
        layer.bn.bias.data, layer.bn.running_mean = state[f"{name}.beta"], state[f"{name}.mean"]
        layer.bn.running_var = state[f"{name}.var"]
    return graph.eval()


@pytest.mark.network
def test_features_equal_those_of_clean_fids_graph(inception, picture, monkeypatch) -> None:
    crops = [picture(seed, 128, 128) for seed in range(3)]
    graph = clean_fid_graph(monkeypatch)
    images = torch.stack([resize_clean(crop) for crop in crops])
    with torch.inference_mode():  # the original graph brings [0, 255] to [-1, 1) so, and clean-fid's file of it too
        expected = graph((images - 128) / 128)[0].flatten(1)
    features = inception.features(crops, batch=2)
    assert features.shape == (3, 2048) and features.dtype == np.float64
    assert features.max() > 1
    # float32 through 94 convolutions, batches of two and one against three
    np.testing.assert_allclose(features, expected.numpy(), atol=1e-4)


def test_the_resizer_is_antialiased_and_keeps_fractions() -> None:
    """Against an area average: halving twice a picture of fine stripes must give their mean."""
    stripes = np.zeros((598, 598, 3), np.uint8)
    stripes[:, ::2] = 255
    small = resize_clean(stripes)
    assert small.shape == (3, 299, 299) and small.dtype == torch.float32
    inner = small[:, 5:-5, 5:-5]
    assert abs(float(inner.mean()) - 127.5) < 1
    assert float(inner.std()) < 20  # nearest or unfiltered bilinear sampling would leave 0 or 255
    ramp = np.repeat(np.arange(128, dtype=np.uint8)[None, :, None], 128, axis=0).repeat(3, axis=2)
    assert (resize_clean(ramp) % 1 != 0).any()
