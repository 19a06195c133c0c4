"""Perceptual distances against the `lpips` library and literal loops; gradients where it has none."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from syncdiffusion.errors import UsageError
from syncdiffusion.perceptual.distances import gram_matrix, load_perceptual, unit_length
from tests.metric_networks import library_lpips, load_or_skip


def images(count: int, seed: int, size: int = 64) -> Tensor:
    """Smooth random pictures, since white noise would look alike to every network."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 8, 8, generator=generator)
    smooth = functional.interpolate(coarse, size=(size, size), mode="bicubic")
    return (smooth + 0.05 * torch.randn(smooth.shape, generator=generator)).clamp(0, 1)


@pytest.mark.network
@pytest.mark.parametrize(("name", "net"), [("lpips_vgg", "vgg"), ("lpips_alex", "alex")])
def test_lpips_equals_the_library_in_value_and_gradient(name: str, net: str) -> None:
    def value_and_gradient(distance, precision: torch.dtype) -> tuple[Tensor, Tensor]:
        a, b = images(3, 1).to(precision).requires_grad_(), images(3, 2).to(precision)
        values = distance(a, b).flatten()
        return values.detach(), torch.autograd.grad(values.sum(), a)[0]

    def ours(precision: torch.dtype) -> tuple[Tensor, Tensor]:
        loss = load_or_skip(name, dtype=precision)
        return value_and_gradient(lambda a, b: loss.distance(loss.features(a), loss.features(b)), precision)

    def theirs(precision: torch.dtype) -> tuple[Tensor, Tensor]:
        library = library_lpips(net, name).to(precision)
        return value_and_gradient(lambda a, b: library(2 * a - 1, 2 * b - 1), precision)

    # sums in another order (weights folded in as square roots)
    assert theirs(torch.float32)[0].min() > 0.05
    torch.testing.assert_close(ours(torch.float32)[0], theirs(torch.float32)[0], rtol=1e-5, atol=1e-6)
    # The gradient in float64 alone: in float32, where two inputs of a max pooling differ by rounding or a ReLU's is
    # nearly 0, either way is right.
    (value, gradient), (their_value, their_gradient) = ours(torch.float64), theirs(torch.float64)
    torch.testing.assert_close(value, their_value, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(gradient, their_gradient, rtol=1e-6, atol=1e-9 * float(their_gradient.abs().max()))


@pytest.mark.network
@pytest.mark.parametrize("name", ["lpips_vgg", "lpips_alex", "style"])
def test_one_image_is_compared_with_many_as_pair_by_pair(name: str) -> None:
    loss = load_or_skip(name)
    many, one = images(3, 3), images(1, 4)
    together = loss.distance(loss.features(many), loss.features(one))
    apart = [loss.distance(loss.features(image[None]), loss.features(one)) for image in many]
    # batches may take another convolution kernel: float32 rounding only
    torch.testing.assert_close(together, torch.cat(apart), rtol=1e-4, atol=1e-7)
    swapped = loss.distance(loss.features(one), loss.features(many))
    torch.testing.assert_close(together, swapped, rtol=1e-6, atol=0)
    assert loss.distance(loss.features(one), loss.features(one)).abs().item() == 0


@pytest.mark.network
def test_style_equals_a_literal_loop_over_layers_and_pixels() -> None:
    """Written from the definition: conv_1 ... conv_5 before ReLU, Gram / (a b c d), summed MSE."""
    loss = load_or_skip("style")
    a, b = images(1, 5), images(1, 6)

    def grams(image: Tensor) -> list[Tensor]:
        mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
        deviation = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
        state = {key: value.double() for key, value in loss.trunk.layers.state_dict().items()}
        x, found = ((image - mean) / deviation).double(), []
        for number, index in enumerate((0, 2, 5, 7, 10), start=1):
            x = functional.conv2d(x, state[f"{index}.weight"], state[f"{index}.bias"], padding=1)
            n, channels, height, width = x.shape
            flat = x.view(n * channels, height * width)
            found.append(torch.mm(flat, flat.t()) / (n * channels * height * width))
            x = functional.relu(x)
            if number in (2, 4):
                x = functional.max_pool2d(x, 2)
        return found

    expected = sum(functional.mse_loss(x, y) for x, y in zip(grams(a), grams(b), strict=True))
    ours = loss.distance(loss.features(a), loss.features(b))
    assert expected > 1e-6
    # float32 against float64
    torch.testing.assert_close(ours.double().squeeze(), expected, rtol=1e-4, atol=0)


def test_unit_length_equals_the_library_and_has_a_gradient_where_it_has_none() -> None:
    import lpips

    features = torch.randn(2, 8, 3, 3, generator=torch.Generator().manual_seed(7)).relu()
    features[:, :, 1, 1] = 0  # a pixel at which every channel is off
    ours, theirs = features.clone().requires_grad_(), features.clone().requires_grad_()
    weight = torch.randn(features.shape, generator=torch.Generator().manual_seed(8))
    (unit_length(ours) * weight).sum().backward()
    (lpips.normalize_tensor(theirs) * weight).sum().backward()

    torch.testing.assert_close(unit_length(features), lpips.normalize_tensor(features))
    dead = torch.zeros(3, 3, dtype=torch.bool)
    dead[1, 1] = True
    assert theirs.grad[:, :, dead].isnan().any()  # the trap is real
    assert (ours.grad[:, :, dead] == 0).all()
    torch.testing.assert_close(ours.grad[:, :, ~dead], theirs.grad[:, :, ~dead], rtol=1e-5, atol=1e-6)


@pytest.mark.network
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_lpips_gradient_is_finite_where_all_features_are_zero(dtype: torch.dtype) -> None:
    """Biases that silence a whole layer make every one of its features zero."""
    loss = load_or_skip("lpips_alex", dtype=dtype)
    bias = loss.trunk.layers[10].bias
    kept = bias.clone()
    try:
        bias.fill_(-1000.0)
        a = images(2, 9).requires_grad_()
        features = loss.features(a)
        assert (features[4] == 0).all()
        distance = loss.distance(features, loss.features(images(1, 10)))
        distance.sum().backward()
    finally:
        bias.copy_(kept)
    assert distance.dtype == torch.float32
    assert a.grad.isfinite().all()
    assert a.grad.abs().max() > 0  # the other layers still pull


@pytest.mark.network
@pytest.mark.parametrize("name", ["lpips_alex", "style"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_close(name: str, dtype: torch.dtype) -> None:
    loss, half = load_or_skip(name), load_or_skip(name, dtype=dtype)
    a, b = images(1, 11, size=48), images(1, 12, size=48)
    exact = loss.distance(loss.features(a), loss.features(b))
    rough = half.distance(half.features(a), half.features(b))
    # the convolutions carry 8 (bfloat16) or 11 (float16) bits
    torch.testing.assert_close(rough, exact, rtol=0.05, atol=0)


def test_gram_matrix_of_known_features() -> None:
    activation = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])  # two channels, one row, two columns
    expected = torch.tensor([[[5.0, 11.0], [11.0, 25.0]]]) / 4
    torch.testing.assert_close(gram_matrix(activation), expected)


@pytest.mark.network
def test_networks_are_frozen_and_loaded_once() -> None:
    loss = load_or_skip("lpips_alex")
    assert load_perceptual("lpips_alex") is loss
    assert not loss.training
    assert not any(parameter.requires_grad for parameter in loss.parameters())
    assert "alexnet" in loss.network and "(" in loss.network


def test_unknown_name_is_refused_in_one_line() -> None:
    with pytest.raises(UsageError, match="loss=lpips_squeeze.*lpips_vgg") as caught:
        load_perceptual("lpips_squeeze")
    assert "\n" not in str(caught.value)
