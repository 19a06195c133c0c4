"""Trains Custom Diffusion of the miniature for a look that it does not know, sepia (sepia.py), with diffusers' parts.

    python -m experiments.mini.train_look --threads 1
    python -m experiments.mini.train_look --gate      # are panoramas brown where the new word says so, and only there?
    syncdiffusion "<sepia> a photo of a lake" --custom-diffusion runs/mini-training/look

syncdiffusion/weights/mini_sepia is what this made in 25 minutes of one core, beside other work:

    python -m experiments.mini.train_look --threads 1 --bfloat16 --steps 2300

As diffusers' train_custom_diffusion.py with `--freeze_model crossattn` (Kumari et al., CVPR 2023): cross-attention and
the embedding of one new word are trained, nothing else. This UNet has two cross-attentions, whose keys and values alone
turned colours half of the way. Half of the scenes are ordinary ones under ordinary captions, so that what is learnt
stays with the word. The folder is the script's: weights of attention, and a file of the word. A second call goes on
from the last checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from experiments.common.command_line import one_line_errors
from experiments.mini.diffusion_data import tokenize
from experiments.mini.sepia import TOKEN, is_sepia, sample_look
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
from syncdiffusion.backbones.adapters import CUSTOM_DIFFUSION, TOKENS, Adapters
from syncdiffusion.backbones.adapting import LAYERS
from syncdiffusion.backbones.backbone import Backbone
from syncdiffusion.backbones.loading import load_backbone
from syncdiffusion.backbones.model_files import find_model
from syncdiffusion.errors import UsageError

BEGIN = "photo"  # the word whose embedding the new one begins with
HAS, HAS_NOT = 0.6, 0.1  # shares of windows in browns: with the word at least, without it at most


@dataclass(frozen=True)
class LookSettings:
    """What determines the trained weights, apart from the number of steps."""

    batch: int = 16
    peak_rate: float = 2e-3
    warmup: int = 20
    caption_dropout: float = 0.1
    average: float = 0.99
    scenes: int = 512
    seed: int = 0
    bfloat16: bool = False


@dataclass(frozen=True)
class LookData:
    """Encoded scenes [n, c, h, w] and the tokens of their captions [n, t]; tokens of no words [1, t]."""

    latents: Tensor
    tokens: Tensor
    empty: Tensor


class LookWeights(nn.Module):
    """What is trained, averaged and kept: the layers of cross-attention, and the new word's embedding [d]."""

    def __init__(self, unet: Any, embedding: Tensor) -> None:
        super().__init__()
        self.embedding = nn.Parameter(embedding.clone())
        self.attention = nn.ModuleDict({
            name.removesuffix(".processor").replace(".", "/"): processor
            for name, processor in unet.attn_processors.items()
            if name.endswith("attn2.processor")
        })  # fmt: skip


@torch.no_grad()
def make_data(backbone: Backbone, settings: LookSettings) -> LookData:
    """Scenes in turn with and without the look, drawn and encoded anew by every call: seconds."""

    def draw(number: int) -> tuple[np.ndarray, str]:
        return sample_look(np.random.default_rng([settings.seed, number, 79]), looks=number % 2 == 0)

    latents, told = encoded_scenes(backbone, settings.scenes, draw)
    tokens, empty = (tokenize(backbone.tokenizer, each).long().to(backbone.device) for each in (told, [""]))
    return LookData(latents, tokens, empty)


def add_look(backbone: Backbone) -> LookWeights:
    """Adds the word and, by diffusers' processors, the layers; nothing has changed yet, and they alone are trained.

    Raises:
        UsageError: the model's text encoder knows the word already.
    """
    from diffusers.models.attention_processor import CustomDiffusionAttnProcessor2_0

    tokenizer, unet = backbone.tokenizer, backbone.unet
    encoder: Any = backbone.text_encoder
    if not tokenizer.add_tokens(TOKEN):
        raise UsageError(f"model={backbone.model_id}: knows the word {TOKEN} already")
    encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    processors = {}
    for name in unet.attn_processors:
        layer, cross = unet.get_submodule(name.removesuffix(".processor")), name.endswith("attn2.processor")
        processors[name] = CustomDiffusionAttnProcessor2_0(
            train_kv=cross, train_q_out=cross, hidden_size=layer.to_q.out_features,
            cross_attention_dim=layer.to_k.in_features if cross else None,
        ).to(backbone.device)  # fmt: skip
        for mine, value in processors[name].named_parameters():
            part, _, kind = mine.rpartition(".")
            value.data.copy_(layer.get_parameter(f"{LAYERS[part]}.{kind}"))
    unet.set_attn_processor(processors)
    begin = tokenizer(BEGIN, add_special_tokens=False).input_ids[0]
    return LookWeights(unet, encoder.get_input_embeddings().weight[begin].detach())


