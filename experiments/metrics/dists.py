"""DISTS as torchmetrics computes it, on this repository's own verified VGG-16."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

from syncdiffusion.perceptual.pretrained import weight_file
from syncdiffusion.perceptual.trunks import load_trunk

TAP = 29  # the last layer that DISTS looks at


@dataclass(frozen=True)
class DistsNetwork:
    """network: provenance; its weights for each channel come with torchmetrics."""

    network: str
    device: torch.device
    fingerprint: str = ""

    @cached_property
    def loaded(self) -> nn.Module:
        return load_dists(self.device)

    def distances(self, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        """(n,) float64 of n pairs of (size, size, 3) uint8 squares, from 0 for the same to about 1."""
        first, second = (images_of([pair[side] for pair in pairs], self.device) for side in (0, 1))
        with torch.inference_mode():
            return self.loaded(first, second).reshape(-1).double().cpu().numpy()


def images_of(squares: Sequence[np.ndarray], device: torch.device) -> Tensor:
    return torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).float().div(255).to(device)


def find_dists(device: torch.device) -> DistsNetwork:
    """Raises UsageError where VGG-16's weights cannot be had."""
    from importlib.metadata import version

    weights = weight_file("vgg16").source.label
    return DistsNetwork(f"dists-vgg16 (torchmetrics {version('torchmetrics')}; {weights})", device)


def load_dists(device: torch.device) -> nn.Module:
    """torchmetrics' network. It would fetch VGG-16 from torchvision's host, which not every machine reaches and whose
    file nobody checks: while it is built, it is handed ours."""
    from torchmetrics.functional.image import dists

    trunk, _ = load_trunk("vgg16", (TAP,))
    with patch.object(dists, "vgg16", lambda **words: SimpleNamespace(features=trunk.layers)):
        network = dists.DISTSNetwork()
    return network.eval().requires_grad_(False).to(device)
