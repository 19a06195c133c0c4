"""Intra metrics against the lpips library pair by pair and the released style loss, literally; what is left of tone."""

import warnings
from itertools import combinations

import numpy as np
import pytest
import torch
from torch.nn import functional

from experiments.metrics.coherence import pair_distances
from experiments.metrics.definitions.layout_lpips import without_tone
from syncdiffusion.errors import UsageError
from syncdiffusion.perceptual.distances import PerceptualLoss, load_perceptual

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


def lpips_library(loss: PerceptualLoss) -> torch.nn.Module:
    """The `lpips` package's own LPIPS-VGG with the weights of `loss`; it takes images in [-1, 1]."""
    import lpips

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False).eval()
    weights = loss.trunk.layers.state_dict()
    for key, parameter in library.net.named_parameters():
        parameter.data.copy_(weights[key.split(".", 1)[1]])
    return library


def test_pairs_equal_the_lpips_library_pair_by_pair(crops) -> None:
    loss = load_or_skip("lpips_vgg")
    library = lpips_library(loss)
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


def toneless(crop: np.ndarray) -> np.ndarray:
    """The tone removal of Layout-LPIPS written out: (h, w, 3) uint8 -> (h, w, 3) in [0, 1]."""
    red, green, blue = (crop[:, :, channel] / 255 for channel in range(3))
    luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue  # Rec. 709
    if luma.max() == luma.min():
        return np.full(crop.shape, 0.5)
    standard = (luma - luma.mean()) / np.sqrt(((luma - luma.mean()) ** 2).mean())
    return np.stack([np.minimum(1, np.maximum(0, 0.5 + 0.2 * standard))] * 3, axis=2)


def one_pixel_apart(size: int) -> np.ndarray:
    """The least that an 8-bit crop can have of content: one level of blue in one pixel."""
    crop = np.full((size, size, 3), (7, 100, 201), np.uint8)
    crop[3, 5, 2] += 1
    return crop


def test_tone_removal_equals_numpy_written_out(crops) -> None:
    """Each crop by itself: pictures, a dim one, one whose highlights are clamped, constant ones, one hardly not."""
    constant = [np.full_like(crops[0], colour) for colour in ((0, 0, 0), (255, 255, 255), (7, 100, 201))]
    clamped = crops[0] // 8
    clamped[:4, :4] = 255
    given = [*crops, crops[0] // 9 + 3, clamped, *constant, one_pixel_apart(64)]
    found = without_tone(torch.cat([as_tensor(crop) for crop in given]))
    assert found.shape == (len(given), 3, 64, 64) and found.dtype == torch.float32
    expected = np.stack([toneless(crop) for crop in given])
    # Values are rounded to float32 before: of the one level in one pixel that leaves two digits.
    np.testing.assert_allclose(found[:-1].permute(0, 2, 3, 1).numpy(), expected[:-1], atol=1e-5)
    np.testing.assert_allclose(found[-1].permute(1, 2, 0).numpy(), expected[-1], atol=1e-2)
    assert expected[5].max() == 1 and expected[5].std() < 0.19  # clamped indeed
    assert (found[6:9] == 0.5).all()
    assert without_tone(as_tensor(one_pixel_apart(512)))[0, :, 3, 5].min() > 0.9  # of Stable Diffusion's size, too
    halves = np.zeros((64, 64, 3), np.uint8)
    halves[:, 32:] = 255
    by_hand = without_tone(as_tensor(halves))[0, :, 0, [0, -1]]
    np.testing.assert_allclose(by_hand, [[0.3, 0.7]] * 3, atol=1e-6)


def affine(crop: np.ndarray) -> np.ndarray:
    """Half the contrast and a tint: exact in whole numbers where the crop's are even, and far from 0 and 255."""
    return crop // 2 + np.array([100, 10, 60], np.uint8)


def test_layout_does_not_see_a_change_of_tone_that_intra_lpips_sees(crops) -> None:
    loss = load_or_skip("lpips_vgg")
    plain = [crop // 2 * 2 for crop in crops]
    changed = [affine(plain[0]), *plain[1:]]
    layout, other_layout = (pair_distances(loss, each, 4, without_tone) for each in (plain, changed))
    intra, other_intra = (pair_distances(loss, each, 4) for each in (plain, changed))
    assert layout.shape == (6,) and layout.min() > 0.1
    np.testing.assert_allclose(other_layout, layout, rtol=1e-4)
    assert np.abs(other_intra / intra - 1)[:3].min() > 0.02  # the pairs of the first crop
    same, differing = (pair_distances(loss, [plain[0], changed[0]], 2, how).item() for how in (without_tone, None))
    assert same < 1e-6 and differing > 0.05


def test_layout_pairs_equal_the_lpips_library_on_crops_without_tone(crops) -> None:
    loss = load_or_skip("lpips_vgg")
    library = lpips_library(loss)
    grey = [torch.from_numpy(toneless(crop)).permute(2, 0, 1)[None].float() for crop in crops]
    with torch.no_grad():
        expected = [library(2 * a - 1, 2 * b - 1).item() for a, b in combinations(grey, 2)]
    np.testing.assert_allclose(pair_distances(loss, crops, 3, without_tone), expected, rtol=1e-4)
