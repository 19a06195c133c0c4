"""The images that noisy windows are foreseen to become, and the gradient of a perceptual distance between them.

Window -> noise prediction -> DDIM's x0 -> decoder -> clamp -> distance: this file is what stands around that chain so
that it fits into memory, holds in half precision, and computes nothing twice. `syncdiffusion.sync` is what it is for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from syncdiffusion.errors import UsageError
from syncdiffusion.files import open_picture, pixels_of
from syncdiffusion.joint.finite import always_finite
from syncdiffusion.joint.task import Step, Task
from syncdiffusion.memory import Batch, by_batches

if TYPE_CHECKING:
    from syncdiffusion.backbones.backbone import Backbone
    from syncdiffusion.conditioning.windows import WindowConditioning
    from syncdiffusion.geometry.windows import Windows
    from syncdiffusion.perceptual.catalogue import PerceptualLoss

# A distance is a mean over an image's pixels, so that what flows back in float16 is near its least numbers: 6e-8, below
# which all is zero. Where the miniature's distance is divided by 64, a gradient loses nine tenths of its length, and a
# window of Stable Diffusion has 16 times the miniature's pixels. A power of two, taken out again, rounds nothing
# itself. The released code scales nothing; every other precision has room enough.
GRADIENT_SCALES = {"float16": 2.0**8}


@dataclass(frozen=True)
class Pull:
    """What one synchronising step saw of n panoramas, before it moved their windows.

    scale: weight · decay^i; a window moves by -scale times its gradient.
    windows: the numbers of the N' windows but the A anchors, in the order of the tensors' second axis.
    anchor_images: foreseen images of the anchors, [n, A, 3, S, S] in [0, 1]; A is 0 where the goal is no window.
    images: foreseen images of those windows, [n, N', 3, S, S] in [0, 1].
    distances: loss of each, its distance to the goal, [n, N'].
    gradients: of that distance in the window's latents, [n, N', c, s, s].
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

    backbone: the networks that are looked through; the task's, or those without autocast.
    batch: windows through the networks at once where a gradient is taken.
    checkpointing: keep of a forward pass only what stands between the networks, and compute the rest again.
    goal: features that every window is pulled toward whatever the others are, a row for each panorama; None where
        anchors are the goal.
    """

    task: Task
    backbone: Backbone
    loss: PerceptualLoss
    batch: Batch
    checkpointing: bool = False
    goal: list[Tensor] | None = None

    @classmethod
    def of(
        cls,
        task: Task,
        loss: str,
        gradient_batch: int | str,
        checkpointing: bool,
        unet_gradient: bool = True,
        toward: str | None = None,
        toward_picture: str | None = None,
        widen: bool = False,
    ) -> Foresight:
        """With the loss of that name, and as its goal what words or a picture ask for; anchors where neither is given.

        widen: the networks run in float32 under any lower precision.

        Raises:
            UsageError: no such loss, its weights cannot be had, words that it does not understand, no such picture.
        """
        from syncdiffusion.perceptual import distances

        backbone = task.backbone.widened if widen else task.backbone
        kind = ("gradient", backbone.precision, loss, unet_gradient, checkpointing, *task.conditioning.kind)
        batch = Batch(gradient_batch, "gradient_batch", kind, backbone.row_bytes)
        seen = distances.load_perceptual(loss, backbone.device, backbone.dtype)
        goal = goal_features(backbone, task.prompts, seen, toward, toward_picture)
        return cls(task, backbone, seen, batch, checkpointing, goal)

    def images(
        self, model: Backbone, step: Step, latents: Tensor, told: WindowConditioning, noise: Tensor | None = None
    ) -> Tensor:
        """Foreseen images [r, 3, S, S] in [0, 1] of windows [r, c, s, s]; differentiable in the windows.

        noise: the windows' noise where it is known, held constant in a gradient; None predicts it.
        """
        if noise is None:
            noise = self._stage(lambda x: told.predict(model, x, step.timestep), latents)
        return self._stage(model.decode, self.task.foresee(step, latents, noise))

    @torch.no_grad()
    def aim(
        self, step: Step, windows: Windows, views: Tensor, anchors: Sequence[int], noise: Tensor | None
    ) -> tuple[Tensor, list[list[Tensor]]]:
        """What windows are pulled toward at a step, without a gradient.

        Returns:
            the images that the anchors are foreseen to become [n, A, 3, S, S], and the features of each goal: those of
            each anchor, or the fixed goal's.
        """
        if self.goal is not None:
            side = views.shape[-1] * self.task.backbone.factor
            return views.new_empty(len(views), 0, 3, side, side), [self.goal]

        def look(model: Backbone, latents: Tensor, which: Tensor, *known: Tensor) -> tuple[Tensor, ...]:
            images = self.images(model, step, latents, told.of(which), *known)
            return images, *self._features(model, images)

        told = self.task.conditioning.at(self.task, step, windows)
        found = []
        for anchor in anchors:
            rows = [views[:, anchor], self._rows(views)[:, anchor]]
            rows += [] if noise is None else [noise[:, anchor]]
            found.append(always_finite(self.backbone, look)(*rows))
        return torch.stack([images for images, *_ in found], 1), [features for _, *features in found]

    def gradients(
        self,
        step: Step,
        windows: Windows,
        views: Tensor,
        others: list[int],
        targets: list[list[Tensor]],
        noise: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of the distance of each window in `others` to the targets' features, the mean over several targets.

        Args:
            targets: features of a row per canvas each, as `aim` gives them.

        Returns:
            gradients in the windows' latents [n, N', c, s, s], foreseen images [n, N', 3, S, S], distances [n, N'].
        """

        def gradient(
            model: Backbone, latents: Tensor, row: Tensor, owner: Tensor, *known: Tensor
        ) -> tuple[Tensor, Tensor, Tensor]:
            latents = latents.detach().requires_grad_()
            with torch.enable_grad():
                images = self.images(model, step, latents, told.of(row), *known)
                distances = self._distance(model, images, [[f[owner] for f in target] for target in targets])
                # A window's distance depends on that window alone, so the sum's gradient holds them all.
                wider = GRADIENT_SCALES.get(model.precision, 1.0)
                found = torch.autograd.grad(wider * distances.sum(), latents)[0] / wider
            return found, images.detach(), distances.detach()

        told, n = self.task.conditioning.at(self.task, step, windows), len(views)
        owner = torch.arange(n, device=views.device).repeat_interleave(len(others))
        rows = [views[:, others].flatten(0, 1), self._rows(views)[:, others].flatten(), owner]
        rows += [] if noise is None else [noise[:, others].flatten(0, 1)]
        found = by_batches(always_finite(self.backbone, gradient), self.batch, *rows)
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

    def _distance(self, model: Backbone, images: Tensor, targets: list[list[Tensor]]) -> Tensor:
        """Distances [r] of images to the features of as many others, the mean over several targets."""

        def mean(images: Tensor) -> Tensor:
            seen = self._features(model, images)
            return torch.stack([self.loss.distance(seen, target) for target in targets]).mean(dim=0)

        return self._stage(mean, images)

    def _stage(self, network: Callable[[Tensor], Tensor], given: Tensor) -> Tensor:
        if not (self.checkpointing and given.requires_grad):
            return network(given)
        # No stage draws random numbers, so none need be kept.
        return checkpoint(network, given, use_reentrant=False, preserve_rng_state=False)


@torch.no_grad()
def goal_features(
    backbone: Backbone,
    prompts: Sequence[str],
    loss: Any,
    toward: str | None = None,
    toward_picture: str | None = None,
) -> list[Tensor] | None:
    """The features of a goal that is no window, a row for each panorama; None where there is none.

    Args:
        prompts: one of each panorama.
        toward: words, for a loss that understands some.
        toward_picture: an image file; its central square, enlarged or reduced to a window's size, is looked at.

    Raises:
        UsageError: words that the loss does not understand, a file that is no picture.
    """
    if toward is not None:
        try:
            features = loss.features_of(toward, prompts)
        except ValueError as error:  # words that a loss of a plugin cannot read
            raise UsageError(f"toward={toward}: the loss cannot read it ({error}); give words that it reads") from None
    elif toward_picture is not None:
        square = read_square(toward_picture, backbone.window * backbone.factor)
        square = square.to(backbone.device, backbone.dtype)
        with backbone.autocast():
            features = loss.features(square)
    else:
        return None
    return [each.to(backbone.device).expand(len(prompts), *each.shape[1:]) for each in features]


def read_square(path: str, side: int) -> Tensor:
    """The central square of an image file, [1, 3, side, side] in [0, 1].

    Raises:
        UsageError: no such file, or no picture.
    """
    from PIL import Image, ImageOps

    square = ImageOps.fit(open_picture("toward_picture", path), (side, side), Image.Resampling.BICUBIC)
    return pixels_of(square, "cpu", torch.float32)[None]
