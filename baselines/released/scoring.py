"""The intra metrics as the released evaluation scripts compute them, pair by pair, for comparison.

Written from the scripts eval_intra_lpips.py and eval_style_loss.py (PROTOCOL.md, section 3). Nothing of the product
is called here but the reader of VGG-16's weight file. What the scripts do more often than need be is kept, so that
their time can be compared:

- Intra-LPIPS: the `lpips` library's module is called for every pair, with one image on either side, so that each of
  six crops goes through VGG-16 five times.
- Intra-Style-L: for every pair a network is put together anew from VGG's layers, which stay in memory. While it grows,
  the first image goes from the start through what there is at each of the five style layers, the style losses among
  it, to become the next one's target; then the second image goes through all of it.

What they do besides is left out, which favours them: autograd's graph, recorded in part; the optimiser that the style
script makes for every pair and never steps; the layers beyond conv_5, appended and cut off again. That script looks
through VGG-19 and this module through VGG-16, whose weights can be had everywhere. Up to conv_5, and nothing further
is computed, the layers of both have the same shapes and hence the same cost.
"""

import functools
import warnings
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from syncdiffusion.perceptual.trunks import load_trunk

LAST_LPIPS_LAYER, LAST_STYLE_LAYER = 29, 10  # relu5_3 and conv_5 in torchvision's VGG-16


def square_crops(path: Path, size: int, device: str) -> Tensor:
    """Non-overlapping squares of an image file, row by row from the top left: [k, 3, size, size] in [0, 1]."""
    with Image.open(path) as image:
        pixels = torch.from_numpy(np.array(image.convert("RGB"))).to(device).permute(2, 0, 1).float() / 255
    height, width = pixels.shape[1:]
    corners = [(top, left) for top in range(0, height - size + 1, size) for left in range(0, width - size + 1, size)]
    return torch.stack([pixels[:, top : top + size, left : left + size] for top, left in corners])


@functools.cache
def library_lpips(device: str) -> nn.Module:
    """`lpips.LPIPS(net="vgg")` itself, its VGG-16 filled from the weight file that is there.

    The library alone would fetch the weights from torchvision's host, which not every machine reaches.

    Raises:
        UsageError: the weights cannot be had.
    """
    import lpips

    weights = load_trunk("vgg16", (LAST_LPIPS_LAYER,))[0].layers.state_dict()
    with warnings.catch_warnings(), torch.device("meta"):  # no random draw of what is replaced
        warnings.simplefilter("ignore")  # the library calls torchvision by arguments that are deprecated
        module = lpips.LPIPS(net="vgg", pretrained=False, pnet_rand=True, verbose=False)
    # slice3.10.weight -> 10.weight
    module.net.load_state_dict({name: weights[name.split(".", 1)[1]] for name in module.net.state_dict()}, assign=True)
    heads = torch.load(
        Path(lpips.__file__).parent / "weights" / "v0.1" / "vgg.pth", weights_only=True, map_location="cpu"
    )
    module.load_state_dict(heads, strict=False, assign=True)
    module.scaling_layer = lpips.ScalingLayer()
    return module.to(device).eval()


@torch.no_grad()
def lpips_of_pairs(library: nn.Module, crops: Tensor) -> list[float]:
    """LPIPS of all pairs i < j of crops [k, 3, s, s] in [0, 1]; released Intra-LPIPS is their mean."""
    images = 2 * crops - 1
    return [library(a[None], b[None]).item() for a, b in combinations(images, 2)]


@functools.cache
def style_layers(device: str) -> nn.Sequential:
    """VGG-16's layers up to conv_5, from the weight file. UsageError where the weights cannot be had."""
    return load_trunk("vgg16", (LAST_STYLE_LAYER,))[0].layers.to(device)


@torch.no_grad()
def style_of_pairs(layers: nn.Sequential, crops: Tensor) -> list[float]:
    """Style distance of all pairs i < j of crops [k, 3, s, s] in [0, 1]; released Intra-Style-L is their sum."""
    distances = []
    for a, b in combinations(crops, 2):
        network, losses = style_network(layers, a[None])
        network(b[None])
        distances.append(float(sum(each.loss for each in losses)))
    return distances


def style_network(layers: nn.Sequential, image: Tensor) -> tuple[nn.Sequential, list["StyleLoss"]]:
    """A network that keeps, for what goes through it, the style distance from `image` [1, 3, s, s] layer by layer."""
    network, losses = nn.Sequential(Normalization(image.device)), []
    for layer in layers:
        network.append(nn.ReLU() if isinstance(layer, nn.ReLU) else layer)
        if isinstance(layer, nn.Conv2d):
            losses.append(StyleLoss(network(image)))
            network.append(losses[-1])
    return network, losses


class Normalization(nn.Module):
    """ImageNet's mean and deviation, for images in [0, 1]."""

    def __init__(self, device: torch.device):
        super().__init__()
        self.mean = torch.tensor([0.485, 0.456, 0.406], device=device).view(-1, 1, 1)
        self.deviation = torch.tensor([0.229, 0.224, 0.225], device=device).view(-1, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        return (image - self.mean) / self.deviation


class StyleLoss(nn.Module):
    """Returns its input unchanged, and stores the mean squared difference of its Gram matrix from the target's."""

    def __init__(self, target: Tensor):
        super().__init__()
        self.target = gram(target)

    def forward(self, activation: Tensor) -> Tensor:
        self.loss = functional.mse_loss(gram(activation), self.target)
        return activation


def gram(activation: Tensor) -> Tensor:
    """[1, c, h, w] -> [c, c]: inner products of the channels over c * h * w."""
    flat = activation.flatten(0, 1).flatten(1)
    return torch.mm(flat, flat.t()) / activation.numel()
