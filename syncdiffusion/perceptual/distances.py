"""Perceptual distances between images: features once, distances many times.

Both distances are written as a difference of features, so that the features of an image that
takes part in many comparisons (the anchor window, a crop in all its pairs) are computed once.
"""

import functools
import importlib.util
import logging
from pathlib import Path

import torch
from torch import Tensor, nn

from syncdiffusion.errors import UsageError
from syncdiffusion.perceptual.catalogue import LOSSES, PerceptualLoss
from syncdiffusion.perceptual.pretrained import weight_file
from syncdiffusion.perceptual.trunks import Trunk, empty_layers, load_trunk

logger = logging.getLogger(__name__)


class LPIPS(nn.Module):
    """Learned perceptual image patch similarity, v0.1 (Zhang et al., CVPR 2018).

    `distance(features(a), features(b))` equals `lpips.LPIPS(net=...)(2a - 1, 2b - 1)`. The learned
    channel weights w >= 0 enter the features as sqrt(w): w (a - b)^2 = (sqrt(w) a - sqrt(w) b)^2.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, name: str, network: str, trunk: Trunk, heads: list[Tensor]):
        """heads: the library's linear layers, each (1, c, 1, 1), in the order of the trunk's taps."""
        super().__init__()
        self.name, self.network, self.trunk = name, network, trunk
        # the library's own rounding of ImageNet's mean and deviation, for images in [-1, 1]
        shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
        self.register_buffer("shift", shift[:, None, None])
        self.register_buffer("scale", scale[:, None, None])
        for index, head in enumerate(heads):
            # In double, so that a float64 distance is not held back by a rounded root.
            self.register_buffer(f"head{index}", head.double().sqrt())

    def features(self, images: Tensor) -> list[Tensor]:
        """(n, 3, h, w) in [0, 1] -> (n, c, h', w') per layer: unit length over c, times sqrt(w)."""
        scaled = ((2 * at_least_float32(images) - 1) - self.shift) / self.scale
        activations = self.trunk(scaled.to(self.trunk.dtype))
        with torch.autocast(images.device.type, enabled=False):
            return [
                unit_length(at_least_float32(activation)) * getattr(self, f"head{index}")
                for index, activation in enumerate(activations)
            ]

    def distance(self, a: list[Tensor], b: list[Tensor]) -> Tensor:
        """Sum over layers of the squared difference, summed over channels, averaged over pixels."""
        layers = [(x - y).square().sum(dim=1).mean(dim=(1, 2)) for x, y in zip(a, b, strict=True)]
        return torch.stack(layers).sum(dim=0)


class GramStyle(nn.Module):
    """Style distance between Gram matrices (Gatys et al., CVPR 2016), as in Intra-Style-L.

    Gram matrices F F^T / (c h w) of the first five convolutions before their ReLU, on an
    ImageNet-normalised image; the distance is the mean squared difference of the matrices, summed
    over the five layers. Typical values are a hundredth of LPIPS's: as guidance it needs a weight
    that is larger accordingly.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, name: str, network: str, trunk: Trunk):
        super().__init__()
        self.name, self.network, self.trunk = name, network, trunk
        mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        self.register_buffer("mean", mean[:, None, None])
        self.register_buffer("deviation", deviation[:, None, None])

    def features(self, images: Tensor) -> list[Tensor]:
        """(n, 3, h, w) in [0, 1] -> one (n, c, c) Gram matrix per layer."""
        normalised = (at_least_float32(images) - self.mean) / self.deviation
        activations = self.trunk(normalised.to(self.trunk.dtype))
        with torch.autocast(images.device.type, enabled=False):
            return [gram_matrix(at_least_float32(activation)) for activation in activations]

    def distance(self, a: list[Tensor], b: list[Tensor]) -> Tensor:
        """Sum over layers of the mean squared difference of Gram matrices."""
        layers = [(x - y).square().mean(dim=(1, 2)) for x, y in zip(a, b, strict=True)]
        return torch.stack(layers).sum(dim=0)


def at_least_float32(values: Tensor) -> Tensor:
    """Half precision is widened, float64 stays."""
    return values if values.dtype == torch.float64 else values.float()


def unit_length(features: Tensor) -> Tensor:
    """features / (|features| + 1e-10) over dim 1, as the `lpips` library does, with a finite gradient.

    Where all channels are zero the square root's derivative is infinite and the library's gradient
    becomes NaN. There the result is zero and so is its gradient here, which is also the gradient
    that reaches the image: those features are outputs of a ReLU that is off.
    """
    squares = features.square().sum(dim=1, keepdim=True)
    alive = squares > 0
    length = torch.where(alive, squares, 1.0).sqrt()  # never a root of zero, on either branch
    return features * torch.where(alive, 1 / (length + 1e-10), 0.0)


