"""SyncDiffusion (Lee et al., NeurIPS 2023, arXiv 2306.05178): one coherent panorama out of many windows.

Joint diffusion cuts a canvas into overlapping windows, denoises each a step, and averages (MultiDiffusion). The
windows agree where they overlap and nowhere else. SyncDiffusion first moves every window x_j, at each step i where the
gate is open, toward one anchor window (Algorithm 1, Eq. 6 to 8):

    x_j  <-  x_j  -  w · decay^i · d/dx_j L( image(x_j), image(x_anchor) )

where image(x) is what the window is foreseen to become: noise prediction with guidance, DDIM's x0, decoder, clamp.
L is LPIPS. All windows of a step are cut from the same canvas, and the anchor does not move. What paper, supplementary
code and released code do, and where they differ, is told in PROTOCOL.md, section 1.

L may also be another loss of the foreseen image, and its goal several anchors (then the mean distance to them), the
picture in a file, or what words ask for: then no window stands still. The catalogue in `perceptual` has the losses.

torch is imported where it is needed: the settings below are read by every command, also by one that only helps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from syncdiffusion.cost import NetworkCalls, Square, joint_calls
from syncdiffusion.geometry.sizes import choose_anchors
from syncdiffusion.method import Method, overlapping_corners
from syncdiffusion.method_settings import WindowedSettings, anchor_setting, decay_setting, first_n_setting
from syncdiffusion.perceptual.catalogue import LOSSES, check_goal
from syncdiffusion.settings import AUTO, setting

if TYPE_CHECKING:
    from torch import Tensor

    from syncdiffusion.joint.task import Step, Task


@dataclass(frozen=True)
class SyncDiffusionSettings(WindowedSettings):
    """Settings of one SyncDiffusion panorama; the defaults are the supplementary code's.

    unet_gradient: False holds each window's noise prediction constant in the gradient and takes it for the DDIM step
        as well: one UNet pass a step and none backward. An approximation, as DreamFusion's gradient (Poole et al.,
        ICLR 2023, Eq. 3) leaves out the same factor; at weight 0 it changes nothing.
    widen_gradient: what a gradient passes through runs in float32 under a lower precision as well; all else stays in
        that precision. Half precision changes a gradient by more than it changes a prediction, and descent steps
        amplify the difference. The released code widens nothing.
    checkpointing: keep of a gradient's forward pass only what stands between the networks, and compute the rest
        again: less memory, more time, the same result.
    """

    weight: float = setting(
        20.0, "step i moves a window by weight · decay^i times the gradient", least=0, symbol="w",
        axis="guidance weight w",
    )  # fmt: skip
    decay: float = decay_setting()
    every_n: int = setting(
        1, "pull at every n-th step only", least=1, symbol="every N", axis="gradient steps:\nevery N-th"
    )
    first_n: int | None = first_n_setting()
    anchor: int | str | None = anchor_setting()
    loss: str = setting("lpips_vgg", "loss of the foreseen images", choices=LOSSES, axis="perceptual loss")
    toward: str | None = setting(
        None, "what all windows are pulled toward in place of an anchor: a colour, a text, as the loss reads it",
        null="the anchor", added=(None,),
    )  # fmt: skip
    toward_picture: str | None = setting(
        None, "an image file whose central square all windows are pulled toward in place of an anchor",
        null="the anchor", added=(None,), file=True, picture=True,
    )  # fmt: skip
    unet_gradient: bool = setting(
        True, "false leaves the UNet's Jacobian out: one UNet pass a step; an approximation", added=(True,)
    )
    widen_gradient: bool = setting(
        False, "true takes the gradient in float32 under a lower precision as well", added=(False,)
    )
    gradient_batch: int | str = setting(
        AUTO, "windows through the networks at once where a gradient is taken", choices=(AUTO,), least=1,
        speed_only=True, shared=True,
    )  # fmt: skip
    checkpointing: bool = setting(False, "less memory, more time, the same result", speed_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_goal(self.loss, self.toward, self.toward_picture, self.anchor)

    def anchors(self, windows: int) -> tuple[int, ...]:
        """The numbers of the windows that stand still, of so many; none where they are pulled toward no window."""
        fixed = self.toward is not None or self.toward_picture is not None
        return () if fixed else choose_anchors(self.anchor, windows)

    def active(self, index: int) -> bool:
        """The gate: whether step `index` (from 0) synchronises."""
        return (index + 1) % self.every_n == 0 and (self.first_n is None or index < self.first_n)


def sample(task: Task, settings: SyncDiffusionSettings) -> Tensor:
    """Denoised canvases [n, c, h, w].

    Raises:
        UsageError: a canvas that the windows cannot cover, an anchor that does not exist, no weights for the loss, a
            goal that it cannot have.
    """
    from syncdiffusion.joint.foresee import Foresight, Pull
    from syncdiffusion.joint.loop import denoise

    windows = task.windows(settings.stride, settings.loop_closure)
    anchors = settings.anchors(len(windows))
    others = [j for j in range(len(windows)) if j not in anchors]
    if not others or not pulls(settings):
        return denoise(task, windows)
    chosen = (settings.loss, settings.gradient_batch, settings.checkpointing, settings.unet_gradient)
    foresight = Foresight.of(task, *chosen, settings.toward, settings.toward_picture, settings.widen_gradient)

    def pull(step: Step, views: Tensor, noise: Tensor | None = None) -> Tensor:
        if not settings.active(step.index):
            return views
        scale = settings.weight * settings.decay**step.index
        anchor_images, targets = foresight.aim(step, windows, views, anchors, noise)
        gradients, images, distances = foresight.gradients(step, windows, views, others, targets, noise)
        if task.on_pull is not None:
            task.on_pull(Pull(step, scale, tuple(others), anchor_images, images, distances, gradients))
        moved = views.clone()
        moved[:, others] -= scale * gradients
        return moved

    # Before the noise is predicted, so that it is predicted for the moved windows; or after, for both.
    if settings.unet_gradient:
        return denoise(task, windows, before=pull)
    return denoise(task, windows, after=pull)


def pulls(settings: SyncDiffusionSettings) -> int:
    """In how many steps windows are pulled."""
    return sum(map(settings.active, settings.passes)) if settings.weight else 0


def calls(settings: SyncDiffusionSettings, square: Square) -> NetworkCalls:
    """Network calls of one panorama."""
    n = len(overlapping_corners(settings, square))
    moved = n - len(settings.anchors(n))
    # Anchors are foreseen too, but without a gradient.
    unet = NetworkCalls(unet=n, unet_backward=moved) if settings.unet_gradient else NetworkCalls()
    images = NetworkCalls(decoder=n, decoder_backward=moved, loss=n, loss_backward=moved)
    pull = (unet + images) * pulls(settings) if moved else NetworkCalls()
    if settings.toward_picture is not None and pulls(settings):
        pull += NetworkCalls(loss=1)  # the picture, once
    return joint_calls(n, len(settings.passes), settings.height, settings.width, square) + pull


METHOD = Method(
    name="syncdiffusion",
    title="SyncDiffusion",
    settings=SyncDiffusionSettings,
    sample=sample,
    calls=calls,
    source="Lee et al., NeurIPS 2023, arXiv 2306.05178: windows pulled toward an anchor by a perceptual gradient",
    mark=("#0072b2", "o"),
)
