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
from torch.utils.checkpoint import checkpoint

from syncdiffusion.cost import Evaluations, plain
from syncdiffusion.errors import UsageError
from syncdiffusion.joint.loop import (
    Conditioning,
    OnStep,
    Step,
    always_finite,
    check_sampling,
    choose_anchor,
    condition,
    decode_canvas,
    initial_noise,
    sample_windows,
    window_count,
    windows_for,
)
from syncdiffusion.memory import AUTO, Batch, by_batches

if TYPE_CHECKING:
    from diffusers import DDIMScheduler

    from syncdiffusion.backbones.backbone import Backbone
    from syncdiffusion.geometry.windows import Windows
    from syncdiffusion.perceptual.distances import PerceptualLoss

LOSSES = ("lpips_vgg", "lpips_alex", "style")

# A distance is a mean over an image's pixels, so that what flows back in float16 is near its least numbers: 6e-8, below
# which all is zero. Where the miniature's distance is divided by 64, a gradient loses nine tenths of its length, and a
# window of Stable Diffusion has 16 times the miniature's pixels. A power of two, taken out again, rounds nothing
# itself. The released code scales nothing; every other precision has room enough.
GRADIENT_SCALES = {"float16": 2.0**8}


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
    unet_gradient: False holds each window's noise prediction constant in the gradient and takes it for the DDIM step
        as well: one UNet pass a step and none backward. An approximation, as DreamFusion's gradient (Poole et al.,
        ICLR 2023, Eq. 3) leaves out the same factor; at weight 0 it changes nothing.
    window_batch, gradient_batch: windows through the networks at once, without and with a gradient, or "auto" for as
        many as the free memory holds; fewer where they do not fit.
    checkpointing: keep of a gradient's forward pass only what stands between the networks, and compute the rest
        again: less memory, more time, the same result.
    """

    height: int = 512
    width: int = 3072
    steps: int = 50
    guidance_scale: float = 7.5
    negative_prompt: str = ""
    stride: int = 16
    loop_closure: str = "off"
    window_batch: int | str = AUTO
    gradient_batch: int | str = AUTO
    checkpointing: bool = False
    weight: float = 20.0
    decay: float = 0.95
    every_n: int = 1
    first_n: int | None = None
    anchor: int | None = None
    loss: str = "lpips_vgg"
    unet_gradient: bool = True

    def __post_init__(self) -> None:
        check_sampling(self)
        if not self.weight >= 0:
            raise UsageError(f"weight={self.weight}: use 0 or more")
        if self.every_n < 1:
            raise UsageError(f"every_n={self.every_n}: use 1 or more")
        if self.loss not in LOSSES:
            raise UsageError(f"loss={self.loss}: use one of {', '.join(LOSSES)}")

    def active(self, index: int) -> bool:
        """The gate: whether step `index` (from 0) synchronises."""
        return (index + 1) % self.every_n == 0 and (self.first_n is None or index < self.first_n)


@dataclass(frozen=True)
class Pull:
    """What one synchronising step saw of n panoramas, before it moved their windows.

    scale: weight · decay^i; a window moves by -scale times its gradient.
    windows: the numbers of the N - 1 windows but the anchor, in the order of the tensors' second axis.
    anchor_images: foreseen image of the anchor, [n, 3, S, S] in [0, 1].
    images: foreseen images of those windows, [n, N - 1, 3, S, S] in [0, 1].
    distances: perceptual distance of each to the anchor's, [n, N - 1].
    gradients: of that distance in the window's latents, [n, N - 1, 4, s, s].
    """

    step: Step
    scale: float
    windows: tuple[int, ...]
    anchor_images: Tensor
    images: Tensor
    distances: Tensor
    gradients: Tensor


OnPull = Callable[[Pull], None]


@dataclass(frozen=True)
class Foreseeing:
    """How a window's foreseen image is looked at: DDIM's scheduler and the distance.

    checkpointing: as in SyncDiffusionSettings.
    """

    scheduler: "DDIMScheduler"
    loss: "PerceptualLoss"
    checkpointing: bool = False

    def noise(self, backbone: "Backbone", latents: Tensor, t: int, c: Conditioning) -> Tensor:
        """Guided noise prediction of windows [n, 4, s, s] at timestep t."""
        return self._stage(lambda x: backbone.predict_noise(x, t, c.text, c.empty, c.guidance_scale), latents)

    def image(self, backbone: "Backbone", latents: Tensor, noise: Tensor, t: int) -> Tensor:
        """The images that noisy windows [n, 4, s, s] are foreseen to become, [n, 3, ...] in [0, 1].

        DDIM's estimate of x0, decoder, clamp; differentiable all the way.
        """
        x0 = self.scheduler.step(noise, t, latents).pred_original_sample
        return self._stage(backbone.decode, x0)

    def features(self, backbone: "Backbone", images: Tensor) -> list[Tensor]:
        """What the distance compares, under the precision of `backbone`."""
        with backbone.autocast():
            return self.loss.features(images)

    def distance(self, backbone: "Backbone", images: Tensor, target: list[Tensor]) -> Tensor:
        """Perceptual distances [n] of images to the features of as many others."""
        return self._stage(lambda x: self.loss.distance(self.features(backbone, x), target), images)

    def _stage(self, network: Callable[[Tensor], Tensor], given: Tensor) -> Tensor:
        if not (self.checkpointing and given.requires_grad):
            return network(given)
        # No stage draws random numbers, so none need be kept.
        return checkpoint(network, given, use_reentrant=False, preserve_rng_state=False)


def synchronise(
    backbone: "Backbone",
    foreseeing: Foreseeing,
    views: Tensor,
    step: Step,
    conditioning: Conditioning,
    anchor: int,
    scale: float,
    batch: Batch,
    noise: Tensor | None = None,
) -> Pull:
    """The gradient of every other window's distance to the anchor.

    Args:
        views: windows [n, N, 4, s, s], all from the same canvas.
        scale: weight · decay^i.
        batch: windows through the networks at once.
        noise: the windows' noise where it is known, to be held constant; None predicts it, with its gradient.
    """
    n = len(views)
    t = step.timestep

    def look(model: "Backbone", latents: Tensor, which: Tensor, *known: Tensor) -> Tensor:
        predicted = known[0] if known else foreseeing.noise(model, latents, t, conditioning.rows(which))
        return foreseeing.image(model, latents, predicted, t)

    @torch.no_grad()
    def aim(model: "Backbone", *rows: Tensor) -> tuple[Tensor, ...]:
        images = look(model, *rows)
        return images, *foreseeing.features(model, images)

    everyone = torch.arange(n, device=views.device)
    known = () if noise is None else (noise[:, anchor],)
    anchor_images, *target = always_finite(backbone, aim)(views[:, anchor], everyone, *known)

    def gradient(model: "Backbone", latents: Tensor, which: Tensor, *known: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        latents = latents.detach().requires_grad_()
        with torch.enable_grad():
            images = look(model, latents, which, *known)
            distances = foreseeing.distance(model, images, [feature[which] for feature in target])
            # A window's distance depends on that window alone, so the sum's gradient holds them all.
            wider = GRADIENT_SCALES.get(model.precision, 1.0)
            found = torch.autograd.grad(wider * distances.sum(), latents)[0] / wider
        return found, images.detach(), distances.detach()

    others = [j for j in range(views.shape[1]) if j != anchor]
    rows = [views[:, others].flatten(0, 1), everyone.repeat_interleave(len(others))]
    if noise is not None:
        rows.append(noise[:, others].flatten(0, 1))
    found = by_batches(always_finite(backbone, gradient), batch, *rows)
    gradients, images, distances = (each.unflatten(0, (n, len(others))) for each in found)
    return Pull(step, scale, tuple(others), anchor_images, images, distances, gradients)


def puller(
    backbone: "Backbone",
    settings: SyncDiffusionSettings,
    windows: "Windows",
    conditioning: Conditioning,
    on_pull: OnPull | None,
) -> Callable[..., Tensor]:
    """(step, views, noise where it is known) -> moved views, for the settings' gate, weight and distance."""
    anchor = choose_anchor(settings.anchor, windows)
    if settings.weight == 0 or len(windows) == 1 or not any(map(settings.active, range(settings.steps))):
        return lambda step, views, noise=None: views
    from syncdiffusion.perceptual.distances import load_perceptual

    loss = load_perceptual(settings.loss, backbone.device, backbone.dtype)
    foreseeing = Foreseeing(backbone.steps(settings.steps), loss, settings.checkpointing)
    kind = (settings.loss, settings.unet_gradient, settings.checkpointing)
    batch = Batch(settings.gradient_batch, "gradient_batch", ("gradient", *backbone.work, *kind))

    def pull(step: Step, views: Tensor, noise: Tensor | None = None) -> Tensor:
        if not settings.active(step.index):
            return views
        scale = settings.weight * settings.decay**step.index
        seen = synchronise(backbone, foreseeing, views, step, conditioning, anchor, scale, batch, noise)
        if on_pull is not None:
            on_pull(seen)
        moved = views.clone()
        moved[:, list(seen.windows)] -= scale * seen.gradients
        return moved

    return pull


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
    conditioning = condition(backbone, prompts, settings.negative_prompt, settings.guidance_scale)
    pull = puller(backbone, settings, windows, conditioning, on_pull)
    return sample_windows(
        backbone,
        initial_noise(prompts, seeds, (backbone.channels, windows.height, windows.width)),
        windows,
        conditioning,
        settings.steps,
        settings.window_batch,
        adjust=pull if settings.unet_gradient else None,
        correct=None if settings.unet_gradient else pull,
        on_step=on_step,
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
    unet = Evaluations(unet=count, unet_backward=count - 1) if settings.unet_gradient else Evaluations()
    images = Evaluations(decoder=count, decoder_backward=count - 1, loss=count, loss_backward=count - 1)
    return cost + (unet + images) * pulls
