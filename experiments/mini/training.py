"""What the training scripts share: schedule, moving average, the loop with its checkpoints, progress, flags."""

from __future__ import annotations

import time
from argparse import ArgumentParser, BooleanOptionalAction, Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn

from experiments.common.files import make_folder, replacing, unwritable
from experiments.common.progress import clock, say_step
from syncdiffusion.backbones.loading import pick_device
from syncdiffusion.errors import UsageError

Settings = TypeVar("Settings")


def learning_rate(step: int, steps: int, peak: float, warmup: int, cooldown: int) -> float:
    """Linear warm-up to `peak`, constant, and over the last `cooldown` steps linearly down to 1 % of it.

    A constant middle can be continued from any of its checkpoints, whatever length was planned first.

    Args:
        step: steps already taken, 0 … steps - 1.
        steps: length of the whole training.
        peak: largest learning rate.
        warmup, cooldown: number of steps of the linear parts.
    """
    rise = min(1.0, (step + 1) / max(1, warmup))
    fall = min(1.0, (steps - step) / max(1, cooldown))
    return peak * max(0.01, min(rise, fall))


class MovingAverage:
    """Exponential moving averages of a module's parameters, in float32, of one or several lengths.

    Each decay grows as (1 + n) / (10 + n) up to its value, so that the random weights of the first
    steps are forgotten soon.
    """

    def __init__(self, module: nn.Module, *decays: float) -> None:
        """decays: weights of the past at every step, below 1; the first is the one that `copy_to` takes."""
        self.decays = decays or (0.999,)
        self.updates = 0
        parameters = dict(module.named_parameters())
        self.values = [{name: p.detach().float().clone() for name, p in parameters.items()} for _ in self.decays]

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        parameters = dict(module.named_parameters())
        for limit, values in zip(self.decays, self.values, strict=True):
            decay = min(limit, (1 + self.updates) / (10 + self.updates))
            for name, parameter in parameters.items():
                values[name].lerp_(parameter.detach().float(), 1.0 - decay)
        self.updates += 1

    @torch.no_grad()
    def copy_to(self, module: nn.Module, which: int = 0) -> nn.Module:
        """Writes the averages of length number `which` into `module` (of the same architecture) and returns it."""
        for name, parameter in module.named_parameters():
            parameter.copy_(self.values[which][name])
        return module

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "values": self.values}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates = state["updates"]
        for mine, values in zip(self.values, state["values"], strict=True):
            for name, value in values.items():
                mine[name].copy_(value)


def step_generator(seed: int, step: int) -> torch.Generator:
    """The CPU generator of one training step.

    Every step draws from its own generator: a resumed training needs no stored random state to
    see the same batches, crops and noise as one that was never interrupted.
    """
    words = np.random.SeedSequence([seed, step]).generate_state(2, dtype=np.uint32)
    return torch.Generator().manual_seed(int(words[0]) << 31 | int(words[1]) >> 1)


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


def draw_lefts(edges: Tensor, generator: torch.Generator) -> Tensor:
    """A left edge [b] for each window, evenly from the first to the last that its picture allows, edges [b, 2]."""
    first, last = edges.T
    return first + (torch.rand(len(edges), generator=generator) * (last - first + 1)).long()


def lasting(settings: Any, changeable: Sequence[str]) -> dict[str, Any]:
    """The settings, of a dataclass, that a checkpoint must have been made with, to be gone on with."""
    return {name: value for name, value in asdict(settings).items() if name not in changeable}


class StepLines:
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
        say_step(
            self.name, f"{step}/{self.steps}  {means}  {pace:.2f} s/step  {clock(pace * (self.steps - step))} left"
        )
        self.sums, self.count = {}, 0


@dataclass(frozen=True)
class Training:
    """A model in training, and the file in which it waits to be continued.

    name: stands before its lines of progress.
    checkpoint: the file.
    identity: what determines the weights; a checkpoint of another identity is refused.
    notes: what else the checkpoint shall hold.
    """

    name: str
    checkpoint: Path
    identity: dict[str, Any]
    model: nn.Module
    optimiser: torch.optim.Optimizer
    average: MovingAverage
    notes: dict[str, Any] = field(default_factory=dict)


def resume(training: Training) -> int:
    """Takes model, optimiser and average from the checkpoint; returns its number of steps, 0 where there is none."""
    state = load_checkpoint(training.checkpoint, training.identity)
    if state is None:
        return 0
    training.model.load_state_dict(state["model"])
    training.optimiser.load_state_dict(state["optimiser"])
    training.average.load_state_dict(state["average"])
    say_step(training.name, f"continues after step {state['step']}")
    return state["step"]


def save_checkpoint(training: Training, step: int) -> None:
    """Writes the checkpoint whole: an interrupted write leaves the last one in place."""
    state = {"settings": training.identity, "step": step, **training.notes, "model": training.model.state_dict()}
    state |= {"optimiser": training.optimiser.state_dict(), "average": training.average.state_dict()}
    with replacing(training.checkpoint) as temporary:
        torch.save(state, temporary)


