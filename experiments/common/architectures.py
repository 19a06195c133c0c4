"""The published architectures of Stable Diffusion's networks, as facts: for counting, and for random weights.

From the configuration files that the models are published with (`unet/config.json`, `vae/config.json`), where they
depart from diffusers' defaults. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

TEXT_TOKENS = 77  # of a prompt


@dataclass(frozen=True)
class Architecture:
    """What a model's UNet and autoencoder are built from, the keywords of diffusers' classes.

    autoencoder: the class's name.
    tokens: of a prompt, as the UNet sees it.
    """

    unet: Mapping[str, Any]
    vae: Mapping[str, Any]
    autoencoder: str = "AutoencoderKL"
    tokens: int = field(default=TEXT_TOKENS)


UNET_1: dict[str, Any] = {  # Stable Diffusion 1.4 and 1.5
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
}
UNET_2: dict[str, Any] = {  # Stable Diffusion 2.0-base and 2.1-base
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "attention_head_dim": (5, 10, 20, 20),
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
}
UNET_XL: dict[str, Any] = {  # Stable Diffusion XL-base 1.0
    "sample_size": 128,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (320, 640, 1280),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
VAE: dict[str, Any] = {  # the same in all of them, but for its size
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "sample_size": 512,
}
PUBLISHED: dict[str, Architecture] = {  # what a hub id has in it, the longest first
    "stable-diffusion-xl": Architecture(UNET_XL, VAE),
    "stable-diffusion-v1": Architecture(UNET_1, VAE),
    "stable-diffusion-2": Architecture(UNET_2, VAE),
}
