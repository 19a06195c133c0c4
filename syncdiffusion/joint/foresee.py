"""The images that noisy windows are foreseen to become, and the gradient of a perceptual distance between them.

Window -> noise prediction -> DDIM's x0 -> decoder -> clamp -> distance: this file is what stands around that chain so
that it fits into memory, holds in half precision, and computes nothing twice. `syncdiffusion.sync` is what it is for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from syncdiffusion.joint.finite import always_finite
from syncdiffusion.joint.task import Step, Task
from syncdiffusion.memory import Batch, by_batches

if TYPE_CHECKING:
    from syncdiffusion.backbones.backbone import Backbone
    from syncdiffusion.conditioning.text import Conditioning
    from syncdiffusion.geometry.windows import Windows
    from syncdiffusion.perceptual.distances import PerceptualLoss

# A distance is a mean over an image's pixels, so that what flows back in float16 is near its least numbers: 6e-8, below
# which all is zero. Where the miniature's distance is divided by 64, a gradient loses nine tenths of its length, and a
# window of Stable Diffusion has 16 times the miniature's pixels. A power of two, taken out again, rounds nothing
# itself. The released code scales nothing; every other precision has room enough.
GRADIENT_SCALES = {"float16": 2.0**8}


@dataclass(frozen=True)
class Pull:
    """What one synchronising step saw of n panoramas, before it moved their windows.

    scale: weight · decay^i; a window moves by -scale times its gradient.
    windows: the numbers of the N - 1 windows but the anchor, in the order of the tensors' second axis.
    anchor_images: foreseen image of the anchor, [n, 3, S, S] in [0, 1].
    images: foreseen images of those windows, [n, N - 1, 3, S, S] in [0, 1].
    distances: perceptual distance of each to the anchor's, [n, N - 1].
    gradients: of that distance in the window's latents, [n, N - 1, c, s, s].
    """

    step: Step
    scale: float
    windows: tuple[int, ...]
    anchor_images: Tensor
    images: Tensor
    distances: Tensor
    gradients: Tensor


@dataclass(frozen=True)
class Foresight:
    """Looks ahead: from noisy windows to the images they will become, and back.

    batch: windows through the networks at once where a gradient is taken.
    checkpointing: keep of a forward pass only what stands between the networks, and compute the rest again.
    """

    task: Task
    loss: PerceptualLoss
    batch: Batch
    checkpointing: bool = False

    @classmethod
    def of(
        cls, task: Task, loss: str, gradient_batch: int | str, checkpointing: bool, unet_gradient: bool = True
    ) -> Foresight:
        """With the perceptual distance of that name.

        Raises:
            UsageError: no such distance, or its weights cannot be had.
        """
        from syncdiffusion.perceptual import distances

        backbone = task.backbone
        kind = ("gradient", backbone.precision, loss, unet_gradient, checkpointing)
        batch = Batch(gradient_batch, "gradient_batch", kind, backbone.row_bytes)
        return cls(task, distances.load_perceptual(loss, backbone.device, backbone.dtype), batch, checkpointing)

    def images(
        self, model: Backbone, step: Step, latents: Tensor, told: Conditioning, noise: Tensor | None = None
    ) -> Tensor:
        """Foreseen images [r, 3, S, S] in [0, 1] of windows [r, c, s, s]; differentiable in the windows.

        noise: the windows' noise where it is known, held constant in a gradient; None predicts it.
        """
        if noise is None:
            noise = self._stage(lambda x: model.predict_noise(x, step.timestep, told), latents)
        return self._stage(model.decode, self.task.foresee(step, latents, noise))

    @torch.no_grad()
    def aim(
        self, step: Step, windows: Windows, views: Tensor, anchor: int, noise: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        """The image that the anchor is foreseen to become, [n, 3, S, S], and its features; without a gradient."""

        def look(model: Backbone, latents: Tensor, which: Tensor, *known: Tensor) -> tuple[Tensor, ...]:
            images = self.images(model, step, latents, told.rows(which), *known)
            return images, *self._features(model, images)

        told = self.task.conditioning.for_windows(windows)
        rows = [views[:, anchor], self._rows(views)[:, anchor]]
        rows += [] if noise is None else [noise[:, anchor]]
        images, *features = always_finite(self.task.backbone, look)(*rows)
        return images, features

    def gradients(
        self,
        step: Step,
        windows: Windows,
        views: Tensor,
        others: list[int],
        target: list[Tensor],
        noise: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of the distance of each window in `others` to the target's features, one target per canvas.

        Returns:
            gradients in the windows' latents [n, N', c, s, s], foreseen images [n, N', 3, S, S], distances [n, N'].
        """

        def gradient(
            model: Backbone, latents: Tensor, row: Tensor, owner: Tensor, *known: Tensor
        ) -> tuple[Tensor, Tensor, Tensor]:
            latents = latents.detach().requires_grad_()
            with torch.enable_grad():
                images = self.images(model, step, latents, told.rows(row), *known)
                distances = self._distance(model, images, [feature[owner] for feature in target])
                # A window's distance depends on that window alone, so the sum's gradient holds them all.
                wider = GRADIENT_SCALES.get(model.precision, 1.0)
                found = torch.autograd.grad(wider * distances.sum(), latents)[0] / wider
            return found, images.detach(), distances.detach()

        told, n = self.task.conditioning.for_windows(windows), len(views)
        owner = torch.arange(n, device=views.device).repeat_interleave(len(others))
        rows = [views[:, others].flatten(0, 1), self._rows(views)[:, others].flatten(), owner]
        rows += [] if noise is None else [noise[:, others].flatten(0, 1)]
        found = by_batches(always_finite(self.task.backbone, gradient), self.batch, *rows)
        gradients, images, distances = (each.unflatten(0, (n, len(others))) for each in found)
        return gradients, images, distances

    @staticmethod
    def _rows(views: Tensor) -> Tensor:
        """The row of each window's conditioning, [n, N]."""
        n, count = views.shape[:2]
        return torch.arange(n * count, device=views.device).view(n, count)

    def _features(self, model: Backbone, images: Tensor) -> list[Tensor]:
        """What the distance compares, under the model's precision."""
        with model.autocast():
            return self.loss.features(images)

    def _distance(self, model: Backbone, images: Tensor, target: list[Tensor]) -> Tensor:
        """Perceptual distances [r] of images to the features of as many others."""
        return self._stage(lambda x: self.loss.distance(self._features(model, x), target), images)

    def _stage(self, network: Callable[[Tensor], Tensor], given: Tensor) -> Tensor:
        if not (self.checkpointing and given.requires_grad):
            return network(given)
        # No stage draws random numbers, so none need be kept.
        return checkpoint(network, given, use_reentrant=False, preserve_rng_state=False)
