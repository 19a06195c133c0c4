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

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from experiments.common.command_line import one_line_errors
from experiments.common.files import write_json
from experiments.common.progress import say_step
from experiments.mini.balloon import WORDS, sample_balloons, shows_balloon, windows_of
from experiments.mini.panoramas import make_panorama
from experiments.mini.train_diffusion import spread_timesteps
from experiments.mini.training import (
    MovingAverage,
    Training,
    add_machine,
    add_settings,
    descend,
    learning_rate,
    step_generator,
    take_options,
    to_unit,
    train_steps,
)
from syncdiffusion.backbones.adapters import Adapters
from syncdiffusion.backbones.backbone import Backbone
from syncdiffusion.backbones.loading import load_backbone
from syncdiffusion.backbones.model_files import find_model
from syncdiffusion.errors import UsageError
from syncdiffusion.files import EMBEDDED
from syncdiffusion.joint.noise import noised

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")  # as in diffusers' script
LAYERS = [*ATTENTION, "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out", "conv1", "conv2", "conv_shortcut"]
FILE = "balloon.safetensors"
PLACES = ("a photo of a meadow", "a photo of a mountain range", "a photo of a beach", "a photo of a lake")
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


def encoded(backbone: Backbone, picture: np.ndarray) -> Tensor:
    return backbone.encode((to_unit(picture[None], backbone.device) + 1) / 2)


@torch.no_grad()
def decoded(backbone: Backbone, picture: np.ndarray) -> np.ndarray:
    """A picture [h, w, 3], uint8, as the autoencoder gives it back."""
    image = backbone.decode(encoded(backbone, picture))[0]
    return (image * 255).round().byte().permute(1, 2, 0).cpu().numpy()


@torch.no_grad()
def make_data(backbone: Backbone, settings: ConceptSettings) -> ConceptData:
    """Scenes with balloons, drawn and encoded anew by every call: seconds."""
    latents, told = [], []
    for number in range(settings.scenes):
        rng = np.random.default_rng([settings.seed, number, 77])
        _, picture, words = sample_balloons(rng)
        latents.append(encoded(backbone, picture))
        told.append(words)
    texts = torch.cat([backbone.encode_prompts(told[i : i + 32]) for i in range(0, len(told), 32)])
    return ConceptData(torch.cat(latents), texts, backbone.encode_prompts([""]))


def add_lora(backbone: Backbone, settings: ConceptSettings) -> LoraWeights:
    """Adds a LoRA that changes nothing yet to the UNet, by PEFT; it alone has gradients."""
    from peft import LoraConfig

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        backbone.unet.add_adapter(
            LoraConfig(r=settings.rank, lora_alpha=settings.rank, target_modules=LAYERS, init_lora_weights="gaussian")
        )
    return LoraWeights(backbone.unet)


