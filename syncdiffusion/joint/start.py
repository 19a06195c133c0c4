"""Canvases that start from a picture: SDEdit, and parts of a picture that stay as they are.

SDEdit (Meng et al., ICLR 2022): the picture, noised once to the level of an intermediate step, is denoised from there.
`start_strength` is the share of the steps that are taken, as in diffusers' image-to-image pipeline, but its product
with the steps is rounded before it is cut: there 0.58 · 50 is 28. The authors' code does all of it three times, by
DDPM, with fresh noise; here the canvas's own noise is the only one, and once is what there is.

With a mask only the white part is made new. Elsewhere the picture, noised by the same noise to the level of each step,
is put back at every step, and clean at the end, as in SDEdit's and Blended Diffusion's (Avrahami et al., CVPR 2022)
inpainting. It is put back into windows too, after whatever a method does to them, so that a pull moves only what is
new. With `jump_n_sample` above 1 the canvas also goes back up again and again, as RePaint's windows do
(`joint.resampling`), so that what is new comes into harmony with what stays. All of it happens in latents: what stays
is the picture as the autoencoder renders it.

A picture is resized to the canvas, whatever its shape (Lanczos), as diffusers' pipelines do. A mask has the canvas's
size or the picture's, so that it lies on the picture; it is brought to the canvas's latent cells (box average), and a
cell is made new from half white on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from syncdiffusion.errors import UsageError
from syncdiffusion.files import open_picture, pixels_of
from syncdiffusion.joint.finite import finite
from syncdiffusion.joint.noise import noised
from syncdiffusion.memory import unless_out_of_memory

if TYPE_CHECKING:
    from PIL.Image import Image

    from syncdiffusion.backbones.backbone import Backbone
    from syncdiffusion.geometry.windows import Windows


@dataclass(frozen=True)
class Start:
    """What a canvas starts from.

    latents: of the picture, [1, c, h, w].
    new: [h, w], True where the canvas is made new; None where all of it is.
    blank: what is made new starts from noise alone.
    """

    latents: Tensor
    new: Tensor | None
    blank: bool

    def noised(self, noise: Tensor, signal: Tensor) -> Tensor:
        """The picture with `noise` [n, c, h, w], at a level alpha-bar."""
        return noised(self.latents, noise, signal)

    def first(self, noise: Tensor, signal: Tensor, windows: Windows | None = None) -> Tensor:
        """The canvases [n, c, h, w], or windows of them, that sampling starts from, out of standard normal noise."""
        latents = self.latents if windows is None else windows.crop(self.latents)
        mixed = noised(latents, noise, signal)
        if not self.blank or self.new is None:
            return mixed
        new = self.new if windows is None else windows.crop(self.new.expand_as(self.latents))
        return torch.where(new, noise, mixed)


def read_start(backbone: Backbone, settings: Any) -> Start | None:
    """What the settings name; None where they name no picture.

    Raises:
        UsageError: a file that is no picture, a mask of another size, or one that leaves nothing to be made.
    """
    name = getattr(settings, "start_image", None)
    if name is None:
        return None
    picture = open_picture("start_image", name)
    mask = None if settings.mask is None else _open_mask(settings, picture.size)
    if picture.size != (settings.width, settings.height):
        picture = picture.resize((settings.width, settings.height), _resampling().LANCZOS)
    pixels = pixels_of(picture, backbone.device, backbone.dtype)[None]
    latents = unless_out_of_memory(lambda: finite(backbone, "start image", lambda wide: wide.encode(pixels)), ())
    if latents is None:
        raise UsageError(f"start_image={name}: encoding it takes more than the free memory; use a smaller canvas")
    if mask is None:
        return Start(latents, None, blank=False)
    shares = np.array(mask.resize((latents.shape[-1], latents.shape[-2]), _resampling().BOX))
    new = torch.from_numpy(shares >= 128)
    if not new.any():
        raise UsageError(f"mask={settings.mask}: nothing in it is white, so nothing would be made new; paint it white")
    return Start(latents, new.to(latents.device), blank=settings.start_strength in (None, 1.0))


def _open_mask(settings: Any, picture: tuple[int, int]) -> Image:
    """The mask, in greyscale. picture: width and height of the start image."""
    mask = open_picture("mask", settings.mask, opaque=True).convert("L")
    sizes = dict.fromkeys([(settings.width, settings.height), picture])
    if mask.size not in sizes:
        wanted = " or ".join(f"{width}x{height}" for width, height in sizes)
        raise UsageError(
            f"mask={settings.mask}: is {mask.width}x{mask.height} px; give one of {wanted}, as its picture is"
        )
    return mask


def _resampling() -> Any:
    from PIL import Image

    return Image.Resampling
