"""The one denoising loop that every joint-diffusion method shares.

Methods differ in what happens to the windows before their noise is predicted (`adjust`) or after it (`correct`);
everything else is MultiDiffusion: cut windows, one DDIM step each, average (protocol §1, steps 4 and 5).
"""

import hashlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from syncdiffusion.errors import UsageError
from syncdiffusion.geometry.sizes import check_pixels, check_stride, window_corners
from syncdiffusion.geometry.windows import Windows, place_windows
from syncdiffusion.memory import AUTO, Batch, by_batches, check_batch

if TYPE_CHECKING:
    from syncdiffusion.backbones.backbone import Backbone


@dataclass(frozen=True)
class Step:
    """One step of a denoising loop: its number from 0, how many there are, its timestep."""

    index: int
    count: int
    timestep: int


OnStep = Callable[[Step], None]


@dataclass(frozen=True)
class Conditioning:
    """What the UNet is told: one row per panorama, [n, tokens, d] each, and the guidance scale."""

    text: Tensor
    empty: Tensor
    guidance_scale: float

    def rows(self, which: Tensor) -> "Conditioning":
        """The same for the panoramas in `which`, repeats allowed."""
        return Conditioning(self.text[which], self.empty[which], self.guidance_scale)


# What a method does to all windows [n, N, 4, s, s] of a step before their noise is predicted.
Adjust = Callable[[Step, Tensor], Tensor]
# The same once their noise is known, which then holds for the moved windows too.
Correct = Callable[[Step, Tensor, Tensor], Tensor]


def noise_generator(prompt: str, seed: int, stream: str = "initial") -> torch.Generator:
    """The CPU generator that belongs to one panorama, whatever the method, batch or device."""
    digest = hashlib.sha256(f"{stream}\0{seed}\0{prompt}".encode()).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def initial_noise(prompts: Sequence[str], seeds: Sequence[int], shape: tuple[int, int, int]) -> Tensor:
    """Standard normal canvases [n, *shape] on the CPU; row i depends on (prompts[i], seeds[i]) alone."""
    return torch.stack(
        [torch.randn(shape, generator=noise_generator(p, s)) for p, s in zip(prompts, seeds, strict=True)]
    )


def check_sampling(settings) -> None:
    """Refuse sampling settings that several methods have and that make no sense."""
    if settings.steps < 1:
        raise UsageError(f"steps={settings.steps}: use 1 or more")
    if not settings.guidance_scale >= 0:
        raise UsageError(f"guidance_scale={settings.guidance_scale}: use 0 or more")
    if not 0 < getattr(settings, "decay", 1) <= 1:
        raise UsageError(f"decay={settings.decay}: use a number above 0 and up to 1")
    if (getattr(settings, "first_n", None) or 0) < 0:
        raise UsageError(f"first_n={settings.first_n}: use 0 or more, or null for all steps")
    for name in ("window_batch", "gradient_batch"):
        check_batch(name, getattr(settings, name, AUTO))


def condition(
    backbone: "Backbone", prompts: Sequence[str], negative_prompt: str, guidance_scale: float
) -> Conditioning:
    """Embeddings of the prompts and of one negative prompt for all."""
    text = backbone.encode_prompts(prompts)
    empty = backbone.encode_prompts([negative_prompt]).expand_as(text)
    return Conditioning(text, empty, guidance_scale)


def windows_for(backbone: "Backbone", height: int, width: int, stride: int, loop_closure: str = "off") -> Windows:
    """The model's windows on a canvas given in pixels; UsageError where they cannot cover it."""
    check_stride(stride, backbone.window)
    cells = [
        check_pixels(name, pixels, backbone.factor, backbone.window, stride)
        for name, pixels in (("height", height), ("width", width))
    ]
    return place_windows(*cells, backbone.window, stride, loop_closure)


def choose_anchor(anchor: int | None, windows: Windows) -> int:
    """The anchor's index, the centre window's for None; UsageError where there is no such window."""
    chosen = len(windows) // 2 if anchor is None else anchor
    if not 0 <= chosen < len(windows):
        raise UsageError(f"anchor={anchor}: use 0 to {len(windows) - 1}, the windows' numbers, or null")
    return chosen


