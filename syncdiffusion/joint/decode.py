"""From denoised canvases to pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from syncdiffusion.backbones.backbone import Backbone


@torch.no_grad()
def decode_canvas(backbone: Backbone, canvas: Tensor) -> Tensor:
    """Whole canvases at once, as the released code does: images [n, 3, H, W] in [0, 1], float32 on the CPU."""
    return torch.cat([backbone.decode(one[None]).float().cpu() for one in canvas])
