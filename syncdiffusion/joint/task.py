"""A task: everything that panoramas need besides a method. The four axes meet here.

Model (`backbone`), what it is told (`conditioning`), where windows lie (`windows`), and how a step goes from noise
to less noise (`sampler`). A method takes a task and its own settings.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from syncdiffusion.conditioning.canvas import CanvasConditioning, condition
from syncdiffusion.errors import UsageError
from syncdiffusion.geometry.sizes import check_pixels, check_stride
from syncdiffusion.geometry.windows import Windows, place_windows
from syncdiffusion.joint.finite import always_finite
from syncdiffusion.joint.noise import draw_normal, initial_noise, noise_generator, noised
from syncdiffusion.joint.resampling import levels, passes
from syncdiffusion.joint.sampler import Sampler, new_sampler
from syncdiffusion.joint.start import Start, read_start
from syncdiffusion.memory import Batch, by_batches
from syncdiffusion.method_settings import SamplingSettings, StartSettings
from syncdiffusion.settings import AUTO

if TYPE_CHECKING:
    from syncdiffusion.backbones.backbone import Backbone
    from syncdiffusion.conditioning.text import Conditioning


@dataclass(frozen=True)
class Step:
    """One step of a sampler: its number from 0, how many there are, the timestep that it starts from.

    The timestep is a whole number but where a scheduler has steps between those that the model was trained on.
    """

    index: int
    count: int
    timestep: float


OnStep = Callable[[Step], None]
OnCanvas = Callable[[Step, Tensor], Tensor]  # (step, canvases after it) -> canvases that sampling goes on with


@dataclass(frozen=True)
class Given:
    """What a caller brings, in place of what a task would make of its prompts and seeds; None: the task makes it.

    text: the encoded prompts, a row for each panorama.
    noise: the standard normal canvases [n, c, h, w] that sampling starts from.
    on_canvas: looks at the canvases after every step, and may change them.
    """

    text: Conditioning | None = None
    noise: Tensor | None = None
    on_canvas: OnCanvas | None = None


@dataclass(frozen=True)
class Task:
    """n panoramas to be made together.

    prompts, seeds: one of each per panorama.
    height, width: of the canvases in pixels.
    conditioning: what they are told; a row per panorama.
    sampler: with the task's steps set; none but this task's.
    skipped: how many of the sampler's first steps are not taken, because the canvas starts from a picture.
    start: that picture.
    jumps: RePaint's jump_length and jump_n_sample, by which canvases go back up (`joint.resampling`).
    window_batch: windows through the UNet at once, or "auto"; fewer where they do not fit into memory.
    on_step, on_pull: see `Method.generate`.
    given: what the caller has made already.
    """

    backbone: Backbone
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    height: int
    width: int
    conditioning: CanvasConditioning
    sampler: Sampler
    skipped: int = 0
    start: Start | None = None
    jumps: tuple[int, int] = (1, 1)
    window_batch: int | str = AUTO
    on_step: OnStep | None = None
    on_pull: Callable[[Any], None] | None = None
    given: Given = Given()
    _batches: dict[str, Batch] = field(default_factory=dict, compare=False, repr=False)

    @functools.cached_property
    def noise(self) -> Tensor:
        """The canvases that sampling starts from: [n, c, h, w] in the backbone's dtype, on its device.

        Standard normal, or with the settings' start image noised to the level of the first step. All methods share
        them, so that methods can be compared panorama by panorama.
        """
        return self.begin(self.pure_noise)

    @functools.cached_property
    def pure_noise(self) -> Tensor:
        """Standard normal canvases [n, c, h, w], whatever they start from."""
        noise, factor = self.given.noise, self.backbone.factor
        if noise is None:
            shape = (self.backbone.channels, self.height // factor, self.width // factor)
            noise = initial_noise(self.prompts, self.seeds, shape)
        return noise.to(self.backbone.device, self.backbone.dtype)

    def begin(self, noise: Tensor, windows: Windows | None = None) -> Tensor:
        """What sampling starts from with standard normal noise of canvases, or of windows of them."""
        if self.start is None:
            return self.sampler.start_scale * noise
        return self.start.first(noise, self.signal(self.steps[0]), windows)

    @property
    def steps(self) -> tuple[Step, ...]:
        """The sampler's steps, from most noise to none."""
        timesteps = self.sampler.timesteps[self.skipped :]
        return tuple(Step(index, len(timesteps), t) for index, t in enumerate(timesteps))

    @property
    def way(self) -> tuple[tuple[Step, tuple[Step, ...]], ...]:
        """The steps in the order in which they are taken, each with those that canvases climb back to after it."""
        steps = self.steps[::-1]
        order = passes(levels(len(steps), *self.jumps))
        return tuple((steps[level], tuple(steps[each] for each in back)) for level, back in order)

    def climb(self, x: Tensor, back: Sequence[Step]) -> Tensor:
        """Canvases [n, c, h, w] with the noise of the start of the last of these steps, each above the one before."""
        for step in back:
            fresh = draw_normal(self._resampling, tuple(x.shape[1:])).to(x)
            x = noised(x, fresh, self.signal(step) / self.signal(self.steps[step.index + 1]))
        return x

    @functools.cached_property
    def _resampling(self) -> list[torch.Generator]:
        return self.generators("resampling")

    def generators(self, stream: str) -> list[torch.Generator]:
        """A CPU generator for each panorama, for what else a method draws; `stream` names the purpose."""
        return [noise_generator(p, s, stream) for p, s in zip(self.prompts, self.seeds, strict=True)]

    def windows(self, stride: int, loop_closure: str = "off") -> Windows:
        """The model's windows on the canvas; UsageError where they cannot cover it."""
        return windows_for(self.backbone, self.height, self.width, stride, loop_closure)

    def predict_noise(self, step: Step, windows: Windows, views: Tensor) -> Tensor:
        """The guided noise prediction of all windows [n, N, c, s, s], in as many batches as fit into memory."""
        conditioning = self.conditioning.at(self, step, windows)
        told = conditioning.told
        batch = self._batches.setdefault(
            "prediction",
            Batch(
                self.window_batch,
                "window_batch",
                ("prediction", self.backbone.precision, *self.conditioning.kind),
                self.backbone.row_bytes,
            ),
        )

        @torch.no_grad()
        def predict(model: Backbone, latents: Tensor, which: Tensor) -> tuple[Tensor]:
            return (model.predict_noise(latents, step.timestep, told.rows(which)),)

        rows = conditioning.seen(views.flatten(0, 1))
        everyone = torch.arange(len(rows), device=rows.device)
        noise = by_batches(always_finite(self.backbone, predict), batch, rows, everyone)[0]
        return conditioning.joined(noise).view_as(views)

    def advance(self, step: Step, views: Tensor, noise: Tensor) -> Tensor:
        """A step of the sampler: latents of any shape [n, ...], of this noise, with less of it."""
        return self.sampler.advance(step.timestep, views, noise)

    def foresee(self, step: Step, views: Tensor, noise: Tensor) -> Tensor:
        """The clean latents that noisy ones are foreseen to become: DDIM's x0, of the same shape."""
        return self.sampler.foresee(step.timestep, views, noise)

    def signal(self, step: Step) -> Tensor:
        """Alpha-bar at the start of a step: the share of a canvas's variance that is picture, in (0, 1]."""
        return self.sampler.signal(step.timestep)

    def signal_after(self, step: Step) -> Tensor:
        """Alpha-bar after a step, where its window has less noise; after the last it is the sampler's final one."""
        return self.sampler.signal_after(step.timestep)

    def keep(self, signal: Tensor | None, x: Tensor, windows: Windows | None = None) -> Tensor:
        """Canvases, or windows of them, with the start image where the mask keeps it; without a mask as they are.

        Args:
            signal: alpha-bar of x; None for clean latents.
        """
        if self.start is None or self.start.new is None:
            return x
        clean = self.start.latents.expand_as(self.pure_noise)
        known = clean if signal is None else self.start.noised(self.pure_noise, signal)
        new = self.start.new.expand_as(known)
        if windows is not None:
            known, new = windows.crop(known), windows.crop(new)
        return torch.where(new, x, known)

    def told(self, step: Step, x: Tensor) -> Tensor:
        """Tells whoever waits that a step is done; returns the canvases x [n, c, h, w] that sampling goes on with."""
        if self.on_step is not None:
            self.on_step(step)
        return x if self.given.on_canvas is None else self.given.on_canvas(step, x)

    def quiet(self) -> Task:
        """The same task, of which nobody is told: for a method that tells of its steps itself."""
        return replace(self, on_step=None, given=replace(self.given, on_canvas=None))


