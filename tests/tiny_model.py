"""Builds diffusion models with random weights in diffusers' folder format: a tiny one, and one of full size."""

import json
from pathlib import Path

import torch

from experiments.benchmarks.cases import SCHEDULE
from experiments.common.architectures import TEXT_TOKENS, UNET_2, VAE


def build_tiny_model(folder: Path, window: int = 8, seed: int = 0) -> Path:
    """Write a loadable StableDiffusionPipeline folder with random weights; returns `folder`.

    window: latent cells; the images are 8 times as large. The networks are of Stable Diffusion's own
    classes (KL autoencoder with group norm, cross-attention UNet, CLIP text encoder).
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=window,
            in_channels=4,
            out_channels=4,
            block_out_channels=(16, 32),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=16,
            attention_head_dim=8,
            norm_num_groups=8,
        )
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(8, 8, 8, 8),
            layers_per_block=1,
            norm_num_groups=4,
            latent_channels=4,
            sample_size=8 * window,
        )
        # A random decoder's images lie near grey; stretched, some pixels saturate as real ones do.
        vae.decoder.conv_out.weight.data *= 4
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=260,
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                max_position_embeddings=16,
                bos_token_id=256,
                eos_token_id=257,
                pad_token_id=257,
            )
        )
    return _write_folder(folder, unet, vae, text_encoder, tokens=16)


def build_stable_diffusion_2(folder: Path) -> Path:
    """Stable Diffusion 2.0-base's architecture (866 M parameters in the UNet) with random weights, 5 GB on disk."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DConditionModel(**UNET_2)
        vae = AutoencoderKL(**VAE)
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=49408,
                hidden_size=1024,
                intermediate_size=4096,
                num_hidden_layers=23,
                num_attention_heads=16,
                hidden_act="gelu",
                bos_token_id=256,
                eos_token_id=257,
                pad_token_id=257,
            )
        )
    return _write_folder(folder, unet, vae, text_encoder, tokens=TEXT_TOKENS)


def _write_folder(folder: Path, unet, vae, text_encoder, tokens: int) -> Path:
    """All parts, a tokenizer of single letters that pads to `tokens`, and SD's schedule."""
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(**SCHEDULE)
    for name, part in (("unet", unet), ("vae", vae), ("text_encoder", text_encoder), ("scheduler", scheduler)):
        part.save_pretrained(folder / name)
    _write_tokenizer(folder / "tokenizer", tokens)
    index = {
        "_class_name": "StableDiffusionPipeline",
        "feature_extractor": [None, None],
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def _write_tokenizer(folder: Path, tokens: int) -> None:
    """A CLIP tokenizer of letters without merges."""
    folder.mkdir()
    letters = "abcdefghijklmnopqrstuvwxyz0123456789,.!'-"
    words = [*letters, *(letter + "</w>" for letter in letters)]
    vocabulary = {word: i for i, word in enumerate(words)}
    vocabulary |= {"<|startoftext|>": 256, "<|endoftext|>": 257}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": tokens,
        "unk_token": "<|endoftext|>",
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
