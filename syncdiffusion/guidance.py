"""SyncDiffusion (Lee et al., NeurIPS 2023): pull every window toward the anchor before denoising it.

At step i, where the gate is open, each window x_j moves down the gradient of a perceptual distance
between the image it is foreseen to become and the anchor's (Algorithm 1, Eq. 6-8; protocol §1):

    x_j <- x_j - w · decay^i · d/dx_j L(decode(x0(x_j)), decode(x0(x_anchor)))
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from syncdiffusion.errors import UsageError
from syncdiffusion.evaluations import Evaluations, plain
from syncdiffusion.joint import (
    Batch,
    Conditioning,
    OnStep,
    Step,
    by_batches,
    check_sampling,
    condition,
    decode_canvas,
    initial_noise,
    sample_windows,
    window_count,
    windows_for,
)

if TYPE_CHECKING:
    from diffusers import DDIMScheduler

    from syncdiffusion.backbone import Backbone
    from syncdiffusion.perceptual import PerceptualLoss
    from syncdiffusion.windows import Windows

LOSSES = ("lpips_vgg", "lpips_alex", "style")


@dataclass(frozen=True)
class SyncDiffusionSettings:
    """Settings of one SyncDiffusion panorama; the defaults are the supplementary code's.

    height, width: pixels.
    stride: latent cells between windows.
    weight, decay: step i moves a window by weight · decay^i times the gradient.
    every_n: synchronise at every n-th step, `(i + 1) % every_n == 0`.
    first_n: synchronise only in the first n steps; None for all, 0 for none.
    anchor: index of the anchor window; None for the centre one, N // 2.
    loss: perceptual distance, one of LOSSES.
    loop_closure: "off", "released" or "full" (see windows.place_windows).
    window_batch: windows through the networks at once; fewer where they do not fit into memory.
    """

    height: int = 512
    width: int = 3072
    steps: int = 50
    guidance_scale: float = 7.5
    negative_prompt: str = ""
    stride: int = 16
    loop_closure: str = "off"
    window_batch: int = 8
    weight: float = 20.0
    decay: float = 0.95
    every_n: int = 1
    first_n: int | None = None
    anchor: int | None = None
    loss: str = "lpips_vgg"

    def __post_init__(self) -> None:
        check_sampling(self)
        if not self.weight >= 0:
            raise UsageError(f"weight={self.weight}: use 0 or more")
        if not 0 < self.decay <= 1:
            raise UsageError(f"decay={self.decay}: use a number above 0 and up to 1")
        if self.every_n < 1:
            raise UsageError(f"every_n={self.every_n}: use 1 or more")
        if self.first_n is not None and self.first_n < 0:
            raise UsageError(f"first_n={self.first_n}: use 0 or more, or null for all steps")
        if self.loss not in LOSSES:
            raise UsageError(f"loss={self.loss}: use one of {', '.join(LOSSES)}")

    def active(self, index: int) -> bool:
        """The gate: whether step `index` (from 0) synchronises."""
        return (index + 1) % self.every_n == 0 and (self.first_n is None or index < self.first_n)

    def anchor_of(self, windows: "Windows") -> int:
        """The anchor's index; UsageError where there is no such window."""
        anchor = len(windows) // 2 if self.anchor is None else self.anchor
        if not 0 <= anchor < len(windows):
            raise UsageError(f"anchor={self.anchor}: use 0 to {len(windows) - 1}, the windows' numbers, or null")
        return anchor


@dataclass(frozen=True)
class Pull:
    """What one synchronising step saw of n panoramas of N windows, before it moved them. Tensors are on the CPU.

    scale: weight · decay^i; a window moves by scale times its gradient.
    windows: the numbers of the N - 1 windows that are pulled, in the order of the tensors' second axis.
    anchor_images: foreseen image of the anchor, [n, 3, S, S] in [0, 1].
    images: foreseen images of the others, [n, N - 1, 3, S, S] in [0, 1].
    distances: perceptual distance of each to the anchor's, [n, N - 1].
    gradient_norms: Euclidean norm of that distance's gradient in the window's latents, [n, N - 1].
    """

    step: Step
    scale: float
    windows: tuple[int, ...]
    anchor_images: Tensor
    images: Tensor
    distances: Tensor
    gradient_norms: Tensor


OnPull = Callable[[Pull], None]


def foresee(backbone: "Backbone", scheduler: "DDIMScheduler", latents: Tensor, t: int, c: Conditioning) -> Tensor:
    """The images that noisy windows [n, 4, s, s] at timestep t are foreseen to become, [n, 3, ...] in [0, 1].

    Guided noise prediction, DDIM's estimate of x0, decoder, clamp; differentiable all the way.
    """
    noise = backbone.predict_noise(latents, t, c.text, c.empty, c.guidance_scale)
    return backbone.decode(scheduler.step(noise, t, latents).pred_original_sample)


