"""Trains the miniature CLIP, an open_clip model, and writes its folder.

    python -m experiments.mini.train_clip --steps 1500

A contrastive image and text encoder for the procedural world: the network behind the "mini-CLIP score".
It will judge what the diffusion model's decoder makes, so half of its training pictures have gone through
the autoencoder, with noise on the latents; it cannot then tell captions apart by how sharp a picture is. It never
sees a sample. Beside the other captions of a batch it must tell a picture's caption from the same sentence with
another hour, season, style or place in it.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize, pad

from experiments.common.command_line import one_line_errors
from experiments.common.files import write_json
from experiments.mini.clip_data import ClipData, cut_windows, decode_pictures, load_data
from experiments.mini.clip_model import build_clip, evaluate, export
from experiments.mini.dataset import load_pictures
from experiments.mini.diffusion_data import load_vae
from experiments.mini.diffusion_model import attention_kernel
from experiments.mini.optimisers import Muon, split_parameters
from experiments.mini.training import (
    MovingAverage,
    Training,
    add_machine,
    add_settings,
    descend,
    draw_lefts,
    learning_rate,
    step_generator,
    take_options,
    to_unit,
    train_steps,
)
from syncdiffusion.errors import UsageError

GROUP = 64  # distinct captions among which a held-out picture's own is sought


@dataclass(frozen=True)
class ClipSettings:
    """What determines the trained weights, apart from the number of steps and the data.

    shift: largest displacement of a picture in pixels.
    jitter: largest relative change of brightness and of contrast.
    """

    batch: int = 64
    peak_rate: float = 1e-3
    warmup: int = 100
    shift: int = 6
    jitter: float = 0.1
    average_decay: float = 0.995
    seed: int = 0
    bfloat16: bool = False


def augment(images: Tensor, settings: ClipSettings, generator: torch.Generator) -> Tensor:
    """Random mirror, shift (edges repeated), brightness and contrast of pictures [n, 3, h, w] in [-1, 1]."""
    count, _, height, width = images.shape
    mirror = torch.randint(2, (count,), generator=generator).tolist()
    offsets = torch.randint(2 * settings.shift + 1, (count, 2), generator=generator).tolist()
    gain, bias = 1.0 + settings.jitter * (2 * torch.rand(2, count, 1, 1, 1, generator=generator) - 1)
    framed = pad(images, (settings.shift,) * 4, mode="replicate")
    moved = [
        picture[:, y : y + height, x : x + width].flip(-1) if flip else picture[:, y : y + height, x : x + width]
        for picture, (y, x), flip in zip(framed, offsets, mirror, strict=True)
    ]
    return (torch.stack(moved) * gain.to(images.device) + bias.to(images.device) - 1.0).clamp(-1, 1)


def draw_batch(data: ClipData, settings: ClipSettings, generator: torch.Generator) -> tuple[np.ndarray, Tensor, Tensor]:
    """Windows uint8 [b, h, h, 3], the second half decoded ones, their captions [b] and hard captions [b, 5]."""
    half = settings.batch // 2
    rows = torch.randint(len(data.images), (settings.batch - half,), generator=generator)
    again = torch.randint(len(data.decoded), (half,), generator=generator)
    both = torch.cat([rows, again])
    lefts = draw_lefts(data.edges[both], generator)
    wide = [*(data.images[i] for i in rows.tolist()), *(data.decoded[i] for i in again.tolist())]
    images = np.stack([p[:, left : left + p.shape[0]] for p, left in zip(wide, lefts.tolist(), strict=True)])
    choice = torch.randint(data.captions.shape[1], (settings.batch, 1), generator=generator)
    return images, data.captions[both].gather(1, choice)[:, 0], data.pairs[both]


def contrastive_loss(image_features: Tensor, text_features: Tensor, captions: Tensor, scale: Tensor) -> Tensor:
    """CLIP's symmetric cross-entropy, with every picture of the same caption a positive.

    Of 42 of 100 scenes one of the two captions is one of six prompts: equal captions of a batch must not be pushed
    apart.
    The target is shared equally among the positives (as in UniCL, arXiv 2204.03610).

    Args:
        image_features, text_features: [n, d], of unit length.
        captions: [n]; equal numbers for equal captions.
        scale: factor of the cosines.
    """
    same = (captions[:, None] == captions[None]).float()
    target = same / same.sum(1, keepdim=True)
    logits = scale * image_features @ text_features.T
    # `same` is symmetric, so one target serves both directions.
    return (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2


def hard_loss(image_features: Tensor, text_features: Tensor, captions: Tensor, scale: Tensor) -> Tensor:
    """Cross-entropy of each picture's true caption among its own false ones, over the pictures that have any.

    Args:
        image_features: [n, d]; text_features: [n, k, d], all of unit length, the true caption first.
        captions: [n, k]; a false caption with the true one's number is none.
        scale: factor of the cosines.
    """
    logits = scale * torch.einsum("nd,nkd->nk", image_features, text_features)
    same = captions[:, 1:] == captions[:, :1]
    logits = torch.cat([logits[:, :1], logits[:, 1:].masked_fill(same, -torch.inf)], 1)
    some = ~same.all(1)
    return cross_entropy(logits[some], captions.new_zeros(int(some.sum()))) if some.any() else 0.0 * logits[:, 0].sum()


def train_step(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    step: int,
    schedule: tuple[int, int],
    data: ClipData,
    settings: ClipSettings,
) -> dict[str, float]:
    """Step number `step` (from 0), wholly determined by the arguments and the weights.

    Args:
        schedule: length of the training and of its cooldown, in steps.
    """
    device = next(model.parameters()).device
    generator = step_generator(settings.seed, step)
    pictures, captions, pairs = draw_batch(data, settings, generator)
    images = augment(to_unit(pictures, device), settings, generator)
    # Every text of the batch is read once.
    distinct, place = torch.cat([captions[:, None], pairs], 1).unique(return_inverse=True)
    tokens, place = data.tokens[distinct].to(device), place.to(device)
    with attention_kernel(device), torch.autocast(device.type, torch.bfloat16, enabled=settings.bfloat16):
        seen, read = model.encode_image(images), model.encode_text(tokens)
    seen, read = normalize(seen.float(), dim=-1), normalize(read.float(), dim=-1)[place]
    scale = model.logit_scale.exp().clamp(max=100.0)
    easy = contrastive_loss(seen, read[:, 0], captions.to(device), scale)
    hard = hard_loss(seen, read[:, 1:], pairs.to(device), scale)
    rate = learning_rate(step, schedule[0], settings.peak_rate, settings.warmup, schedule[1])
    descend(optimiser, easy + hard, rate)
    return {"loss": easy.item(), "hard": hard.item(), "scale": scale.item()}


def train(
    settings: ClipSettings,
    steps: int,
    cooldown: int,
    work: Path,
    device: torch.device,
    data: ClipData,
    checkpoint_minutes: float = 2.0,
    stop_after: int | None = None,
) -> nn.Module:
    """Trains from the last checkpoint in `work/clip` to `steps`; returns the averaged model.

    Args:
        stop_after: leaves after this many steps of this call, with a checkpoint.
    """
    model = build_clip(settings.seed).to(device).train()
    optimiser = Muon(split_parameters(model, settings.peak_rate, 0.1))
    average = MovingAverage(model, settings.average_decay)
    identity = {**asdict(settings), "data": data.identity}
    training = Training("clip", work / "clip" / "checkpoint.pt", identity, model, optimiser, average)

    take = partial(train_step, model, optimiser, schedule=(steps, cooldown), data=data, settings=settings)
    for _ in train_steps(training, take, steps, checkpoint_minutes, stop_after):
        pass  # nothing to add
    return average.copy_to(build_clip(settings.seed)).to(device).eval()


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the miniature CLIP.")
    parser.add_argument("--steps", type=int, default=2000, help="may be raised when a training is continued")
    parser.add_argument("--cooldown", type=int, default=500, help="steps at the end over which the rate falls")
    add_settings(parser, ClipSettings, "batch", "peak_rate", "seed", "bfloat16")
    parser.add_argument("--pictures", type=int, default=12288, help="training scenes")
    parser.add_argument("--first", type=int, default=0, help="number of the first training scene")
    parser.add_argument("--decoded", type=int, default=4096, help="how many of them also through the autoencoder")
    parser.add_argument("--heldout", type=int, default=512, help="held-out scenes for the accuracy")
    parser.add_argument("--work", type=Path, default=Path("runs/mini-training"))
    parser.add_argument("--vae", type=Path, help="trained autoencoder (default: WORK/vae)")
    parser.add_argument("--out", type=Path, default=Path("syncdiffusion/weights/mini_clip"))
    add_machine(parser, checkpoint_minutes=2.0)
    return parser.parse_args(arguments)


@one_line_errors(exits=True)
def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    device, settings = take_options(options, ClipSettings)
    if min(options.steps, options.batch, options.decoded) < 1 or options.decoded > options.pictures:
        raise UsageError(
            f"steps={options.steps}, batch={options.batch}, decoded={options.decoded}, pictures={options.pictures}: "
            "use 1 or more, and no more decoded than pictures"
        )
    if options.heldout < GROUP:
        raise UsageError(f"heldout={options.heldout}: use {GROUP} or more, the captions among which one is sought")
    vae = load_vae(options.vae or options.work / "vae", device)
    counts = (options.pictures, options.decoded)
    data = load_data(options.work, vae, *counts, settings.seed, device, settings.bfloat16, options.first)
    model = train(settings, options.steps, options.cooldown, options.work, device, data, options.checkpoint_minutes)
    export(model, options.out)
    heldout = load_pictures(options.work, "heldout", options.heldout, settings.seed)
    windows, captions = cut_windows(heldout, settings.seed), [group[:2] for group in heldout.captions]
    decoded = decode_pictures(vae, windows, settings.seed + 1, device, settings.bfloat16)
    record: dict[str, object] = {"steps": options.steps, "heldout": options.heldout, "group": GROUP}
    for name, images in (("renders", windows), ("decoded", decoded)):
        record[name] = evaluate(model, images, captions, device, GROUP)
        print(f"held-out {name} (n={options.heldout}): {record[name]}")
    write_json(options.out / "accuracy.json", record)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
