"""Trains a ControlNet of the miniature: its pictures follow a given map of land and sky (land.py).

    python -m experiments.mini.train_control --threads 1
    python -m experiments.mini.train_control --export        # from the last checkpoint, no training
    python -m experiments.mini.train_control --gate          # does the made skyline follow the given one?

syncdiffusion/weights/mini_control (`controlnet=embedded`) is what this made in 80 minutes of one core that had other
work as well (from 350 steps of an earlier attempt; scenes from --first 24576 on, --cooldown 1000):

    python -m experiments.mini.train_control --threads 1 --bfloat16 --batch 24 --peak-rate 7e-4 --steps 3200

UNet, text encoder and autoencoder are those of --model and stay as they are; the ControlNet begins as the UNet's
encoder, with zeros where it adds to it (Zhang et al., ICCV 2023). The training is otherwise train_diffusion.py's:
scenes encoded once, windows cut anywhere from them, a second call goes on from the last checkpoint.
"""

from __future__ import annotations

import argparse
import inspect
import json
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.common.command_line import one_line_errors
from experiments.common.files import make_folder, write_json
from experiments.common.progress import say_step
from experiments.mini.control_gate import gate
from experiments.mini.dataset import SPLITS, load_pictures
from experiments.mini.diffusion_data import FACTOR, DiffusionData, data_of
from experiments.mini.diffusion_model import attention_kernel
from experiments.mini.files import move_files
from experiments.mini.land import load_maps
from experiments.mini.optimisers import Muon, split_parameters
from experiments.mini.train_diffusion import draw_at, draw_places, loss_weights, weighted_and_plain
from experiments.mini.training import (
    MovingAverage,
    Training,
    add_machine,
    add_settings,
    descend,
    learning_rate,
    load_checkpoint,
    print_steps_that_fit,
    step_generator,
    take_options,
    train_steps,
)
from syncdiffusion.backbones.backbone import Backbone
from syncdiffusion.backbones.loading import load_backbone
from syncdiffusion.errors import UsageError
from syncdiffusion.files import EMBEDDED
from syncdiffusion.joint.noise import noised

EMBEDDING = (16, 32, 64, 96)  # channels of the map's encoder, from pixels to cells


@dataclass(frozen=True)
class ControlSettings:
    """What determines the trained weights, apart from the number of steps and the data; as in DiffusionSettings."""

    batch: int = 32
    peak_rate: float = 5e-4
    weight_decay: float = 0.01
    warmup: int = 100
    caption_dropout: float = 0.1
    caption_shares: tuple[float, float, float] = (0.5, 0.35, 0.15)
    # Where noise hides nearly all of a window its skyline is decided, but hardly enters the noise's error: weights fall
    # from far noisier timesteps on than train_diffusion's. With 5 the gate's share was 0.55 after 2,900 steps.
    snr_gamma: float = 0.3
    averages: tuple[float, float, float] = (0.998, 0.99, 0.9995)
    seed: int = 0
    bfloat16: bool = False


@dataclass(frozen=True)
class ControlData:
    """Encoded pictures with their captions, and the maps of the same scenes, booleans [n, h, w] in pixels."""

    scenes: DiffusionData
    maps: np.ndarray

    def pictures(self, rows: Tensor, lefts: Tensor) -> Tensor:
        """What the ControlNet is shown of windows from these left edges in cells: [b, 3, s, s] in [0, 1]."""
        cut = []
        for row, left in zip(rows.tolist(), lefts.tolist(), strict=True):
            land = self.maps[row]
            cut.append(land[:, left * FACTOR : left * FACTOR + len(land)])
        return torch.from_numpy(np.stack(cut)).float()[:, None].repeat(1, 3, 1, 1)


def load_control_data(
    work: Path, backbone: Backbone, count: int, seed: int, split: str, first: int, workers: int
) -> ControlData:
    """Renders, encodes and maps what is not there yet, with the autoencoder and the tokenizer of the model."""
    pictures = load_pictures(work, split, count, seed, workers, first)
    scenes = data_of(pictures, work, backbone.vae, backbone.tokenizer, seed, backbone.device, split, first)
    return ControlData(scenes, load_maps(work, SPLITS[split], split, range(first, first + count), seed))


