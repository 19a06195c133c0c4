"""The miniature model itself: architecture, Stable Diffusion pipeline, samples, the folder it ships as."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from experiments.mini.captions import PAPER_PROMPTS
from experiments.mini.files import contact_sheet, move_files
from experiments.mini.tokenizer import MAX_TOKENS
from experiments.mini.training import step_generator
from experiments.mini.words import write_words

if TYPE_CHECKING:
    from diffusers import DDIMScheduler, StableDiffusionPipeline
    from transformers import CLIPTokenizer

TRAIN_TIMESTEPS = 1000
# Words of somebody who has not read the grammar.
NEWCOMERS = ("a beach", "a desert", "a village in the snow", "the northern lights", "a spaceship")


@dataclass(frozen=True)
class DiffusionSettings:
    """What determines the trained weights, apart from the number of steps and the data.

    latent_channels: those of the autoencoder.
    channels: UNet channels at 16x16, 8x8 and 4x4 latents.
    text_width: width of the text encoder and of the cross-attention's keys.
    caption_dropout: share of empty prompts, for classifier-free guidance.
    caption_shares: how often each of a scene's captions is taken.
    snr_gamma: clamp of the signal-to-noise ratio in the loss weight; 0 for the plain loss.
    averages: decays of the moving averages of the weights; the best of them is exported.
    bfloat16: autocast; the weights and the optimiser stay float32.
    """

    latent_channels: int = 16
    channels: tuple[int, int, int] = (96, 144, 192)
    text_width: int = 128
    text_layers: int = 2
    batch: int = 32
    peak_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup: int = 100
    caption_dropout: float = 0.1
    caption_shares: tuple[float, float, float] = (0.5, 0.35, 0.15)
    # Min-SNR leaves out the last, faint noise, where errors in the picture are tiny. Its usual 5 is for latents of
    # deviation 1: of these, with half of it, the finest components deviate by 0.35 and stand out of the noise at an SNR
    # of 8 and more, where at 5 they would hardly count and shapes stay blobs.
    snr_gamma: float = 80.0
    averages: tuple[float, float, float] = (0.998, 0.99, 0.9995)
    seed: int = 0
    bfloat16: bool = False


def build_models(settings: DiffusionSettings, vocabulary: int, size: int = 16) -> nn.ModuleDict:
    """UNet and text encoder with random weights.

    Attention, to itself and to the text, sits at 8x8 on the way down and in the middle block, where it costs
    least. What a caption says about the whole picture (hour, season, style) must also reach the fine levels:
    the pooled text is added to the timestep embedding (`addition_embed_type="text"`), which every residual
    block sees. Pipelines need not know: the UNet makes it from `encoder_hidden_states`.

    Args:
        vocabulary: number of tokens; the last two are the start and the end.
        size: side of the latents of a window.
    """
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    text = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=settings.text_width,
        intermediate_size=4 * settings.text_width,
        num_hidden_layers=settings.text_layers,
        num_attention_heads=settings.text_width // 32,
        max_position_embeddings=MAX_TOKENS,
        projection_dim=settings.text_width,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        pad_token_id=vocabulary - 1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        unet = UNet2DConditionModel(
            sample_size=size,
            in_channels=settings.latent_channels,
            out_channels=settings.latent_channels,
            block_out_channels=settings.channels,
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D",) * len(settings.channels),
            cross_attention_dim=settings.text_width,
            # diffusers takes the number of heads under this name; 32 channels a head.
            attention_head_dim=tuple(max(1, width // 32) for width in settings.channels),
            norm_num_groups=16,
            addition_embed_type="text",
            addition_embed_type_num_heads=settings.text_width // 32,
        )
        return nn.ModuleDict({"unet": unet, "text_encoder": CLIPTextModel(text)})


def build_scheduler() -> DDIMScheduler:
    """Stable Diffusion's DDIM schedule."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        num_train_timesteps=TRAIN_TIMESTEPS,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="epsilon",
    )


def attention_kernel(device: torch.device) -> AbstractContextManager[None]:
    """Which attention to train with.

    On the CPU the backward pass of PyTorch's fused attention is slow at so few tokens: it took a third of
    the mini-CLIP's step and 7 % of the UNet's, plain matrix products a fraction of that.
    """
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()


def build_pipeline(models: nn.ModuleDict, vae: nn.Module, tokenizer: CLIPTokenizer) -> StableDiffusionPipeline:
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=models["text_encoder"].eval(),
        tokenizer=tokenizer,
        unet=models["unet"].eval(),
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def sample(
    pipeline: StableDiffusionPipeline, prompts: Sequence[str], seed: int, steps: int = 25, guidance: float = 3.0
) -> np.ndarray:
    """One picture a prompt, uint8 [n, h, w, 3]; picture i has its own generator, from (seed, i)."""
    shape = (1, pipeline.unet.config.in_channels, *[pipeline.unet.config.sample_size] * 2)
    noise = torch.cat([torch.randn(shape, generator=step_generator(seed, i)) for i in range(len(prompts))])
    parts = []
    for begin in range(0, len(prompts), 16):
        part = slice(begin, begin + 16)
        images = pipeline(
            list(prompts[part]),
            latents=noise[part].to(pipeline.device),
            num_inference_steps=steps,
            guidance_scale=guidance,
            output_type="np",
        ).images
        parts.append((images * 255.0).round().astype(np.uint8))
    return np.concatenate(parts)


def write_samples(pipeline: StableDiffusionPipeline, path: Path, columns: int = 8) -> None:
    """A contact sheet: a row for each of the paper's prompts and of a newcomer's, the same noise at every call."""
    prompts = (*PAPER_PROMPTS, *NEWCOMERS)
    images = sample(pipeline, [prompt for prompt in prompts for _ in range(columns)], seed=1)
    contact_sheet([images[i : i + columns] for i in range(0, len(images), columns)], path)


def export(pipeline: StableDiffusionPipeline, tokenizer_folder: Path, folder: Path) -> None:
    """Writes the diffusers folder and the words of the captions; other files in it stay.

    The pipeline's own weights become half precision.

    UNet and autoencoder are stored in half precision, the text encoder (0.5 M parameters) in single:
    transformers opens a model in the precision it is stored in, diffusers in single, and a plain
    `from_pretrained` would otherwise end with a half-precision text encoder before a single-precision UNet.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pipeline.unet.half()
    pipeline.vae.half()
    # Beside the folder, whose fingerprint what a killed export leaves would change.
    with TemporaryDirectory(dir=folder.parent, prefix=".export-") as name:
        made = Path(name)
        pipeline.save_pretrained(made)
        # Only vocab.json and merges.txt define the tokenizer; a tokenizer.json beside them would be a second truth.
        shutil.rmtree(made / "tokenizer")
        shutil.copytree(tokenizer_folder, made / "tokenizer")
        for file in made.rglob("*.json"):
            # diffusers notes where a part was loaded from, which means nothing elsewhere.
            record = json.loads(file.read_text(encoding="utf-8"))
            record.pop("_name_or_path", None)
            if record.get("_class_name") == "AutoencoderTiny":
                record.pop("block_out_channels", None)  # it sets this itself, and warns where it finds it set
            file.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        move_files(made, folder, last="model_index.json")  # without the index the folder does not open
    write_words(folder)