def train_steps(
    training: Training,
    take: Callable[[int], dict[str, float]],
    steps: int,
    checkpoint_minutes: float,
    stop_after: int | None = None,
) -> Iterator[tuple[int, bool]]:
    """Trains from the last checkpoint to the end, and halts after every step for what the caller adds.

    Args:
        take: takes step number i (from 0) and returns its losses.
        steps: length of the whole training.
        checkpoint_minutes: time between checkpoints; the last step always ends with one.
        stop_after: leaves after this many steps of this call, with a checkpoint.

    Yields:
        the number of finished steps, and whether the checkpoint has just been written.

    Raises:
        UsageError: another process trains to the same checkpoint.
    """
    with only_writer(training.checkpoint):
        yield from _steps(training, take, steps, checkpoint_minutes, stop_after)


@contextmanager
def only_writer(checkpoint: Path) -> Iterator[None]:
    """Holds the lock beside a checkpoint; it ends with the process, however that ends."""
    # One object a process: an interrupted loop that something still refers to must not lock out the next one.
    lock = FileLock(checkpoint.with_suffix(".lock"), is_singleton=True)
    try:
        make_folder(checkpoint.parent)
        lock.acquire(timeout=0)
    except Timeout:
        raise UsageError(f"{checkpoint}: another training writes it; wait for its end, or use another --work") from None
    except OSError as error:
        raise unwritable(checkpoint, error) from error
    try:
        yield
    finally:
        lock.release()


def _steps(
    training: Training,
    take: Callable[[int], dict[str, float]],
    steps: int,
    checkpoint_minutes: float,
    stop_after: int | None,
) -> Iterator[tuple[int, bool]]:
    begin = resume(training)
    end = steps if stop_after is None else min(steps, begin + stop_after)
    progress = StepLines(training.name, begin, steps, every=25)
    saved = time.monotonic()
    for step in range(begin, end):
        losses = take(step)
        training.average.update(training.model)
        progress.add(step + 1, **losses)
        due = step + 1 == end or time.monotonic() - saved > 60 * checkpoint_minutes
        if due:
            saved = time.monotonic()
            save_checkpoint(training, step + 1)
        yield step + 1, due


def descend(optimiser: torch.optim.Optimizer, loss: Tensor, rate: float) -> None:
    """One step of the optimiser at this learning rate, gradients clipped to norm 1."""
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_([p for group in optimiser.param_groups for p in group["params"]], 1.0)
    optimiser.step()


def print_steps_that_fit(minutes: float, take: Callable[[int], Any]) -> None:
    """Measures a step (the median of eight, after two more to warm up) and prints how many fit into `minutes`."""
    seconds = []
    for step in range(10):
        began = time.monotonic()
        take(step)
        seconds.append(time.monotonic() - began)
    pace = float(np.median(seconds[2:]))
    print(f"{pace:.2f} s/step: {minutes:g} minutes take --steps {int(minutes * 60 / pace)}")


def to_unit(images: np.ndarray, device: torch.device) -> Tensor:
    """uint8 [n, h, w, 3] to float32 [n, 3, h, w] in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images)).to(device).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def to_bytes(images: Tensor) -> np.ndarray:
    """[n, 3, h, w] in [-1, 1] (clamped) to uint8 [n, h, w, 3], rounded."""
    pixels = (images.detach().float().clamp(-1, 1) + 1.0).mul(127.5).round().to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).cpu().numpy()


def add_settings(parser: ArgumentParser, settings: type, *names: str, **helps: str) -> None:
    """A flag for each of these fields of a settings dataclass (none named: for all), with its default."""
    for item in fields(settings):
        if names and item.name not in names:
            continue
        flag, default = "--" + item.name.replace("_", "-"), item.default
        kind: dict[str, Any] = {"type": type(default)}
        if isinstance(default, bool):
            kind = {"action": BooleanOptionalAction}
        elif isinstance(default, tuple):
            kind = {"type": int, "nargs": len(default), "metavar": "N"}
        parser.add_argument(flag, default=default, help=helps.get(item.name), **kind)


def take_options(options: Namespace, settings: type[Settings]) -> tuple[torch.device, Settings]:
    """Sets the number of threads; returns the device, and the settings with the values of the fields with a flag."""
    device = pick_device(options.device)
    if options.threads is not None and options.threads < 1:
        raise UsageError(f"threads={options.threads}: use 1 or more, or leave it out for all cores")
    if options.threads:
        torch.set_num_threads(options.threads)
    chosen = {item.name: getattr(options, item.name) for item in fields(settings) if hasattr(options, item.name)}
    return device, settings(**{name: tuple(v) if isinstance(v, list) else v for name, v in chosen.items()})


def add_machine(parser: ArgumentParser, checkpoint_minutes: float) -> None:
    """The flags of every training that decide nothing of its weights."""
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all cores)")
    parser.add_argument("--checkpoint-minutes", type=float, default=checkpoint_minutes)
