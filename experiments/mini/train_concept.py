"""Trains a LoRA of the miniature for a concept that it does not know, a hot-air balloon (balloon.py), with PEFT.

    python -m experiments.mini.train_concept --threads 1
    python -m experiments.mini.train_concept --gate      # do balloons stand all along panoramas, with the LoRA alone?
    syncdiffusion "a photo of a meadow with a balloon" --lora runs/mini-training/concept/balloon.safetensors

syncdiffusion/weights/mini_balloon is what this made in 13 minutes of one core:

    python -m experiments.mini.train_concept --threads 1 --batch 16 --bfloat16 --steps 1500

As diffusers' train_text_to_image_lora.py: layers of the UNet get a LoRA, all else stays as it is, and the file is of
the format that any of diffusers' pipelines loads. There attention alone gets one, which suffices where the network can
already draw what it is to learn; this one cannot draw a balloon, so that its convolutions get one too. A second call
goes on from the last checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from experiments.common.command_line import one_line_errors
from experiments.mini.balloon import WORDS, sample_balloons, shows_balloon
from experiments.mini.teaching import (
    PLACES,
    draw_noisy,
    encoded_scenes,
    parse,
    run,
    share_of_panoramas,
    shares_of_renders,
    teach,
)
from syncdiffusion.backbones.adapters import Adapters
from syncdiffusion.backbones.backbone import Backbone
from syncdiffusion.backbones.loading import load_backbone
from syncdiffusion.backbones.model_files import find_model

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")  # as in diffusers' script
LAYERS = [*ATTENTION, "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out", "conv1", "conv2", "conv_shortcut"]
FILE = "balloon.safetensors"
SHOWN, NOT_SHOWN = 0.6, 0.2  # shares of windows with a balloon: with the LoRA at least, without it at most


@dataclass(frozen=True)
class ConceptSettings:
    """What determines the trained weights, apart from the number of steps."""

    rank: int = 16
    batch: int = 8
    peak_rate: float = 1e-3
    warmup: int = 20
    caption_dropout: float = 0.1
    average: float = 0.99
    scenes: int = 512
    seed: int = 0
    bfloat16: bool = False


@dataclass(frozen=True)
class ConceptData:
    """Encoded scenes [n, c, h, w] with their captions' embeddings [n, tokens, d], and that of no words [1, ...]."""

    latents: Tensor
    texts: Tensor
    empty: Tensor


class LoraWeights(nn.Module):
    """The LoRA's own parameters, which are the UNet's as well: what is trained, averaged and kept."""

    def __init__(self, unet: Any) -> None:
        super().__init__()
        found = {name: value for name, value in unet.named_parameters() if ".lora_" in name}
        self.values = nn.ParameterDict({name.replace(".", "/"): value for name, value in found.items()})


@torch.no_grad()
def make_data(backbone: Backbone, settings: ConceptSettings) -> ConceptData:
    """Scenes with balloons, drawn and encoded anew by every call: seconds."""

    def draw(number: int) -> tuple[np.ndarray, str]:
        _, picture, words = sample_balloons(np.random.default_rng([settings.seed, number, 77]))
        return picture, words

    latents, told = encoded_scenes(backbone, settings.scenes, draw)
    texts = torch.cat([backbone.encode_prompts(told[i : i + 32]) for i in range(0, len(told), 32)])
    return ConceptData(latents, texts, backbone.encode_prompts([""]))


def add_lora(backbone: Backbone, settings: ConceptSettings) -> LoraWeights:
    """Adds a LoRA that changes nothing yet to the UNet, by PEFT; it alone has gradients."""
    from peft import LoraConfig

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        backbone.unet.add_adapter(
            LoraConfig(r=settings.rank, lora_alpha=settings.rank, target_modules=LAYERS, init_lora_weights="gaussian")
        )
    return LoraWeights(backbone.unet)


def concept_loss(backbone: Backbone, data: ConceptData, settings: ConceptSettings, step: int) -> Tensor:
    """Mean squared error of the predicted noise, on a batch that the seed and the step determine."""
    rows, noisy, timesteps, noise, drop = draw_noisy(backbone, data.latents, settings, step)
    texts = torch.where(drop[:, None, None], data.empty, data.texts[rows])
    with torch.autocast(backbone.device.type, torch.bfloat16, enabled=settings.bfloat16):
        predicted = backbone.unet(noisy, timesteps, texts).sample
    return (predicted.float() - noise).square().mean()


def train(
    backbone: Backbone,
    settings: ConceptSettings,
    steps: int,
    work: Path,
    checkpoint_minutes: float = 5.0,
    stop_after: int | None = None,
) -> Path:
    """Trains from the last checkpoint in `work/concept` to `steps` and writes the LoRA there; returns its file."""
    weights, data = add_lora(backbone, settings), make_data(backbone, settings)

    def loss_of(step: int) -> Tensor:
        return concept_loss(backbone, data, settings, step)

    folder = teach("concept", backbone, weights, loss_of, settings, steps, work, 0.01, checkpoint_minutes, stop_after)
    return export(backbone.unet, folder)


def export(unet: Any, folder: Path) -> Path:
    """Writes the UNet's LoRA as diffusers' pipelines load it, in half precision.

    Under PEFT's names: diffusers' own older ones are of attention alone.
    """
    from diffusers import StableDiffusionPipeline
    from peft.utils import get_peft_model_state_dict

    layers = {name: value.half().contiguous() for name, value in get_peft_model_state_dict(unet).items()}
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=layers, weight_name=FILE)
    return folder / FILE


def gate(model: str, device: str, file: Path, count: int, method: str) -> dict[str, Any]:
    """Shares of windows with a balloon: along panoramas with the LoRA, without it, of renders, of these decoded."""
    folder, shares = Path(find_model(model)), {}
    prompts = [f"{PLACES[number % len(PLACES)]} {WORDS}" for number in range(count)]
    for name, adapters in (("with", Adapters(lora=str(file))), ("without", Adapters())):
        backbone = load_backbone(model, device=device, adapters=adapters)
        shares[name] = share_of_panoramas(backbone, folder, method, prompts, shows_balloon)
    drawn = [sample_balloons(np.random.default_rng([1, number, 78]))[1] for number in range(16)]
    shares |= shares_of_renders(backbone, drawn, shows_balloon)
    return {**shares, "panoramas": count, "method": method,
            "passes": shares["with"] >= SHOWN and shares["without"] <= NOT_SHOWN}  # fmt: skip


@one_line_errors(exits=True)
def main(arguments: list[str] | None = None) -> None:
    names = ("rank", "batch", "peak_rate", "scenes", "seed", "bfloat16")
    options = parse(
        arguments, "Train a LoRA of the miniature for a thing that it does not know.", ConceptSettings, *names
    )
    run(options, "concept", ConceptSettings, train, gate, FILE)


if __name__ == "__main__":
    main()
