"""Intra metrics against the lpips library pair by pair and the released style loss, literally."""

import warnings
from itertools import combinations

import numpy as np
import pytest
import torch
from torch.nn import functional

from experiments.metrics.coherence import pair_distances
from syncdiffusion.errors import UsageError
from syncdiffusion.perceptual import PerceptualLoss, load_perceptual

pytestmark = pytest.mark.network


def load_or_skip(name: str) -> PerceptualLoss:
    try:
        return load_perceptual(name)
    except UsageError as error:
        pytest.skip(str(error))


def as_tensor(crop: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(crop.copy()).permute(2, 0, 1)[None].float() / 255


@pytest.fixture
def crops(picture) -> list[np.ndarray]:
    return [picture(seed, 64, 64) for seed in range(4)]


def test_pairs_equal_the_lpips_library_pair_by_pair(crops) -> None:
    import lpips

    loss = load_or_skip("lpips_vgg")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False).eval()
    weights = loss.trunk.layers.state_dict()
    for key, parameter in library.net.named_parameters():
        parameter.data.copy_(weights[key.split(".", 1)[1]])
    with torch.no_grad():
        expected = [library(2 * as_tensor(a) - 1, 2 * as_tensor(b) - 1).item() for a, b in combinations(crops, 2)]
    # float32 sums in another order, and other convolution kernels for other batches
    np.testing.assert_allclose(pair_distances(loss, crops, batch=3), expected, rtol=1e-4)


@pytest.mark.parametrize(("name", "model"), [("style", "vgg16"), ("style_vgg19", "vgg19")])
def test_style_pairs_equal_the_released_definition(crops, name, model) -> None:
    """A network rebuilt for each pair, a loss layer after each of the first five convolutions."""
    import torchvision

    weights = load_or_skip(name).trunk.layers.state_dict()
    with torch.device("meta"):
        features = getattr(torchvision.models, model)().features[:11]
    features.load_state_dict(weights, assign=True)

    def gram(activation: torch.Tensor) -> torch.Tensor:
        a, b, c, d = activation.size()
        flat = activation.view(a * b, c * d)
        return torch.mm(flat, flat.t()).div(a * b * c * d)

    def style_loss(image: torch.Tensor, target: torch.Tensor) -> float:
        mean = torch.tensor([0.485, 0.456, 0.406]).view(-1, 1, 1)
        std = torch.tensor([0.229, 0.224, 0.225]).view(-1, 1, 1)
        x, y, total, convolutions = (image - mean) / std, (target - mean) / std, 0.0, 0
        for layer in features:
            if isinstance(layer, torch.nn.ReLU):
                x, y = functional.relu(x), functional.relu(y)
                continue
            x, y = layer(x), layer(y)
            if isinstance(layer, torch.nn.Conv2d):
                convolutions += 1
                total += functional.mse_loss(gram(x), gram(y)).item()
            if convolutions == 5:
                return total
        raise AssertionError

    with torch.no_grad():
        expected = [style_loss(as_tensor(a), as_tensor(b)) for a, b in combinations(crops, 2)]
    np.testing.assert_allclose(pair_distances(load_or_skip(name), crops, 2), expected, rtol=1e-4)


@pytest.mark.parametrize("name", ["lpips_alex", "style"])
def test_batches_change_nothing_and_equal_crops_have_no_distance(crops, name) -> None:
    loss = load_or_skip(name)
    whole = pair_distances(loss, crops, batch=16)
    assert whole.shape == (6,) and whole.min() > 0
    for batch in (1, 3):
        np.testing.assert_allclose(pair_distances(loss, crops, batch), whole, rtol=1e-4)
    same = pair_distances(loss, [crops[0]] * 3, batch=3)
    assert np.abs(same).max() < 1e-10
    assert pair_distances(loss, crops[:1], 4).shape == (0,)