def synchronise(
    backbone: "Backbone",
    scheduler: "DDIMScheduler",
    loss: "PerceptualLoss",
    views: Tensor,
    step: Step,
    conditioning: Conditioning,
    anchor: int,
    scale: float,
    batch: Batch,
    on_pull: OnPull | None = None,
) -> Tensor:
    """Move every window but the anchor by -scale times the gradient of its distance to the anchor.

    Args:
        views: windows [n, N, 4, s, s], all from the same canvas.
        scale: weight · decay^i.
        batch: windows through the networks at once.
        on_pull: told what the step saw, once every gradient is known.

    Returns:
        moved windows, the same shape.
    """
    n, count = views.shape[:2]
    with torch.no_grad():
        anchor_images = foresee(backbone, scheduler, views[:, anchor], step.timestep, conditioning)
        target = loss.features(anchor_images)

    others = [j for j in range(count) if j != anchor]
    owner = torch.arange(n, device=views.device).repeat_interleave(len(others))
    seen: list[tuple[Tensor, Tensor]] = []  # foreseen images and distances, kept only for on_pull

    def gradient(latents: Tensor, which: Tensor) -> Tensor:
        latents = latents.detach().requires_grad_()
        with torch.enable_grad():
            images = foresee(backbone, scheduler, latents, step.timestep, conditioning.rows(which))
            distances = loss.distance(loss.features(images), [feature[which] for feature in target])
            # A window's distance depends on that window alone, so the sum's gradient holds them all.
            found = torch.autograd.grad(distances.sum(), latents)[0]
        if on_pull is not None:
            seen.append((images.detach().cpu(), distances.detach().cpu()))
        return found

    moved = views.clone()
    if others:
        pull = by_batches(gradient, batch, views[:, others].flatten(0, 1), owner)
        moved[:, others] -= scale * pull.view(n, len(others), *views.shape[2:])
        if on_pull is not None:
            parts = (*map(torch.cat, zip(*seen, strict=True)), pull.flatten(1).norm(dim=1).cpu())
            by_window = (part.unflatten(0, (n, len(others))) for part in parts)
            on_pull(Pull(step, scale, tuple(others), anchor_images.cpu(), *by_window))
    return moved


def sample_latents(
    backbone: "Backbone",
    prompts: Sequence[str],
    seeds: Sequence[int],
    settings: SyncDiffusionSettings,
    on_step: OnStep | None = None,
    on_pull: OnPull | None = None,
) -> Tensor:
    """Denoised canvases [n, 4, h, w] of SyncDiffusion; see `generate`.

    on_pull: called at every step that synchronises, with what it saw; a look inside changes no latent.
    """
    windows = windows_for(backbone, settings.height, settings.width, settings.stride, settings.loop_closure)
    anchor = settings.anchor_of(windows)
    scheduler = backbone.steps(settings.steps)
    loss = None
    if settings.weight > 0 and any(settings.active(i) for i in range(settings.steps)):
        from syncdiffusion.perceptual import load_perceptual

        loss = load_perceptual(settings.loss, backbone.device, backbone.dtype)
    batch = Batch(settings.window_batch)  # its own: a gradient takes several times the memory of a denoising step

    def adjust(step: Step, views: Tensor, conditioning: Conditioning) -> Tensor:
        if loss is None or not settings.active(step.index):
            return views
        scale = settings.weight * settings.decay**step.index
        with backbone.autocast():
            return synchronise(backbone, scheduler, loss, views, step, conditioning, anchor, scale, batch, on_pull)

    return sample_windows(
        backbone,
        initial_noise(prompts, seeds, (backbone.channels, windows.height, windows.width)),
        windows,
        condition(backbone, prompts, settings.negative_prompt, settings.guidance_scale),
        settings.steps,
        settings.window_batch,
        adjust,
        on_step,
    )


def generate(
    backbone: "Backbone",
    prompts: Sequence[str],
    seeds: Sequence[int],
    settings: SyncDiffusionSettings,
    on_step: OnStep | None = None,
) -> Tensor:
    """SyncDiffusion panoramas.

    Args:
        prompts, seeds: one of each per panorama; together they fix the initial noise.
        on_step: called after every denoising step.

    Returns:
        images [n, 3, height, width] in [0, 1], float32 on the CPU.

    Raises:
        UsageError: a canvas that the windows cannot cover, an anchor that does not exist.
    """
    return decode_canvas(backbone, sample_latents(backbone, prompts, seeds, settings, on_step))


def evaluations(settings: SyncDiffusionSettings, window: int, factor: int) -> Evaluations:
    """Network evaluations of one panorama; `window` is the model's side in latent cells, `factor` pixels per cell."""
    count = window_count(settings, window, factor)
    cost = plain(count, settings.steps, settings.height, settings.width, window * factor)
    if settings.weight == 0:
        return cost
    pulls = sum(settings.active(i) for i in range(settings.steps))
    # The anchor is foreseen too, but without a gradient.
    return cost + Evaluations(count, count - 1, count, count - 1, count, count - 1) * pulls