def gram_matrix(activation: Tensor) -> Tensor:
    """(n, c, h, w) -> (n, c, c) inner products of channels over c * h * w."""
    n, c, h, w = activation.shape
    flat = activation.reshape(n, c, h * w)
    return flat @ flat.transpose(1, 2) / (c * h * w)


# indices into torchvision's `features`: after the ReLUs that LPIPS reads, and conv_1 ... conv_5
_LPIPS_TAPS = {"vgg16": (3, 8, 15, 22, 29), "alexnet": (1, 4, 7, 9, 11)}
_STYLE_TAPS = (0, 2, 5, 7, 10)

_TRUNKS = {"lpips_vgg": "vgg16", "lpips_alex": "alexnet", "style": "vgg16", "style_vgg19": "vgg19"}

PERCEPTUAL_LOSSES = tuple(_TRUNKS)


def load_perceptual(
    name: str, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> PerceptualLoss:
    """A frozen loss of images: one of PERCEPTUAL_LOSSES, or of the catalogue's LOSSES.

    dtype: precision of its networks.

    Raises:
        UsageError: unknown name, or weights that cannot be had.
    """
    if name in PERCEPTUAL_LOSSES:
        return load_network_distance(name, device, dtype)
    if name not in LOSSES:
        raise UsageError(f"loss={name}: choose one of {', '.join(dict.fromkeys((*PERCEPTUAL_LOSSES, *LOSSES)))}")
    return LOSSES[name].load(device, dtype)


def load_network_distance(name: str, device: str | torch.device, dtype: torch.dtype) -> PerceptualLoss:
    """A frozen perceptual distance, loaded once per (name, device, dtype).

    name: "lpips_vgg", "lpips_alex"; "style" looks through VGG-16, whose weights LPIPS uses too and
        which therefore is the same on every machine; "style_vgg19" through torchvision's VGG-19,
        the network of the paper's Intra-Style-L, which only torchvision's own host offers.
    dtype: precision of the convolutions. Features and distances are float32, or float64 with it.

    Raises:
        UsageError: weights that cannot be had.
    """
    return _load(name, str(torch.device(device)), dtype)


def network_label(name: str) -> str:
    """The `network` of the distance `name` (one of PERCEPTUAL_LOSSES), told by its weight file alone: nothing loads.

    Raises:
        UsageError: weights that cannot be had.
    """
    return _label(name, weight_file(_TRUNKS[name]).source.label)


def empty_trunk(name: str) -> Trunk:
    """The convolutions of the distance `name` on the device "meta", for counting: shapes, no weights needed."""
    return Trunk(empty_layers(_TRUNKS[name], _taps(name)), _taps(name)).eval().requires_grad_(False)


def _taps(name: str) -> tuple[int, ...]:
    return _LPIPS_TAPS[_TRUNKS[name]] if name.startswith("lpips") else _STYLE_TAPS


def _label(name: str, source: str) -> str:
    return f"{'lpips-' if name.startswith('lpips') else ''}{_TRUNKS[name]} ({source})"


@functools.cache
def _load(name: str, device: str, dtype: torch.dtype) -> PerceptualLoss:
    logger.info("loading the network of %s", name)
    lpips, network = name.startswith("lpips"), _TRUNKS[name]
    trunk, source = load_trunk(network, _taps(name))
    label = _label(name, source)
    loss: LPIPS | GramStyle
    if lpips:
        loss = LPIPS(name, label, trunk, _lpips_heads(name.removeprefix("lpips_")))
    else:
        loss = GramStyle(name, label, trunk)
    loss.to(torch.float64 if dtype == torch.float64 else torch.float32)
    loss.trunk.to(dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # as in backbone.load_backbone
    return loss.to(device).eval().requires_grad_(False)


def _lpips_heads(network: str) -> list[Tensor]:
    """The linear layers v0.1 that ship inside the `lpips` package, each (1, c, 1, 1)."""
    spec = importlib.util.find_spec("lpips")
    assert spec is not None and spec.submodule_search_locations, "lpips is required"
    path = Path(spec.submodule_search_locations[0], "weights", "v0.1", f"{network}.pth")
    state = torch.load(path, weights_only=True, map_location="cpu")
    return [state[f"lin{index}.model.1.weight"] for index in range(5)]
