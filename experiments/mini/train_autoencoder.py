"""Trains the miniature model's autoencoder (diffusers AutoencoderTiny) and writes `vae/`.

    python -m experiments.mini.train_autoencoder --threads 1

The encoder is linear (linear_start.py) and stands from the first minute, when `vae/` is written: the diffusion model
may be trained at the same time. The decoder begins as the best linear chain (linear_decoder.py) and then learns with
all its layers: L1 + LPIPS (Alex on all, VGG on a quarter of each batch) on random 64x64 crops with random flips, from
latents with noise; and after `--critic-from` steps with a critic that tells decoded crops from true ones. Where latents
do not say everything, a mean absolute error alone answers with a blur; the critic makes the decoder choose something
sharp. AutoencoderTiny has no normalisation layers and no attention, so what it learns on crops holds for windows and
whole canvases alike.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, relu

from experiments.common.command_line import one_line_errors
from experiments.common.progress import say_step
from experiments.mini.autoencoder_model import (
    CHANGEABLE,
    AutoencoderSettings,
    build_autoencoder,
    draw_crops,
    load_lpips,
    noisy_latents,
    psnr_values,
    reconstruct,
    save_autoencoder,
    start_autoencoder,
)
from experiments.mini.dataset import load_pictures
from experiments.mini.diffusion_data import encoder_hash, load_vae
from experiments.mini.files import contact_sheet
from experiments.mini.optimisers import Muon, split_parameters
from experiments.mini.training import (
    MovingAverage,
    Training,
    add_machine,
    add_settings,
    descend,
    lasting,
    learning_rate,
    step_generator,
    take_options,
    to_unit,
    train_steps,
)
from syncdiffusion.errors import UsageError


@dataclass(frozen=True)
class Schedule:
    """How long: may be changed when a training is continued.

    cooldown: steps at the end over which the learning rate falls.
    critic_from: the step from which the critic has a word.
    """

    steps: int = 6000
    cooldown: int = 1500
    critic_from: int = 1400


class Critic(nn.Module):
    """A convolutional judge of patches (Isola et al., CVPR 2017): a number for each overlapping field of 34 pixels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        sizes = (3, width, 2 * width, 3 * width)
        pairs = zip(sizes[:-1], sizes[1:], strict=True)
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in pairs)
        self.last = nn.Conv2d(sizes[-1], 1, 3, padding=1)

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """[n, 3, h, w] in [-1, 1] -> verdicts [n, 1, h/8, w/8], high for true ones, and every layer's features."""
        features = []
        for layer in self.layers:
            images = leaky_relu(layer(images), 0.2)
            features.append(images)
        return self.last(images), features


