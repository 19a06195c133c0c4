"""From denoised canvases to pictures: whole where they fit into memory, else in tiles; rings as rings."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from syncdiffusion.errors import UsageError
from syncdiffusion.joint.finite import finite
from syncdiffusion.memory import USABLE, free_memory, unless_out_of_memory

if TYPE_CHECKING:
    from syncdiffusion.backbones.backbone import Backbone

TOO_LARGE = (
    "decoder: not even one window fits into the free memory; "
    "end what else uses it, or use a lower precision or a smaller model"
)


@dataclass(frozen=True)
class Tile:
    """A part of a canvas, in latent cells."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def cells(self) -> int:
        return (self.bottom - self.top) * (self.right - self.left)

    def halves(self) -> tuple[Tile, Tile]:
        """Of its longer side."""
        if self.bottom - self.top > self.right - self.left:
            middle = (self.top + self.bottom) // 2
            return Tile(self.top, middle, self.left, self.right), Tile(middle, self.bottom, self.left, self.right)
        middle = (self.left + self.right) // 2
        return Tile(self.top, self.bottom, self.left, middle), Tile(self.top, self.bottom, middle, self.right)

    def widened(self, by: int, height: int, width: int) -> Tile:
        """With `by` cells more to each side, as far as the canvas goes."""
        return Tile(
            max(0, self.top - by), min(height, self.bottom + by), max(0, self.left - by), min(width, self.right + by)
        )


@torch.no_grad()
def decode_canvas(backbone: Backbone, canvas: Tensor, circular: bool = False) -> Tensor:
    """Images of canvases [n, c, h, w], one after the other: [n, 3, H, W] in [0, 1], float32 on the CPU.

    Each is decoded whole, as the released code does, where it fits into memory; else in tiles that overlap by what the
    decoder sees to each side. Where that is all it sees (`Decoder.local`: AutoencoderTiny), tiles are equal to the
    whole up to rounding. AutoencoderKL's group norms and its attention see the whole canvas: its tiles differ from the
    whole, which a warning tells, so that the whole is tried wherever all of the free memory could hold it. Of a random
    one with pixels of standard deviation 0.33, two tiles differ from the whole by 0.015 on average and 0.23 at most.

    circular: the canvas is a ring. As much of its other end as the decoder sees is decoded with each end, so that the
        picture's last column and its first meet as any two others do.

    Raises:
        UsageError: not even one window fits into memory.
    """
    if backbone.offload is not None:
        backbone.offload.leave("unet")
    images, most = [], _cells_that_fit(backbone)
    for one in canvas:
        image, most = _decode(backbone, one[None], circular, most)
        images.append(image)
    return torch.cat(images)


def _decode(backbone: Backbone, canvas: Tensor, circular: bool, most: float) -> tuple[Tensor, float]:
    """The image [1, 3, H, W] of one canvas, at most so many latent cells at once, and how many cells at most it was."""
    decoder, factor = backbone.decoder, backbone.factor
    height, width = canvas.shape[2:]
    wrapped = decoder.reach if circular else 0
    source = canvas[..., torch.arange(-wrapped, width + wrapped, device=canvas.device) % width]

    def decode(latents: Tensor) -> tuple[Tensor]:
        return (finite(backbone, "picture", lambda wide: wide.decode(latents)).float().cpu(),)

    image = torch.empty(1, 3, height * factor, width * factor)
    tiles, done = [Tile(0, height, wrapped, wrapped + width)], 0
    while tiles:
        tile = tiles.pop()
        seen = tile.widened(decoder.reach, *source.shape[2:])
        smallest = tile.cells <= backbone.window**2
        result = None
        if smallest or seen.cells <= most:
            result = unless_out_of_memory(decode, [source[..., seen.top : seen.bottom, seen.left : seen.right]])
        if result is not None:
            rows = slice((tile.top - seen.top) * factor, (tile.bottom - seen.top) * factor)
            columns = slice((tile.left - seen.left) * factor, (tile.right - seen.left) * factor)
            left, right = (tile.left - wrapped) * factor, (tile.right - wrapped) * factor
            image[..., tile.top * factor : tile.bottom * factor, left:right] = result[0][..., rows, columns]
            done += 1
        elif smallest:
            raise UsageError(TOO_LARGE)
        else:
            most = min(most, seen.cells - 1)  # what follows is not tried at this size again
            tiles += reversed(tile.halves())
    if done > 1 and not decoder.local:
        warnings.warn(
            f"decoder: the canvas does not fit into memory and was decoded in {done} tiles; "
            f"{type(backbone.vae).__name__} sees the whole canvas, so that the picture differs a little",
            RuntimeWarning,
            stacklevel=3,
        )
    return image, most


def _cells_that_fit(backbone: Backbone) -> float:
    """Latent cells to decode at once, as far as the free memory tells; trying shows the rest."""
    decoder = unless_out_of_memory(lambda: backbone.decoder, [])
    if decoder is None:
        raise UsageError(TOO_LARGE)
    free = free_memory(backbone.device)
    if not decoder.local:
        free /= USABLE["cuda" if backbone.device.type == "cuda" else "cpu"]
    return free / max(1.0, decoder.cell_bytes)