def new_task(
    backbone: Backbone,
    prompts: Sequence[str],
    seeds: Sequence[int],
    settings: SamplingSettings,
    on_step: OnStep | None = None,
    on_pull: Callable[[Any], None] | None = None,
    given: Given | None = None,
) -> Task:
    """The task of a method's settings; arguments as in `Method.sample_latents`.

    Raises:
        UsageError: no prompt, not as many seeds as prompts, or what `condition` refuses.
    """
    if not prompts or len(prompts) != len(seeds):
        raise UsageError(f"prompts, seeds: {len(prompts)} and {len(seeds)} of them; give one seed for each prompt")
    seeds, given = tuple(int(seed) for seed in seeds), given or Given()
    fresh = [noise_generator(p, s, "sampler") for p, s in zip(prompts, seeds, strict=True)]
    return Task(
        backbone,
        tuple(prompts),
        seeds,
        settings.height,
        settings.width,
        condition(backbone, prompts, settings, given.text),
        new_sampler(backbone, settings.sampler, settings.steps, fresh),
        settings.steps - settings.steps_taken,
        read_start(backbone, settings),
        (settings.jump_length, settings.jump_n_sample) if isinstance(settings, StartSettings) else (1, 1),
        getattr(settings, "window_batch", AUTO),
        on_step,
        on_pull,
        given,
    )


def windows_for(backbone: Backbone, height: int, width: int, stride: int, loop_closure: str = "off") -> Windows:
    """The model's windows on a canvas given in pixels; UsageError where they cannot cover it."""
    check_stride(stride, backbone.window)
    square = (backbone.factor, backbone.window, stride)
    rows, columns = check_pixels("height", height, *square), check_pixels("width", width, *square)
    return place_windows(rows, columns, backbone.window, stride, loop_closure)