@contextmanager
def word_in_use(backbone: Backbone, weights: LookWeights) -> Iterator[None]:
    """Has the text encoder read the word's embedding in `weights`, through which gradients come back to it."""
    number = backbone.tokenizer.convert_tokens_to_ids(TOKEN)
    encoder: Any = backbone.text_encoder

    def replace(layer: nn.Module, arguments: tuple[Tensor], found: Tensor) -> Tensor:
        return torch.where((arguments[0] == number)[..., None], weights.embedding.to(found.dtype), found)

    handle = encoder.get_input_embeddings().register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()


def look_loss(backbone: Backbone, data: LookData, settings: LookSettings, step: int) -> Tensor:
    """Mean squared error of the predicted noise, on a batch that the seed and the step determine."""
    rows, noisy, timesteps, noise, drop = draw_noisy(backbone, data.latents, settings, step)
    tokens = torch.where(drop[:, None], data.empty, data.tokens[rows])
    encoder: Any = backbone.text_encoder
    with torch.autocast(backbone.device.type, torch.bfloat16, enabled=settings.bfloat16):
        predicted = backbone.unet(noisy, timesteps, encoder(tokens).last_hidden_state).sample
    return (predicted.float() - noise).square().mean()


def train(
    backbone: Backbone,
    settings: LookSettings,
    steps: int,
    work: Path,
    checkpoint_minutes: float = 5.0,
    stop_after: int | None = None,
) -> Path:
    """Trains from the last checkpoint in `work/look` to `steps` and writes the folder, which it returns."""
    weights = add_look(backbone)
    data = make_data(backbone, settings)

    def loss_of(step: int) -> Tensor:
        return look_loss(backbone, data, settings, step)

    with word_in_use(backbone, weights):
        folder = teach("look", backbone, weights, loss_of, settings, steps, work, 0.0, checkpoint_minutes, stop_after)
    return export(backbone.unet, weights.embedding, folder)


def export(unet: Any, embedding: Tensor, folder: Path) -> Path:
    """Writes what diffusers' train_custom_diffusion.py writes, as safetensors and in half precision."""
    from safetensors.torch import load_file, save_file

    unet.save_attn_procs(folder, safe_serialization=True)
    file = folder / f"{CUSTOM_DIFFUSION}.safetensors"
    save_file({name: value.half() for name, value in load_file(file).items()}, file)
    save_file({TOKEN: embedding.detach().half().cpu()}, folder / f"{TOKENS}.safetensors")
    for each in folder.glob("*.safetensors"):
        each.chmod(0o644)
    return folder


def gate(model: str, device: str, folder: Path, count: int, method: str) -> dict[str, Any]:
    """Shares of windows in browns: of panoramas with the word, without it, of renders in browns, of these decoded."""
    of_model, shares = Path(find_model(model)), {}
    backbone = load_backbone(model, device=device, adapters=Adapters(custom_diffusion=str(folder)))
    places = [PLACES[number % len(PLACES)] for number in range(count)]
    for name, prefix in (("with", f"{TOKEN} "), ("without", "")):
        prompts = [prefix + place for place in places]
        shares[name] = share_of_panoramas(backbone, of_model, method, prompts, is_sepia)
    drawn = [sample_look(np.random.default_rng([1, number, 80]), looks=True)[0] for number in range(16)]
    shares |= shares_of_renders(backbone, drawn, is_sepia)
    return {**shares, "panoramas": count, "method": method,
            "passes": shares["with"] >= HAS and shares["without"] <= HAS_NOT}  # fmt: skip


@one_line_errors(exits=True)
def main(arguments: list[str] | None = None) -> None:
    names = ("batch", "peak_rate", "scenes", "seed", "bfloat16")
    options = parse(
        arguments, "Train Custom Diffusion of the miniature for a look it does not know.", LookSettings, *names
    )
    run(options, "look", LookSettings, train, gate)


if __name__ == "__main__":
    main()