def window_count(settings, window: int, factor: int) -> int:
    """Windows of a method's settings, for a model whose squares have `window` latent cells of `factor` pixels."""
    height, width = settings.height // factor, settings.width // factor
    return len(window_corners(height, width, window, settings.stride, settings.loop_closure))


def always_finite(
    backbone: "Backbone", function: Callable[..., tuple[Tensor, ...]]
) -> Callable[..., tuple[Tensor, ...]]:
    """`function(backbone, *rows)` as a function of rows whose results hold no infinity and no NaN.

    float16 overflows at 65504, in activations and in gradients alike. Rows where that happened are done again in
    float32, with a warning that says how many.

    Raises (when called):
        UsageError: not finite in the model's full precision either.
    """
    wide = backbone.widened

    def guarded(*rows: Tensor) -> tuple[Tensor, ...]:
        results = function(backbone, *rows)
        lost = ~_finite_rows(results)
        if not lost.any():
            return results
        message = f"precision={backbone.precision}: {int(lost.sum())} of {len(lost)} windows were not finite"
        if wide is not backbone:
            warnings.warn(f"{message}; they were done again in {wide.precision}", RuntimeWarning, stacklevel=2)
            for result, again in zip(results, function(wide, *(row[lost] for row in rows)), strict=True):
                result[lost] = again
        if not _finite_rows(results).all():
            raise UsageError(
                f"{message}, in {wide.precision} neither; a lower weight or guidance_scale may keep them so"
            )
        return results

    return guarded


def _finite_rows(results: tuple[Tensor, ...]) -> Tensor:
    """Which rows are finite in all results, [n] of booleans."""
    return torch.stack([result.isfinite().reshape(len(result), -1).all(dim=1) for result in results]).all(dim=0)


def sample_windows(
    backbone: "Backbone",
    canvas: Tensor,
    windows: Windows,
    conditioning: Conditioning,
    steps: int,
    window_batch: int | str,
    adjust: Adjust | None = None,
    correct: Correct | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Joint diffusion: denoise all windows of all panoramas together.

    Args:
        canvas: initial noise [n, 4, h, w].
        window_batch: windows through the UNet at once, or "auto"; fewer where they do not fit into memory. Changes
            speed and memory, and the result by the rounding of float32 alone (1e-6 a step, which strong gradient
            steps in `adjust` amplify).
        adjust, correct: what the method does to the windows before, and after, their noise is predicted.
        on_step: called after every step.

    Returns:
        the denoised canvas [n, 4, h, w] on the backbone's device.
    """
    scheduler = backbone.steps(steps)
    canvas = canvas.to(backbone.device, backbone.dtype)
    owner = torch.arange(len(canvas), device=backbone.device).repeat_interleave(len(windows))
    batch = Batch(window_batch, "window_batch", ("prediction", *backbone.work))

    for index, t in enumerate(scheduler.timesteps):
        step = Step(index, steps, int(t))
        views = windows.crop(canvas)
        if adjust is not None:
            views = adjust(step, views)

        @torch.no_grad()
        def predict(model: "Backbone", latents: Tensor, which: Tensor, t: Tensor = t) -> tuple[Tensor]:
            c = conditioning.rows(which)
            return (model.predict_noise(latents, t, c.text, c.empty, c.guidance_scale),)

        noise = by_batches(always_finite(backbone, predict), batch, views.flatten(0, 1), owner)[0].view_as(views)
        if correct is not None:
            views = correct(step, views, noise)
        canvas = windows.fuse(scheduler.step(noise, t, views).prev_sample)
        if on_step is not None:
            on_step(step)
    return canvas


@torch.no_grad()
def decode_canvas(backbone: "Backbone", canvas: Tensor) -> Tensor:
    """Whole canvases at once, as the released code does: images [n, 3, H, W] in [0, 1] on the CPU."""
    return torch.cat([backbone.decode(one[None]).float().cpu() for one in canvas])
