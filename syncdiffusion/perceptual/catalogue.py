"""Losses of foreseen images by name: what a window may be pulled along. Nothing here imports torch.

A loss tells how far an image is from a goal by their features. The goal is what the anchor windows are foreseen to
become, or the picture in a file, or what words name, as far as the loss understands words. A file of your own adds one
as a plugin: an `ImageLoss` named LOSS in it (CONTRIBUTING.md has one in ten lines).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from syncdiffusion.errors import UsageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class PerceptualLoss(Protocol):
    """What every distance offers. All of it is differentiable in the images.

    name: the setting that selects it; network: which weights it looks through, for records.
    """

    name: str
    network: str

    def features(self, images: Tensor) -> list[Tensor]:
        """(n, 3, h, w) in [0, 1] -> one tensor of n rows per layer, float32, or float64 of float64."""
        ...

    def distance(self, a: list[Tensor], b: list[Tensor]) -> Tensor:
        """Features of n or 1 images each -> (n,) distances."""
        ...


class WordedLoss(PerceptualLoss, Protocol):
    """A loss whose goal may be given in words."""

    def features_of(self, words: str, prompts: Sequence[str]) -> list[Tensor]:
        """The features that `words` ask for: one row for all panoramas, or one for each of their prompts.

        Raises:
            UsageError: words that it does not understand.
        """
        ...


@dataclass(frozen=True)
class ImageLoss:
    """A loss, told without torch.

    name: in settings.
    load: (device, dtype of the networks) -> the loss; UsageError where its weights cannot be had.
    reads: what its words (`toward`) are; "" where it understands none.
    """

    name: str
    load: Callable[[torch.device | str, torch.dtype], Any]
    reads: str = ""


LOSSES: dict[str, ImageLoss] = {}


def register_loss(loss: ImageLoss) -> ImageLoss:
    """Add a loss to the catalogue; the same one again changes nothing.

    Raises:
        UsageError: another loss has its name.
    """
    if LOSSES.setdefault(loss.name, loss) is not loss:
        raise UsageError(f"loss {loss.name}: there is one of that name; rename it")
    return loss


def check_goal(loss: str, toward: str | None, toward_picture: str | None, anchor: int | str | None) -> None:
    """Refuse goals that exclude each other, and words that a loss does not understand.

    Raises:
        UsageError: names the settings and what would do.
    """
    given = {"toward": toward, "toward_picture": toward_picture, "anchor": anchor}
    chosen = [f"{name}={value}" for name, value in given.items() if value is not None]
    if len(chosen) > 1:
        raise UsageError(f"{', '.join(chosen)}: windows are pulled toward one of them; leave the others null")
    if toward is not None and not LOSSES[loss].reads:
        able = ", ".join(f"{each.name} ({each.reads})" for each in LOSSES.values() if each.reads)
        raise UsageError(f"toward={toward}: loss={loss} understands no words; use a loss that does: {able}")
    if toward is not None and not toward.strip():
        raise UsageError(f"toward={toward}: is empty; give {LOSSES[loss].reads}, or null")


def _perceptual(name: str) -> Callable[[Any, Any], Any]:
    def load(device: Any, dtype: Any) -> Any:
        from syncdiffusion.perceptual.distances import load_network_distance

        return load_network_distance(name, device, dtype)

    return load


def _colour(device: Any, dtype: Any) -> Any:
    from syncdiffusion.perceptual.colour import MeanColour

    return MeanColour(device)


def _clip(name: str) -> Callable[[Any, Any], Any]:
    def load(device: Any, dtype: Any) -> Any:
        from syncdiffusion.perceptual.clip import load_clip_loss

        return load_clip_loss(name, device, dtype)

    return load


for _name in ("lpips_vgg", "lpips_alex", "style"):
    register_loss(ImageLoss(_name, _perceptual(_name)))
register_loss(ImageLoss("colour", _colour, reads="a colour such as orange or #ff8800"))
register_loss(ImageLoss("mini_clip", _clip("mini_clip"), reads="a text that the prompt should lean toward"))
register_loss(ImageLoss("clip", _clip("clip"), reads="a text that the prompt should lean toward"))
