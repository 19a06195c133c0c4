"""What the scripts share that teach the miniature what it does not know: a thing (train_concept), a look (train_look).

Scenes that show it are drawn and encoded, a few weights are trained on noisy windows of them, and a gate looks for it
in panoramas, in renders, and in what the autoencoder lets through of these.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from experiments.common.files import write_json
from experiments.common.progress import say_step
from experiments.mini.balloon import windows_of
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
from syncdiffusion.backbones.backbone import Backbone
from syncdiffusion.backbones.loading import load_backbone
from syncdiffusion.errors import UsageError
from syncdiffusion.files import EMBEDDED
from syncdiffusion.joint.noise import noised

PLACES = ("a photo of a meadow", "a photo of a mountain range", "a photo of a beach", "a photo of a lake")
WIDTH = 512  # pixels of a gate's panoramas

Shows = Callable[[np.ndarray], np.ndarray]  # windows [n, h, w, 3], uint8 -> which of them show it, booleans [n]
AT_LEAST_ONE = ("steps", "batch", "rank", "scenes", "panoramas")


def encoded(backbone: Backbone, picture: np.ndarray) -> Tensor:
    return backbone.encode((to_unit(picture[None], backbone.device) + 1) / 2)


@torch.no_grad()
def decoded(backbone: Backbone, picture: np.ndarray) -> np.ndarray:
    """A picture [h, w, 3], uint8, as the autoencoder gives it back."""
    image = backbone.decode(encoded(backbone, picture))[0]
    return (image * 255).round().byte().permute(1, 2, 0).cpu().numpy()


@torch.no_grad()
def encoded_scenes(
    backbone: Backbone, count: int, draw: Callable[[int], tuple[np.ndarray, str]]
) -> tuple[Tensor, list[str]]:
    """Scenes [n, c, h, w] and their captions; draw: number of a scene -> its picture [h, w, 3], uint8, and caption."""
    latents, told = [], []
    for number in range(count):
        picture, words = draw(number)
        latents.append(encoded(backbone, picture))
        told.append(words)
    return torch.cat(latents), told


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


def teach(
    name: str,
    backbone: Backbone,
    weights: nn.Module,
    loss_of: Callable[[int], Tensor],
    settings: Any,
    steps: int,
    work: Path,
    weight_decay: float,
    checkpoint_minutes: float,
    stop_after: int | None,
) -> Path:
    """Trains `weights` from the last checkpoint in `work/name` to `steps`; they end as their average.

    loss_of: number of a step -> its loss.

    Returns:
        the folder `work/name`.
    """
    optimiser = torch.optim.AdamW(weights.parameters(), lr=settings.peak_rate, weight_decay=weight_decay)
    average = MovingAverage(weights, settings.average)
    identity = {**asdict(settings), "model": backbone.fingerprint}
    training = Training(name, work / name / "checkpoint.pt", identity, weights, optimiser, average)

    def take(step: int) -> dict[str, float]:
        loss = loss_of(step)
        descend(optimiser, loss, learning_rate(step, steps, settings.peak_rate, settings.warmup, steps // 4))
        return {"mse": loss.item()}

    for _ in train_steps(training, take, steps, checkpoint_minutes, stop_after):
        pass
    average.copy_to(weights)
    return work / name


def share_of_panoramas(
    backbone: Backbone, folder: Path, method: str, prompts: Sequence[str], shows: Shows, width: int = WIDTH
) -> float:
    """The share of the windows of panoramas, of these prompts by seeds from 0 on, that show it; folder: the model's."""
    made = (make_panorama(backbone, folder, method, prompt, seed, width=width) for seed, prompt in enumerate(prompts))
    return share_showing(made, shows)


def share_showing(pictures: Iterable[np.ndarray], shows: Shows) -> float:
    """The share of the windows of pictures [h, w, 3] that show it."""
    return float(np.concatenate([shows(windows_of(each)) for each in pictures]).mean())


def shares_of_renders(backbone: Backbone, drawn: Sequence[np.ndarray], shows: Shows) -> dict[str, float]:
    """Shares of the windows of `drawn` that show it, and of these as the autoencoder lets them through.

    The second is the most that any training of this autoencoder's model can reach.
    """
    through = (decoded(backbone, each) for each in drawn)
    return {"renders": share_showing(drawn, shows), "decoded": share_showing(through, shows)}


def parse(arguments: list[str] | None, description: str, settings: type, *names: str) -> argparse.Namespace:
    """The command line; names: the settings that have a flag."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--steps", type=int, default=600, help="may be raised when a training is continued")
    add_settings(parser, settings, *names)
    parser.add_argument("--model", default=EMBEDDED, help="embedded, or a folder in diffusers' layout")
    parser.add_argument("--work", type=Path, default=Path("runs/mini-training"))
    add_machine(parser, checkpoint_minutes=5.0)
    parser.add_argument("--gate", action="store_true", help="measure it on panoramas, and stop")
    parser.add_argument("--panoramas", type=int, default=4, help="of the gate")
    parser.add_argument("--method", default="multidiffusion", help="of the gate's panoramas")
    return parser.parse_args(arguments)


def run(
    options: argparse.Namespace,
    name: str,
    settings_type: type,
    train: Callable[..., Path],
    gate: Callable[[str, str, Path, int, str], dict[str, Any]],
    made: str = "",
) -> None:
    """What a script's command does: the training, or the gate of what it made, which is in `work/name/made`.

    Raises:
        UsageError: a number below 1, or nothing made yet that the gate could measure.
    """
    device, settings = take_options(options, settings_type)
    for each in AT_LEAST_ONE:
        if getattr(options, each, 1) < 1:
            raise UsageError(f"{each}={getattr(options, each)}: use 1 or more")
    folder = options.work / name
    if options.gate:
        found = gate(options.model, str(device), folder / made, options.panoramas, options.method)
        write_json(folder / "gate.json", found)
        print(json.dumps(found))
        return
    backbone = load_backbone(options.model, device=str(device))
    written = train(backbone, settings, options.steps, options.work, options.checkpoint_minutes)
    say_step(name, f"wrote {written}; measure it with --gate")
    print(written)
