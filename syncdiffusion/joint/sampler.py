"""How a step goes from noise to less noise, by diffusers' own schedulers: one axis of every method.

    ddim    DDIM with eta = 0 (Song et al., ICLR 2021, Eq. 12)
    ddpm    ancestral sampling (Ho et al., NeurIPS 2020, Algorithm 2), which is DDIM with eta = 1 that ends at no noise
    euler   Euler's method for the probability flow (Karras et al., NeurIPS 2022), EulerDiscreteScheduler
    dpmpp   DPM-Solver++ 2M (Lu et al., 2022), DPMSolverMultistepScheduler

Three things let any method run with any of them, whatever its windows do:

* Methods see variance-preserving latents x = sqrt(alpha_bar) · x0 + sqrt(1 - alpha_bar) · noise and nothing else.
  Euler's are x / sqrt(alpha_bar), with sigma = sqrt((1 - alpha_bar) / alpha_bar); they are turned into those and back
  around each of its steps. x is what `scale_model_input` makes of them for the UNet.
* A scheduler is told at every step where it is, and knows nothing of the steps before: a schedule may go back up, and
  all windows are one batch. What DPM-Solver++ remembers, the clean latents foreseen a step ago, each window remembers
  for itself as long as all stay where they are. Windows that have moved find it on the canvas: the mean of what was
  foreseen there, cut out where they lie now.
* Fresh noise of ddpm is drawn for the canvas and cut out for the windows. However these are put together again, it is
  there once, at its full variance: averaged noise of each window's own would be too weak.

diffusers takes steps of euler and dpmpp in float32, also where everything else is in float64.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from syncdiffusion.errors import UsageError
from syncdiffusion.joint.noise import draw_normal
from syncdiffusion.method_settings import SAMPLERS

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from syncdiffusion.backbones.backbone import Backbone
    from syncdiffusion.geometry.windows import Windows


HAIR = 2.0**-20  # of a timestep; a UNet reads it as the whole number


class Sampler:
    """A sampler with its steps set, for one task.

    name: one of SAMPLERS.
    scheduler: diffusers', with the steps set. It is not changed.
    generators: a CPU generator for each panorama, for fresh noise.
    timesteps: where steps start, from most noise to least; whole numbers, or between two where the scheduler says so.
    signals: alpha-bar at each of them, [steps].
    """

    def __init__(self, name: str, scheduler: Any, generators: Sequence[torch.Generator], dtype: torch.dtype) -> None:
        self.name, self.scheduler, self.generators = name, scheduler, generators
        self.timesteps = _falling(scheduler.timesteps.tolist())
        self._positions = {t: i for i, t in enumerate(self.timesteps)}
        if name == "euler" or name == "dpmpp":
            levels = 1 / (1 + scheduler.sigmas.to(dtype) ** 2)
            self.signals, self._final = levels[:-1], levels[-1]
        else:
            self.signals, self._final = scheduler.alphas_cumprod[list(self.timesteps)], scheduler.final_alpha_cumprod
        self._placed: Windows | None = None
        self._history: dict[Hashable, tuple[int, Windows | None, Tensor]] = {}

    def place(self, windows: Windows) -> None:
        """Where the windows of the next steps lie."""
        self._placed = windows

    def take(self, rows: Tensor) -> None:
        """Canvases have taken each other's places: the rows of all latents are from now on what `rows` [n] were."""
        self._history = {
            key: (position, placed, foreseen[rows]) for key, (position, placed, foreseen) in self._history.items()
        }

    @property
    def start_scale(self) -> float:
        """What standard normal noise is multiplied by to start from; other than 1 only in some of Euler's spacings."""
        if self.name != "euler":
            return 1.0
        scale = float(self.scheduler.init_noise_sigma * self.signals[0].sqrt())
        return 1.0 if abs(scale - 1) < 1e-6 else scale

    def signal(self, timestep: float) -> Tensor:
        """Alpha-bar at a timestep."""
        position = self._positions.get(timestep)
        return self.scheduler.alphas_cumprod[int(timestep)] if position is None else self.signals[position]

    def signal_after(self, timestep: float) -> Tensor:
        """Alpha-bar where a step from `timestep` ends."""
        if self.name == "euler" or self.name == "dpmpp":
            after = self._positions[timestep] + 1
            return self.signals[after] if after < len(self.signals) else self._final
        scheduler = self.scheduler
        then = int(timestep) - scheduler.config.num_train_timesteps // scheduler.num_inference_steps
        return scheduler.alphas_cumprod[then] if then >= 0 else self._final

    def foresee(self, timestep: float, x: Tensor, noise: Tensor) -> Tensor:
        """The clean latents that noisy ones are foreseen to become, of the same shape; differentiable."""
        if self.name == "ddim" or self.name == "ddpm":
            return self.scheduler.step(noise, timestep, x).pred_original_sample
        signal = self.signal(timestep)
        return (x - (1 - signal).sqrt() * noise) / signal.sqrt()

    def advance(self, timestep: float, x: Tensor, noise: Tensor) -> Tensor:
        """Latents with less noise.

        Args:
            x: the windows that were placed, [n, N, c, s, s], or any other latents [n, ...].
            noise: the noise that the model predicts of them.
        """
        if self.name == "ddim":
            return self.scheduler.step(noise, timestep, x).prev_sample
        if self.name == "ddpm":
            return self._ancestral(timestep, x, noise)
        position = self._positions[timestep]
        scheduler = copy.copy(self.scheduler)
        scheduler.set_begin_index(position)
        exact = scheduler.timesteps[position]
        if self.name == "euler":
            scheduler.is_scale_input_called = True  # x is scaled
            scaled = x / self.signals[position].sqrt()
            return scheduler.step(noise, exact, scaled).prev_sample * self.signal_after(timestep).sqrt()
        before = self._remembered(position, x)
        scheduler.model_outputs, scheduler.lower_order_nums = [None, before], int(before is not None)
        moved = scheduler.step(noise, exact, x).prev_sample
        self._remember(position, scheduler.model_outputs[-1])
        return moved

    def _ancestral(self, timestep: float, x: Tensor, noise: Tensor) -> Tensor:
        mean = self.scheduler.step(
            noise, timestep, x, eta=1.0, use_clipped_model_output=True, variance_noise=torch.zeros_like(x)
        ).prev_sample
        now, then = self.signal(timestep), self.signal_after(timestep)
        variance = (1 - then) / (1 - now) * (1 - now / then)  # beta tilde, DDPM Eq. 7
        return mean + variance.sqrt() * self._fresh(x) if variance > 0 else mean

    def _fresh(self, x: Tensor) -> Tensor:
        """Standard normal of x's shape, the same wherever two windows share a cell; every canvas has its own."""
        each = len(x) // len(self.generators)
        if not self._is_placed(x):
            return draw_normal(self.generators, (each, *x.shape[1:])).flatten(0, 1).to(x)
        assert self._placed is not None
        canvas = draw_normal(self.generators, (each, x.shape[2], self._placed.height, self._placed.width))
        return self._placed.crop(canvas.flatten(0, 1).to(x))

    def _is_placed(self, x: Tensor) -> bool:
        placed = self._placed
        return placed is not None and x.dim() == 5 and (x.shape[1], *x.shape[3:]) == (len(placed), *2 * (placed.size,))

    def _remember(self, position: int, foreseen: Tensor) -> None:
        if self._is_placed(foreseen):
            self._history["windows"] = position, self._placed, foreseen
        else:
            self._history[foreseen.shape] = position, None, foreseen

    def _remembered(self, position: int, x: Tensor) -> Tensor | None:
        """What was foreseen in the step before; None in a first step, and after a schedule has jumped."""
        then: Windows | None
        since, then, foreseen = self._history.get("windows" if self._is_placed(x) else x.shape, (-2, None, None))
        if since != position - 1 or foreseen is None:
            return None
        if then is None or self._placed is None or then == self._placed:
            return foreseen
        return self._placed.crop(then.fuse(foreseen))


