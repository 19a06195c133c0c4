"""The one denoising loop that every joint-diffusion method shares.

Methods differ in what happens to the windows before they are denoised (`adjust`); everything else is
MultiDiffusion: cut windows, one DDIM step each, average (protocol §1, steps 4 and 5).
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from syncdiffusion.canvas import check_pixels, check_stride, window_corners
from syncdiffusion.errors import UsageError
from syncdiffusion.windows import Windows, place_windows

if TYPE_CHECKING:
    from syncdiffusion.backbone import Backbone


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


# What a method does to all windows of a step before they are denoised: (step, windows [n, N, 4, s, s],
# conditioning) -> windows.
Adjust = Callable[[Step, Tensor, Conditioning], Tensor]


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
    """Refuse sampling settings, shared by all methods, that make no sense."""
    if settings.steps < 1:
        raise UsageError(f"steps={settings.steps}: use 1 or more")
    if not settings.guidance_scale >= 0:
        raise UsageError(f"guidance_scale={settings.guidance_scale}: use 0 or more")
    if getattr(settings, "window_batch", 1) < 1:
        raise UsageError(f"window_batch={settings.window_batch}: use 1 or more")


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


def window_count(settings, window: int, factor: int) -> int:
    """Windows of a method's settings, for a model whose squares have `window` latent cells of `factor` pixels."""
    height, width = settings.height // factor, settings.width // factor
    return len(window_corners(height, width, window, settings.stride, settings.loop_closure))


@dataclass
class Batch:
    """How many rows go through the networks at once; halved for good where they do not fit into memory."""

    size: int


def by_batches(function: Callable[..., Tensor], batch: Batch, *rows: Tensor) -> Tensor:
    """`function` over rows, `batch.size` at a time.

    Rows that run out of memory are done again in halves, and what follows keeps the smaller size: the result is the
    same but for rounding. So `function` must leave nothing behind before it returns.

    Raises:
        UsageError: a single row does not fit into memory.
    """
    done: list[Tensor] = []
    start, count = 0, len(rows[0])
    while start < count:
        piece = [each[start : start + batch.size] for each in rows]
        result = unless_out_of_memory(function, piece)
        if result is not None:
            done.append(result)
            start += len(piece[0])
        elif len(piece[0]) == 1:
            raise UsageError(
                "window_batch=1: not even one window fits into the free memory; "
                "end what else uses it, or use a lower precision or a smaller model"
            )
        else:
            batch.size = len(piece[0]) // 2
    return torch.cat(done)


def unless_out_of_memory(function: Callable[..., Tensor], rows: Sequence[Tensor]) -> Tensor | None:
    """`function(*rows)`, or None where memory ran out; what the attempt held is free by then."""
    try:
        return function(*rows)
    except RuntimeError as error:  # torch.OutOfMemoryError is one; the CPU's allocator raises no kind of its own
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
    # Out here the traceback, which holds the attempt's tensors, is gone.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None


def sample_windows(
    backbone: "Backbone",
    canvas: Tensor,
    windows: Windows,
    conditioning: Conditioning,
    steps: int,
    window_batch: int,
    adjust: Adjust | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Joint diffusion: denoise all windows of all panoramas together.

    Args:
        canvas: initial noise [n, 4, h, w].
        window_batch: windows through the networks at once, fewer where they do not fit into memory; changes speed
            and memory, and the result by the rounding of float32 alone (1e-6 a step, which strong gradient steps in
            `adjust` amplify).
        adjust: what the method does to the windows before they are denoised.
        on_step: called after every step.

    Returns:
        the denoised canvas [n, 4, h, w] on the backbone's device.
    """
    scheduler = backbone.steps(steps)
    canvas = canvas.to(backbone.device, backbone.dtype)
    owner = torch.arange(len(canvas), device=backbone.device).repeat_interleave(len(windows))
    batch = Batch(window_batch)

    for index, t in enumerate(scheduler.timesteps):
        step = Step(index, steps, int(t))
        views = windows.crop(canvas)
        if adjust is not None:
            views = adjust(step, views, conditioning)

        @torch.no_grad()
        def denoise(latents: Tensor, which: Tensor, t: Tensor = t) -> Tensor:
            c = conditioning.rows(which)
            noise = backbone.predict_noise(latents, t, c.text, c.empty, c.guidance_scale)
            return scheduler.step(noise, t, latents).prev_sample

        denoised = by_batches(denoise, batch, views.flatten(0, 1), owner)
        canvas = windows.fuse(denoised.view_as(views))
        if on_step is not None:
            on_step(step)
    return canvas


@torch.no_grad()
def decode_canvas(backbone: "Backbone", canvas: Tensor) -> Tensor:
    """Whole canvases at once, as the released code does: images [n, 3, H, W] in [0, 1] on the CPU."""
    return torch.cat([backbone.decode(one[None]).float().cpu() for one in canvas])
