"""What the decoder of an autoencoder is to its surroundings: how far it sees, and what memory it takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from syncdiffusion.memory import PeakMemory

if TYPE_CHECKING:
    from syncdiffusion.backbones.backbone import Backbone

SIDE = 8  # latent cells of what is decoded to measure it


@dataclass(frozen=True)
class Decoder:
    """Measured facts of a decoder.

    reach: latent cells to each side that decide the pixels of one cell, through convolutions alone.
    local: whether nothing but those cells decides them. Not so where a group norm or an attention sees all cells at
        once, as in AutoencoderKL; AutoencoderTiny is convolutions throughout.
    cell_bytes: memory that decoding one more latent cell takes.
    """

    reach: int
    local: bool
    cell_bytes: float


@torch.no_grad()
def measure_decoder(backbone: Backbone) -> Decoder:
    """By decoding a small canvas and one twice as wide, of zeros.

    All convolutions wider than one cell stand one behind the other in both kinds of autoencoder, so that their widths
    add up, each at the resolution that it works at; what lies beside them is 1x1. Nearest neighbours, by which both
    enlarge, see no further.
    """
    sides: list[float] = []

    def note(module: Any, inputs: Any, output: torch.Tensor) -> None:
        sides.append(max(module.kernel_size) // 2 * max(module.dilation) * SIDE / output.shape[2])

    decoder = backbone.vae.decoder
    convolutions = [module for module in decoder.modules() if isinstance(module, torch.nn.Conv2d)]
    bytes_taken = []
    for columns in (2 * SIDE, SIDE):
        canvas = torch.zeros(1, backbone.channels, SIDE, columns, dtype=backbone.dtype, device=backbone.device)
        handles = [module.register_forward_hook(note) for module in convolutions if columns == SIDE]
        try:
            with PeakMemory() as peak:
                backbone.decode(canvas)
        finally:
            for handle in handles:
                handle.remove()
        bytes_taken.append(peak.bytes)
    everywhere = any(_sees_all(module) for module in decoder.modules())
    return Decoder(math.ceil(sum(sides)), not everywhere, (bytes_taken[0] - bytes_taken[1]) / SIDE**2)


def _sees_all(module: torch.nn.Module) -> bool:
    """Whether a module's result at one place depends on all places."""
    from diffusers.models.attention_processor import Attention

    return isinstance(module, torch.nn.GroupNorm | Attention)