def _falling(times: Sequence[float]) -> tuple[float, ...]:
    """Timesteps by which steps can be told apart: one that equals the last (Karras' sigmas have some) is a hair less.

    >>> _falling([999.0, 951.0, 951.0, 2.5])
    (999, 951, 950.9999990463257, 2.5)
    """
    found: list[float] = []
    for t in times:
        time = min(float(t), found[-1] - HAIR) if found else float(t)
        found.append(int(time) if time == int(time) else time)
    return tuple(found)


def new_sampler(backbone: Backbone, name: str, steps: int, generators: Sequence[torch.Generator]) -> Sampler:
    """The sampler of that name on a model's schedule.

    Raises:
        UsageError: more steps than the model was trained on; a schedule that begins without any signal.
    """
    from diffusers import DPMSolverMultistepScheduler, EulerDiscreteScheduler

    assert name in SAMPLERS
    config = backbone.scheduler.config
    own: dict[str, Any] = {"prediction_type": "epsilon"}  # whatever the model predicts, the backbone gives noise
    if name == "ddim" or name == "ddpm":
        own |= {"set_alpha_to_one": True} if name == "ddpm" else {}
        return Sampler(name, backbone.steps(steps, **own), generators, backbone.dtype)
    scheduler: Any
    if name == "euler":
        scheduler = EulerDiscreteScheduler.from_config(config, **own)
    else:
        scheduler = DPMSolverMultistepScheduler.from_config(config, solver_order=2, algorithm_type="dpmsolver++", **own)
    most = config.num_train_timesteps - config.steps_offset - 1
    if steps > most:
        raise UsageError(f"steps={steps}: with sampler={name} this model's schedule has {most}; use 1 to {most}")
    scheduler.set_timesteps(steps)
    backbone.check_signal(float(scheduler.timesteps[0]))
    return Sampler(name, scheduler, generators, backbone.dtype)