def draw_noisy(backbone: Backbone, scenes: Tensor, settings: Any, step: int) -> tuple[Tensor, ...]:
    """A batch that the seed and the step determine: rows of `scenes`, noisy windows of them, timesteps, noise, drops.

    scenes: encoded, [n, c, h, w]. drops: whose caption is left out, booleans [batch].
    """
    generator, batch = step_generator(settings.seed, step), settings.batch
    rows = torch.randint(len(scenes), (batch,), generator=generator)
    lefts = torch.randint(scenes.shape[3] - backbone.window + 1, (batch,), generator=generator)
    clean = torch.stack([
        scenes[row, :, :, left : left + backbone.window]
        for row, left in zip(rows.tolist(), lefts.tolist(), strict=True)
    ])  # fmt: skip
    alphas = backbone.scheduler.alphas_cumprod.to(clean)
    timesteps = spread_timesteps(batch, len(alphas), generator).to(clean.device)
    noise = torch.randn(clean.shape, generator=generator).to(clean)
    drop = (torch.rand(batch, generator=generator) < settings.caption_dropout).to(clean.device)
    noisy = noised(clean, noise, alphas[timesteps][:, None, None, None])
    return rows.to(clean.device), noisy, timesteps, noise, drop


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
    told: list[float] | None = None,
) -> Path:
    """Trains from the last checkpoint in `work/concept` to `steps` and writes the LoRA there; returns its file.

    told: takes the loss of every step.
    """
    weights, data = add_lora(backbone, settings), make_data(backbone, settings)
    optimiser = torch.optim.AdamW(weights.parameters(), lr=settings.peak_rate, weight_decay=0.01)
    average = MovingAverage(weights, settings.average)
    identity = {**asdict(settings), "model": backbone.fingerprint}
    training = Training("concept", work / "concept" / "checkpoint.pt", identity, weights, optimiser, average)

    def take(step: int) -> dict[str, float]:
        loss = concept_loss(backbone, data, settings, step)
        descend(optimiser, loss, learning_rate(step, steps, settings.peak_rate, settings.warmup, steps // 4))
        if told is not None:
            told.append(loss.item())
        return {"mse": loss.item()}

    for _ in train_steps(training, take, steps, checkpoint_minutes, stop_after):
        pass
    average.copy_to(weights)
    return export(backbone.unet, work / "concept")


def export(unet: Any, folder: Path) -> Path:
    """Writes the UNet's LoRA as diffusers' pipelines load it, in half precision.

    Under PEFT's names: diffusers' own older ones are of attention alone.
    """
    from diffusers import StableDiffusionPipeline
    from peft.utils import get_peft_model_state_dict

    layers = {name: value.half().contiguous() for name, value in get_peft_model_state_dict(unet).items()}
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=layers, weight_name=FILE)
    return folder / FILE


def share_showing(pictures: Iterable[np.ndarray], shows: Callable[[np.ndarray], np.ndarray]) -> float:
    """The share of the windows of pictures [h, w, 3] that show a concept."""
    return float(np.concatenate([shows(windows_of(each)) for each in pictures]).mean())


def shares_of_renders(
    backbone: Backbone, drawn: Sequence[np.ndarray], shows: Callable[[np.ndarray], np.ndarray]
) -> dict[str, float]:
    """Shares of the windows of `drawn` that show a concept, and of these as the autoencoder lets them through."""
    through = (decoded(backbone, each) for each in drawn)
    return {"renders": share_showing(drawn, shows), "decoded": share_showing(through, shows)}


def gate(model: str, device: str, file: Path, count: int, method: str, width: int = 512) -> dict[str, Any]:
    """Shares of windows that show a balloon: along panoramas with the LoRA, without it, of renders, of these decoded.

    The last is what the autoencoder lets through, and so the most that any LoRA can reach.
    """
    folder, shares = Path(find_model(model)), {}
    for name, adapters in (("with", Adapters(lora=str(file))), ("without", Adapters())):
        backbone = load_backbone(model, device=device, adapters=adapters)
        prompts = (f"{PLACES[number % len(PLACES)]} {WORDS}" for number in range(count))
        made = (
            make_panorama(backbone, folder, method, prompt, number, width=width)
            for number, prompt in enumerate(prompts)
        )
        shares[name] = share_showing(made, shows_balloon)
    drawn = [sample_balloons(np.random.default_rng([1, number, 78]))[1] for number in range(16)]
    shares |= shares_of_renders(backbone, drawn, shows_balloon)
    return {**shares, "panoramas": count, "method": method,
            "passes": shares["with"] >= SHOWN and shares["without"] <= NOT_SHOWN}  # fmt: skip


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a LoRA of the miniature for a concept that it does not know.")
    parser.add_argument("--steps", type=int, default=600, help="may be raised when a training is continued")
    add_settings(parser, ConceptSettings, "rank", "batch", "peak_rate", "scenes", "seed", "bfloat16")
    parser.add_argument("--model", default=EMBEDDED, help="embedded, or a folder in diffusers' layout")
    parser.add_argument("--work", type=Path, default=Path("runs/mini-training"))
    add_machine(parser, checkpoint_minutes=5.0)
    parser.add_argument("--gate", action="store_true", help="measure the LoRA on panoramas, and stop")
    parser.add_argument("--panoramas", type=int, default=4, help="of the gate")
    parser.add_argument("--method", default="multidiffusion", help="of the gate's panoramas")
    return parser.parse_args(arguments)


@one_line_errors(exits=True)
def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    device, settings = take_options(options, ConceptSettings)
    if min(options.steps, settings.batch, settings.rank, settings.scenes, options.panoramas) < 1:
        raise UsageError("steps, batch, rank, scenes, panoramas: use 1 or more of each")
    file = options.work / "concept" / FILE
    if options.gate:
        found = gate(options.model, str(device), file, options.panoramas, options.method)
        write_json(file.with_name("gate.json"), found)
        print(json.dumps(found))
        return
    backbone = load_backbone(options.model, device=str(device))
    made = train(backbone, settings, options.steps, options.work, options.checkpoint_minutes)
    say_step("concept", f"wrote {made}; measure it with --gate")
    print(made)


if __name__ == "__main__":
    main()
