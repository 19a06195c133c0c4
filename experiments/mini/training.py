"""What the training scripts share: schedule, moving average, checkpoints, progress, contact sheets."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from syncdiffusion.errors import UsageError


def learning_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """Linear warm-up to `peak`, then half a cosine down to 1 % of it.

    Args:
        step: steps already taken, 0 … steps - 1.
        steps: length of the whole training.
        peak: largest learning rate.
        warmup: number of steps of the linear part.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return peak * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress))))


class MovingAverage:
    """Exponential moving average of a module's parameters, in float32.

    The decay grows as (1 + n) / (10 + n) up to `decay`, so that the random weights of the first
    steps are forgotten soon.
    """

    def __init__(self, module: nn.Module, decay: float = 0.999) -> None:
        self.decay = decay
        self.updates = 0
        self.values = {name: p.detach().float().clone() for name, p in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, parameter in module.named_parameters():
            self.values[name].lerp_(parameter.detach().float(), 1.0 - decay)
        self.updates += 1

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> nn.Module:
        """Writes the averages into `module` (of the same architecture) and returns it."""
        for name, parameter in module.named_parameters():
            parameter.copy_(self.values[name])
        return module

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "values": self.values}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates = state["updates"]
        for name, value in state["values"].items():
            self.values[name].copy_(value)


def step_generator(seed: int, step: int) -> torch.Generator:
    """The CPU generator of one training step.

    Every step draws from its own generator: a resumed training needs no stored random state to
    see the same batches, crops and noise as one that was never interrupted.
    """
    words = np.random.SeedSequence([seed, step]).generate_state(2, dtype=np.uint32)
    return torch.Generator().manual_seed(int(words[0]) << 31 | int(words[1]) >> 1)


def pick_device(name: str) -> torch.device:
    """`auto` is the GPU where there is one; any other name is PyTorch's."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"device={name}: use auto, cpu or cuda") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"device={name}: this machine shows no GPU to PyTorch; use cpu")
    return device


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes a checkpoint whole: an interrupted write leaves the last one in place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    torch.save(state, temporary)
    os.replace(temporary, path)


def load_checkpoint(path: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """The checkpoint at `path`, or None when there is none.

    Raises:
        UsageError: it was made with other settings, with which its weights cannot be continued.
    """
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    found = state["settings"]
    changed = [k for k in settings if found.get(k) != settings[k]]
    if changed:
        was = ", ".join(f"{k}={found.get(k)}" for k in changed)
        raise UsageError(f"{path} was made with {was}: use the same, or another --work")
    return state


class Progress:
    """One line per `every` steps: step, loss averages since the last line, speed, time left."""

    def __init__(self, name: str, start: int, steps: int, every: int) -> None:
        self.name, self.steps, self.every = name, steps, every
        self.first, self.begin = start, time.monotonic()
        self.sums: dict[str, float] = {}
        self.count = 0

    def add(self, step: int, **losses: float) -> None:
        """`step` counts finished steps, from 1."""
        for key, value in losses.items():
            self.sums[key] = self.sums.get(key, 0.0) + value
        self.count += 1
        if step % self.every and step != self.steps:
            return
        means = "  ".join(f"{k} {v / self.count:.4f}" for k, v in self.sums.items())
        pace = (time.monotonic() - self.begin) / max(1, step - self.first)
        self.say(f"{step}/{self.steps}  {means}  {pace:.2f} s/step  {clock(pace * (self.steps - step))} left")
        self.sums, self.count = {}, 0

    def say(self, text: str) -> None:
        print(f"[{self.name}] {text}", file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def contact_sheet(rows: Sequence[Iterable[np.ndarray]], path: Path, gap: int = 2) -> None:
    """Writes rows of equally sized uint8 [h, w, 3] images as one PNG on white."""
    grid = [list(row) for row in rows]
    height, width = grid[0][0].shape[:2]
    columns = max(len(row) for row in grid)
    sheet = np.full((len(grid) * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for y, row in enumerate(grid):
        for x, image in enumerate(row):
            top, left = y * (height + gap), x * (width + gap)
            sheet[top : top + height, left : left + width] = image
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    Image.fromarray(sheet).save(temporary, format="PNG")
    os.replace(temporary, path)


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(value, indent=2) + "\n")
    os.replace(temporary, path)


def to_unit(images: np.ndarray, device: torch.device) -> Tensor:
    """uint8 [n, h, w, 3] to float32 [n, 3, h, w] in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images)).to(device).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def to_bytes(images: Tensor) -> np.ndarray:
    """[n, 3, h, w] in [-1, 1] (clamped) to uint8 [n, h, w, 3], rounded."""
    pixels = (images.detach().float().clamp(-1, 1) + 1.0).mul(127.5).round().to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).cpu().numpy()