def build_models(vae: nn.Module, settings: AutoencoderSettings) -> nn.ModuleDict:
    """The autoencoder's decoder (the very object) and an untrained critic."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        critic = Critic(settings.critic_width)
    return nn.ModuleDict({"decoder": vae.decoder.requires_grad_(True), "critic": critic.to(vae.device)})


def losses(
    models: nn.ModuleDict,
    latents: Tensor,
    images: Tensor,
    perceptual: Callable[[Tensor, Tensor], Tensor],
    settings: AutoencoderSettings,
    judged: bool,
) -> tuple[Tensor, dict[str, float]]:
    """The sum of the decoder's and the critic's losses, whose gradients do not reach the other's weights.

    Args:
        latents: [n, c, h/8, w/8], already with noise.
        images: [n, 3, h, w] in [-1, 1].
        judged: with the critic, or without both its loss and its word.
    """
    critic = models["critic"]
    decoded = models["decoder"](latents).float()
    l1, distance = (decoded - images).abs().mean(), perceptual(decoded, images).mean()
    if not judged:
        loss = l1 + settings.perceptual_weight * distance
        return loss, {"loss": loss.item(), "l1": l1.item(), "lpips": distance.item()}
    critic.requires_grad_(False)
    verdict, seen = critic(decoded)
    wanted = critic(images)[1]
    critic.requires_grad_(True)
    alike = torch.stack([(a - b).abs().mean() for a, b in zip(seen, wanted, strict=True)]).sum()
    decoder_loss = l1 + settings.perceptual_weight * distance + settings.critic_weight * (alike - verdict.mean())
    # The hinge (Lim and Ye, 2017): right by a margin of one is right enough.
    critic_loss = relu(1 - critic(images)[0]).mean() + relu(1 + critic(decoded.detach())[0]).mean()
    parts = {"l1": l1, "lpips": distance, "alike": alike, "verdict": verdict.mean(), "critic": critic_loss}
    return decoder_loss + critic_loss, {name: value.item() for name, value in parts.items()}


def train_step(
    vae: nn.Module,
    models: nn.ModuleDict,
    optimiser: torch.optim.Optimizer,
    step: int,
    schedule: Schedule,
    images: Sequence[np.ndarray],
    perceptual: Callable[[Tensor, Tensor], Tensor],
    settings: AutoencoderSettings,
) -> dict[str, float]:
    """Step number `step` (from 0), wholly determined by the arguments and the weights."""
    generator = step_generator(settings.seed + 1, step)
    batch = to_unit(draw_crops(images, settings, generator), vae.device)
    batch = batch.contiguous(memory_format=torch.channels_last)
    latents = noisy_latents(vae, batch, settings.latent_noise, generator)
    with torch.autocast(vae.device.type, torch.bfloat16, enabled=settings.bfloat16):
        loss, parts = losses(models, latents, batch, perceptual, settings, step >= schedule.critic_from)
    rate = learning_rate(step, schedule.steps, settings.peak_rate, settings.warmup, schedule.cooldown)
    descend(optimiser, loss, rate)
    return parts


def train(
    settings: AutoencoderSettings,
    schedule: Schedule,
    work: Path,
    device: torch.device,
    images: Sequence[np.ndarray],
    heldout: np.ndarray,
    perceptual: Callable[[Tensor, Tensor], Tensor],
    checkpoint_minutes: float = 4.0,
    stop_after: int | None = None,
) -> nn.Module:
    """Trains from the last checkpoint in `work/autoencoder` to the end; returns the averaged model.

    The folder `work/vae` is written at once where there is none, and again with every checkpoint and at the end.

    Args:
        images: n training pictures, each uint8 [h, w, 3].
        heldout: pictures for the PSNR and the contact sheets, uint8 [n, h, w, 3].
        stop_after: leaves after this many steps of this call, with a checkpoint.
    """
    folder, kept = work / "autoencoder", work / "vae"
    if not (kept / "config.json").is_file():
        save_autoencoder(start_autoencoder(settings, images, device), kept)
    vae = load_vae(kept, device).to(memory_format=torch.channels_last)
    found, wanted = vae.config, build_autoencoder(settings).config
    for name in ("latent_channels", "decoder_block_out_channels", "num_decoder_blocks"):
        if list(np.atleast_1d(found[name])) != list(np.atleast_1d(wanted[name])):
            raise UsageError(f"{kept} has {name}={found[name]}: use the same, or another --work")
    models = build_models(vae, settings)
    average = MovingAverage(models, settings.average_decay)
    identity = {**lasting(settings, CHANGEABLE), "encoder": encoder_hash(vae)}
    optimiser = Muon(split_parameters(models, settings.peak_rate, 0.0))
    training = Training("autoencoder", folder / "checkpoint.pt", identity, models, optimiser, average)

    def averaged() -> nn.Module:
        made = build_models(load_vae(kept, device), settings)
        average.copy_to(made)
        vae_ = load_vae(kept, device)
        vae_.decoder = made["decoder"]
        return vae_

    arguments = {"images": images, "perceptual": perceptual, "settings": settings, "schedule": schedule}
    take = partial(train_step, vae, models, optimiser, **arguments)
    for step, saved in train_steps(training, take, schedule.steps, checkpoint_minutes, stop_after):
        if saved:
            now = averaged()
            save_autoencoder(now, kept)
            decoded, _ = reconstruct(now, heldout, device)
            ratio = psnr_values(heldout, decoded).mean()
            say_step("autoencoder", f"step {step}: held-out PSNR {ratio:.2f} dB (n={len(heldout)})")
            rows = [r for i in (0, 4, 8, 12) if i < len(heldout) for r in (heldout[i : i + 4], decoded[i : i + 4])]
            contact_sheet(rows, folder / "reconstructions.png")
    # Also where no step was left to take: a training that was stopped after its last checkpoint had not kept its model.
    made = averaged()
    save_autoencoder(made, kept)
    return made


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the miniature model's autoencoder.")
    add_settings(parser, Schedule)
    add_settings(parser, AutoencoderSettings)
    parser.add_argument("--pictures", type=int, default=12288, help="training scenes")
    parser.add_argument("--first", type=int, default=0, help="number of the first training scene")
    parser.add_argument("--work", type=Path, default=Path("runs/mini-training"))
    parser.add_argument("--heldout", type=int, default=64, help="held-out scenes for the PSNR")
    add_machine(parser, checkpoint_minutes=4.0)
    return parser.parse_args(arguments)


@one_line_errors(exits=True)
def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    device, settings = take_options(options, AutoencoderSettings)
    _, schedule = take_options(options, Schedule)
    heldout = load_pictures(options.work, "heldout", options.heldout, settings.seed).images[:]
    images = load_pictures(options.work, "train", options.pictures, settings.seed, first=options.first).images
    minutes = options.checkpoint_minutes
    train(settings, schedule, options.work, device, images, heldout, load_lpips(device), minutes)


if __name__ == "__main__":
    main()