def build_controlnet(unet: Any, seed: int = 0) -> Any:
    """A ControlNet that begins as the UNet's encoder and adds nothing yet.

    As diffusers' `from_unet`, which leaves out some of what this UNet has (the heads of its text embedding).
    """
    from diffusers import ControlNetModel

    known = inspect.signature(ControlNetModel.__init__).parameters
    config = {name: value for name, value in unet.config.items() if name in known}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ControlNetModel(**config, conditioning_embedding_out_channels=EMBEDDING)
    own = network.state_dict()
    network.load_state_dict({**own, **{name: value for name, value in unet.state_dict().items() if name in own}})
    return network.float()


def draw_batch(data: ControlData, settings: ControlSettings, generator: torch.Generator) -> tuple[Tensor, ...]:
    """A random batch: latents, tokens, timesteps and noise as train_diffusion's, and the windows of the maps."""
    places = draw_places(data.scenes, settings.batch, generator)
    return *draw_at(data.scenes, settings, generator, *places), data.pictures(*places)


def control_loss(network: Any, backbone: Backbone, batch: tuple[Tensor, ...], gamma: float) -> tuple[Tensor, Tensor]:
    """Weighted and plain mean squared error of the noise that the frozen UNet predicts with the ControlNet's help."""
    latents, tokens, timesteps, noise, pictures = batch
    alphas = backbone.scheduler.alphas_cumprod.to(latents)
    noisy = noised(latents, noise, alphas[timesteps][:, None, None, None])
    with torch.no_grad():
        text = backbone.text_encoder(tokens).last_hidden_state
    down, middle = network(noisy, timesteps, text, pictures, return_dict=False)
    predicted = backbone.unet(
        noisy, timesteps, text, down_block_additional_residuals=down, mid_block_additional_residual=middle
    ).sample
    return weighted_and_plain(predicted, noise, loss_weights(alphas, gamma)[timesteps])


def train_step(
    network: Any,
    optimiser: torch.optim.Optimizer,
    step: int,
    schedule: tuple[int, int],
    backbone: Backbone,
    data: ControlData,
    settings: ControlSettings,
) -> dict[str, float]:
    """Step number `step` (from 0), wholly determined by the arguments and the weights; see train_diffusion's."""
    batch = tuple(part.to(backbone.device) for part in draw_batch(data, settings, step_generator(settings.seed, step)))
    kind = backbone.device.type
    with attention_kernel(backbone.device), torch.autocast(kind, torch.bfloat16, enabled=settings.bfloat16):
        loss, plain = control_loss(network, backbone, batch, settings.snr_gamma)
    descend(optimiser, loss, learning_rate(step, schedule[0], settings.peak_rate, settings.warmup, schedule[1]))
    return {"loss": loss.item(), "mse": plain.item()}


def start(settings: ControlSettings, backbone: Backbone) -> tuple[Any, torch.optim.Optimizer]:
    network = build_controlnet(backbone.unet, settings.seed)
    network = network.to(backbone.device, memory_format=torch.channels_last).train()
    return network, Muon(split_parameters(network, settings.peak_rate, settings.weight_decay))


def load_weights(network: Any, folder: Path) -> None:
    """The weights of an exported ControlNet; UsageError where there is none, or of another architecture."""
    from safetensors.torch import load_file

    file = folder / "diffusion_pytorch_model.safetensors"
    if not file.is_file():
        raise UsageError(f"init_from={folder}: no {file.name} there")
    try:
        network.load_state_dict(load_file(file))
    except RuntimeError:
        raise UsageError(f"init_from={folder}: has another architecture") from None


def identity_of(settings: ControlSettings, backbone: Backbone) -> dict[str, Any]:
    return {**asdict(settings), "model": backbone.fingerprint}


