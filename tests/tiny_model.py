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
    from transformers import CLIPTextModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = _tiny_unet(window, cross_attention_dim=16)
        vae = _tiny_autoencoder(window)
        text_encoder = CLIPTextModel(_tiny_text(num_hidden_layers=1))
    return _write_folder(folder, unet, vae, text_encoder, tokens=16)


def build_tiny_xl(folder: Path, window: int = 8, seed: int = 0) -> Path:
    """The same of Stable Diffusion XL's kind: StableDiffusionXLPipeline, two text encoders, Euler's scheduler."""
    from diffusers import EulerDiscreteScheduler
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = _tiny_unet(
            window,
            cross_attention_dim=16 + 24,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + 20,
            use_linear_projection=True,
            transformer_layers_per_block=(1, 2),
        )
        vae = _tiny_autoencoder(window, scaling_factor=0.13025)
        text_encoder = CLIPTextModel(_tiny_text(num_hidden_layers=2))
        second = CLIPTextModelWithProjection(
            _tiny_text(num_hidden_layers=3, hidden_size=24, projection_dim=20, hidden_act="gelu")
        )
    second.save_pretrained(folder / "text_encoder_2")
    _write_tokenizer(folder / "tokenizer_2", 16, pad_token="!")
    _write_folder(folder, unet, vae, text_encoder, tokens=16)
    settled = {name: value for name, value in SCHEDULE.items() if name not in ("clip_sample", "set_alpha_to_one")}
    EulerDiscreteScheduler(**settled, timestep_spacing="leading").save_pretrained(folder / "scheduler")
    index = json.loads((folder / "model_index.json").read_text())
    index |= {
        "_class_name": "StableDiffusionXLPipeline",
        "force_zeros_for_empty_prompt": True,
        "image_encoder": [None, None],
        "scheduler": ["diffusers", "EulerDiscreteScheduler"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
    }
    del index["safety_checker"]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def _tiny_unet(window: int, **others):
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=window,
        in_channels=4,
        out_channels=4,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=8,
        norm_num_groups=8,
        **others,
    )


def _tiny_autoencoder(window: int, **others):
    from diffusers import AutoencoderKL

    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=8 * window,
        **others,
    )
    # A random decoder's images lie near grey; stretched, some pixels saturate as real ones do.
    vae.decoder.conv_out.weight.data *= 4
    return vae


def _tiny_text(**others):
    from transformers import CLIPTextConfig

    common = {
        "vocab_size": 260,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_attention_heads": 2,
        "max_position_embeddings": 16,
        "bos_token_id": 256,
        "eos_token_id": 257,
        "pad_token_id": 257,
    }
    return CLIPTextConfig(**{**common, **others})


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


def _write_tokenizer(folder: Path, tokens: int, pad_token: str = "<|endoftext|>") -> None:
    """A CLIP tokenizer of letters without merges, with a number for each row of the text encoder's embedding."""
    folder.mkdir(parents=True)
    letters = "abcdefghijklmnopqrstuvwxyz0123456789,.!'-"
    words = [*letters, *(letter + "</w>" for letter in letters)]
    words += [f"<|{number}|>" for number in range(len(words), 256)]  # as many as there are bytes, as CLIP's
    vocabulary = {word: i for i, word in enumerate(words)}
    vocabulary |= {"<|startoftext|>": 256, "<|endoftext|>": 257, "<|258|>": 258, "<|259|>": 259}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": tokens,
        "unk_token": "<|endoftext|>",
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": pad_token,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
