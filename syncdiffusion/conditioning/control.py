"""ControlNets (Zhang et al., ICCV 2023): networks that steer the UNet by a picture of the whole canvas.

Every window gets its part of the picture (MultiDiffusion's and SyncDiffusion's demonstrations do the same), so that
what is drawn there runs on from window to window. Several ControlNets add up. What each gets, and in which steps, is as
in diffusers' StableDiffusionControlNetPipeline: both halves of the guidance pair see it, and step i of n does where
i / n >= start and (i + 1) / n <= end.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from syncdiffusion.backbones.backbone import dtype_of
from syncdiffusion.backbones.loading import freeze
from syncdiffusion.conditioning.control_settings import lies_between
from syncdiffusion.conditioning.text import Control
from syncdiffusion.errors import UsageError, first_line
from syncdiffusion.files import controlnet_place, of_hubs_form, open_picture, pixels_of
from syncdiffusion.method_settings import JointSettings

if TYPE_CHECKING:
    from syncdiffusion.backbones.backbone import Backbone
    from syncdiffusion.geometry.windows import Windows
    from syncdiffusion.joint.task import Step


@dataclass(frozen=True)
class CanvasControl:
    """What steers a canvas.

    image: [3, H, W] in [0, 1], in pixels.
    start, end: shares of the steps.
    """

    network: Any  # diffusers' ControlNetModel
    image: Tensor
    scale: float
    start: float
    end: float

    def active(self, step: Step) -> bool:
        return lies_between(step.index, step.count, self.start, self.end)

    def at(self, windows: Windows, canvases: int, factor: int) -> Control:
        """Its part of each window, of `canvases` canvases one after the other; `factor` pixels per latent cell."""
        parts = windows.enlarged(factor).crop(self.image.expand(canvases, *self.image.shape))
        return Control(self.network, parts.flatten(0, 1), self.scale)


def read_controls(backbone: Backbone, settings: JointSettings) -> tuple[CanvasControl, ...]:
    """What a method's settings steer a canvas by.

    Raises:
        UsageError: a picture that cannot be read or is not of the panorama's size, a ControlNet that cannot be loaded
            or is another model's.
    """
    return tuple(
        CanvasControl(load_controlnet(backbone, network), read_canvas(backbone, path, settings), *others)
        for network, path, *others in settings.controls()
    )


def read_canvas(backbone: Backbone, path: str, settings: JointSettings) -> Tensor:
    """A picture of the panorama's size, [3, height, width] in [0, 1]."""
    picture = open_picture("control_image", path)
    if picture.size != (settings.width, settings.height):
        raise UsageError(
            f"control_image={path}: is {picture.width}x{picture.height} px, the panorama {settings.width}x"
            f"{settings.height}; give one of its size"
        )
    return pixels_of(picture, backbone.device, backbone.dtype)


def load_controlnet(backbone: Backbone, name: str) -> Any:
    """The ControlNet in a folder or hub repository, frozen, in the precision of the backbone's UNet.

    name: embedded for the miniature's, a folder, or a hub id, as owner/name or owner/name@revision. Safetensors only.

    Raises:
        UsageError: there is none, or it is of another model.
    """
    network = _load(name, backbone.device, dtype_of(backbone.unet))
    for part in ("cross_attention_dim", "in_channels", "block_out_channels"):
        own, needed = network.config[part], backbone.unet.config[part]
        if _plain(own) != _plain(needed):
            raise UsageError(
                f"controlnet={name}: is another model's ({part} {own}, of {backbone.model_id} {needed}); "
                "give one that was trained for this model"
            )
    factor = 2 ** (len(network.config["conditioning_embedding_out_channels"]) - 1)
    if factor != backbone.factor:
        raise UsageError(
            f"controlnet={name}: takes {factor} px for a latent cell, {backbone.model_id} {backbone.factor}; "
            "give one that was trained for this model"
        )
    return network


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


@functools.lru_cache(maxsize=4)  # panoramas are made one by one
def _load(name: str, device: torch.device, dtype: torch.dtype) -> Any:
    from diffusers import ControlNetModel

    folder, (repository, _, revision) = controlnet_place(name), name.partition("@")
    source: Path | str = folder if folder.is_dir() else repository
    if isinstance(source, str) and not of_hubs_form(source):
        raise UsageError(f"controlnet={name}: no such folder; give an existing one or a hub id such as owner/name")
    where = {"revision": revision} if revision and isinstance(source, str) else {}
    try:
        network, told = ControlNetModel.from_pretrained(
            source, use_safetensors=True, torch_dtype=torch.float32, output_loading_info=True, **where
        )
    except (OSError, ValueError) as error:
        reason = first_line(error)
        raise UsageError(f"controlnet={name}: could not be loaded ({reason}); check the name and the network") from None
    if missing := sorted(told["missing_keys"]):
        raise UsageError(
            f"controlnet={name}: {len(missing)} of its weights were not found ({missing[0]}, ...); take whole files"
        )
    return freeze(network, device, dtype)