def train(
    settings: ControlSettings,
    steps: int,
    cooldown: int,
    work: Path,
    backbone: Backbone,
    data: ControlData,
    checkpoint_minutes: float = 5.0,
    stop_after: int | None = None,
    init_from: Path | None = None,
) -> Any:
    """Trains from the last checkpoint in `work/control` to `steps`; returns the network of the first average.

    Args:
        init_from: an exported ControlNet to begin with where there is no checkpoint, as of an earlier model.
    """
    network, optimiser = start(settings, backbone)
    checkpoint = work / "control" / "checkpoint.pt"
    if init_from is not None and not checkpoint.exists():
        load_weights(network, init_from)
    average = MovingAverage(network, *settings.averages)
    training = Training("control", checkpoint, identity_of(settings, backbone), network, optimiser, average)
    take = partial(train_step, network, optimiser, schedule=(steps, cooldown), backbone=backbone, data=data,
                   settings=settings)  # fmt: skip
    for _ in train_steps(training, take, steps, checkpoint_minutes, stop_after):
        pass
    return average.copy_to(build_controlnet(backbone.unet)).to(backbone.device)


def trained(settings: ControlSettings, work: Path, backbone: Backbone) -> Any:
    """The averaged network of the last checkpoint; UsageError where there is none, or one of another model."""
    path = work / "control" / "checkpoint.pt"
    state = load_checkpoint(path, identity_of(settings, backbone))
    if state is None:
        raise UsageError(f"work={work}: no checkpoint {path}; train first, without --export")
    network = build_controlnet(backbone.unet)
    average = MovingAverage(network, *settings.averages)
    average.load_state_dict(state["average"])
    return average.copy_to(network)


def export(network: Any, folder: Path) -> None:
    """Writes a ControlNet's folder, in half precision, as diffusers opens it; other files in it stay."""
    make_folder(folder.parent)
    with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as name:
        made = Path(name)
        network.half().save_pretrained(made)
        record = json.loads((made / "config.json").read_text())
        record.pop("_name_or_path", None)
        write_json(made / "config.json", record)
        move_files(made, folder, last="config.json")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a ControlNet of the miniature.")
    parser.add_argument("--steps", type=int, default=2000, help="may be raised when a training is continued")
    parser.add_argument("--cooldown", type=int, default=400, help="steps at the end over which the rate falls")
    add_settings(parser, ControlSettings, "batch", "peak_rate", "snr_gamma", "seed", "bfloat16")
    parser.add_argument("--pictures", type=int, default=4096, help="training scenes")
    parser.add_argument("--first", type=int, default=0, help="number of the first training scene")
    parser.add_argument("--model", default=EMBEDDED, help="embedded, or a folder in diffusers' layout")
    parser.add_argument("--work", type=Path, default=Path("runs/mini-training"))
    parser.add_argument("--init-from", type=Path, help="an exported ControlNet to begin with, without a checkpoint")
    parser.add_argument("--out", type=Path, help="default: WORK/controlnet")
    add_machine(parser, checkpoint_minutes=5.0)
    parser.add_argument("--workers", type=int, default=2, help="processes that render")
    parser.add_argument("--export", action="store_true", help="write the folder from the last checkpoint, and stop")
    parser.add_argument("--gate", action="store_true", help="measure the exported folder, and stop")
    parser.add_argument("--measure", type=float, metavar="MINUTES", help="print the steps that fit, and stop")
    return parser.parse_args(arguments)


@one_line_errors(exits=True)
def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    device, settings = take_options(options, ControlSettings)
    if options.steps < 1 or options.batch < 1:
        raise UsageError(f"steps={options.steps}, batch={options.batch}: use 1 or more")
    backbone, out = load_backbone(options.model, device=str(device)), options.out or options.work / "controlnet"
    if options.gate:
        found = gate(backbone, out, options.work, seed=settings.seed)
        write_json(out / "gate.json", found)
        print(json.dumps(found))
        return
    if not options.export:
        source = (options.pictures, settings.seed, "train", options.first, options.workers)
        data = load_control_data(options.work, backbone, *source)
        if options.measure:
            network, optimiser = start(settings, backbone)
            how = {"schedule": (1000, 0), "backbone": backbone, "data": data, "settings": settings}
            print_steps_that_fit(options.measure, partial(train_step, network, optimiser, **how))
            return
        where = (options.work, backbone, data)
        minutes, begin = options.checkpoint_minutes, options.init_from
        train(settings, options.steps, options.cooldown, *where, minutes, init_from=begin)
    export(trained(settings, options.work, backbone), out)
    say_step("control", f"wrote {out}; measure it with --gate")
    print(out)


if __name__ == "__main__":
    main()
