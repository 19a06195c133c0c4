"""What Stable Diffusion XL is told (Podell et al., ICLR 2024, section 2 and appendix D): two texts, and sizes.

A prompt goes through two CLIP text encoders. The UNet attends to the last hidden states but one of both, side by side;
the pooled embedding of the second is added to its embedding of the timestep, and so are six numbers about sizes: those
of the image that it was cut from, the top and left edge of the crop, and the size wanted. All as diffusers'
StableDiffusionXLPipeline has it.

To everything outside this file a prompt is one tensor [tokens + 1, d], as it is [tokens, d] of Stable Diffusion: the
pooled embedding is its last row, filled up with zeros. So whatever picks, repeats or stacks prompts knows nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

SIZES = 6  # numbers


def pooled_width(unet: Any) -> int:
    """Of the pooled embedding that a UNet takes: what its added embedding is made of, without the sizes."""
    return unet.config.projection_class_embeddings_input_dim - SIZES * unet.config.addition_time_embed_dim


def check_unet(unet: Any, encoders: Sequence[Any]) -> None:
    """Refuse what is not Stable Diffusion XL's kind, or Stable Diffusion's where there is one encoder.

    Raises:
        ValueError: says why.
    """
    kind, is_xl = unet.config.addition_embed_type, len(encoders) == 2
    if kind not in (("text_time",) if is_xl else (None, "text")):  # "text": of what it attends to, and nothing more
        raise ValueError(f"its UNet wants addition_embed_type={kind}, with {len(encoders)} text encoders")
    width = sum(each.config.hidden_size for each in encoders)
    if unet.config.cross_attention_dim not in (width, [width] * len(unet.config.block_out_channels)):
        raise ValueError(f"its text has {width} numbers a token, its UNet wants {unet.config.cross_attention_dim}")
    if is_xl and not encoders[1].config.projection_dim == pooled_width(unet) <= width:
        raise ValueError(f"its UNet wants {pooled_width(unet)} numbers beside the sizes, as SDXL's refiner does not")


def join(states: Sequence[Tensor], pooled: Tensor) -> Tensor:
    """Prompts [n, tokens + 1, d] of the hidden states of both encoders, [n, tokens, d1] and [n, tokens, d2]."""
    attended = torch.cat(list(states), dim=2)
    filled = torch.nn.functional.pad(pooled, (0, attended.shape[2] - pooled.shape[1]))
    return torch.cat([attended, filled[:, None]], dim=1)


def told(unet: Any, prompts: Tensor, size: tuple[int, int]) -> tuple[Tensor, dict[str, Tensor]]:
    """What the UNet attends to, [n, tokens, d], and what is added to its timestep, by the names of its keywords.

    size: height and width in pixels, told as the original image's and as the wanted one's; the crop is at (0, 0).
    """
    numbers = torch.tensor([*size, 0, 0, *size], device=prompts.device, dtype=prompts.dtype)
    pooled = prompts[:, -1, : pooled_width(unet)]
    return prompts[:, :-1], {"text_embeds": pooled, "time_ids": numbers.expand(len(prompts), SIZES)}
