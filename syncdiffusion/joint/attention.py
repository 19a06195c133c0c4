"""Attention across the windows of a panorama: other rules for a UNet's attention layers, put back afterwards.

A rule is built on the layer's own processor, which it calls with other rows of tokens than the windows'. So whatever
that processor does (LoRA layers included) goes on. Two identities make that enough:

- Queries, keys and values are linear in the tokens: those of averaged tokens are the averages of theirs.
- Keys and values of several windows together are those of their tokens, one window's after the other's.

All windows of a panorama must be in one pass of the UNet. That is memory for all of them at once, while all other
methods go window by window where memory is short; `whole_panoramas` makes a task whose batches are so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from syncdiffusion.errors import UsageError

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

    from syncdiffusion.geometry.windows import Windows
    from syncdiffusion.joint.task import Task

GUIDANCE = 2  # rows of a window in a pass: without the prompt and with it

# A layer's own processor with its layer: (tokens, what they attend to, or None for themselves) -> tokens
Attend = Callable[[Tensor, Tensor | None], Tensor]
# (attend, tokens [g, N, tokens, d], what they attend to [g, N, words, d], None in self-attention) -> tokens [g, N, ...]
Rule = Callable[[Attend, Tensor, Tensor | None], Tensor]


def whole_panoramas(task: Task, windows: Windows) -> Task:
    """The same task with all windows of one panorama in each pass of the UNet, which torch.compile leaves alone."""
    return replace(task, window_batch=len(windows), backbone=replace(task.backbone, compiled_unet=None))


@contextmanager
def attending(unet: UNet2DConditionModel, windows: Windows, rule: Rule) -> Iterator[None]:
    """Within, the attention layers of `unet` follow `rule`; afterwards they are as before, also after an error.

    A pass has g = 2 rows for each of the N windows of one panorama: all without the prompt, then all with it.

    Raises (in a pass):
        UsageError: a pass with fewer rows, which happens where memory is short or where some were not finite.
    """
    before, count = dict(unet.attn_processors), len(windows)

    def whole(hidden: Tensor) -> Tensor:
        if len(hidden) != GUIDANCE * count:
            raise UsageError(
                f"windows={count}: attention across windows needs them all in one pass of the UNet, and they "
                "do not fit into memory or were not finite; use a larger stride, a narrower canvas or precision=float32"
            )
        return hidden.unflatten(0, (GUIDANCE, count))

    unet.set_attn_processor({name: _Ruled(processor, rule, whole) for name, processor in before.items()})
    try:
        yield
    finally:
        unet.set_attn_processor(before)


class _Ruled:
    """An attention processor, as diffusers calls it, that follows a rule and leaves the rest to `own`."""

    def __init__(self, own: Any, rule: Rule, whole: Callable[[Tensor], Tensor]) -> None:
        self.own, self.rule, self.whole = own, rule, whole

    def __call__(
        self,
        attn: torch.nn.Module,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *others: Any,
        **named: Any,
    ) -> Tensor:
        if attention_mask is not None:
            raise ValueError("attention across windows knows no attention mask")

        def attend(tokens: Tensor, seen: Tensor | None) -> Tensor:
            return self.own(attn, tokens, seen, None, *others, **named)

        # The middle block of some UNets has images for tokens: [rows, d, h, w].
        image = hidden_states.shape[1:] if hidden_states.ndim == 4 else None
        tokens = hidden_states if image is None else hidden_states.flatten(2).transpose(1, 2)
        seen = None if encoder_hidden_states is None else self.whole(encoder_hidden_states)
        result = self.rule(attend, self.whole(tokens), seen).flatten(0, 1)
        return result if image is None else result.transpose(1, 2).unflatten(2, image[1:])


def merged(windows: Windows, in_self: bool, in_cross: bool) -> Rule:
    """One canvas of tokens instead of windows (MAD): averaged where windows overlap, attending once, cut out again.

    Args:
        in_self, in_cross: in which of the two kinds of layers; the other stays as it is.
    """

    def rule(attend: Attend, tokens: Tensor, seen: Tensor | None) -> Tensor:
        if not (in_self if seen is None else in_cross):
            return per_window(attend, tokens, seen)
        if seen is not None and not torch.equal(seen, seen[:, :1].expand_as(seen)):
            raise UsageError("merged cross-attention reads one prompt for the whole canvas; give all windows the same")
        placed = reduced(windows, tokens.shape[2])
        side = placed.size
        # Sums of several windows would lose digits in half precision.
        wide = tokens.to(torch.promote_types(tokens.dtype, torch.float32))
        views = wide.transpose(2, 3).unflatten(3, (side, side))
        canvas = placed.fuse(views).to(tokens.dtype)
        result = attend(canvas.flatten(2).transpose(1, 2), None if seen is None else seen[:, 0])
        canvas = result.transpose(1, 2).unflatten(2, (placed.height, placed.width))
        return placed.crop(canvas).flatten(3).transpose(2, 3)

    return rule


def neighbours(windows: Windows, around: bool, reference: float) -> Rule:
    """Self-attention that sees the windows to the left and right as well, and the middle one (SyncTweedies).

    Args:
        around: whether the first and the last window are neighbours; else each has itself for the one it lacks.
        reference: weight of what attention to the middle window alone gives; the rest's weight is 1.
    """
    count = len(windows)
    numbers = torch.arange(count)
    left, right = ((numbers + away) % count if around else (numbers + away).clamp(0, count - 1) for away in (-1, 1))

    def rule(attend: Attend, tokens: Tensor, seen: Tensor | None) -> Tensor:
        if seen is not None:
            return per_window(attend, tokens, seen)
        three = torch.cat([tokens[:, left], tokens, tokens[:, right]], dim=2)
        result = per_window(attend, tokens, three)
        if reference == 0:
            return result
        middle = tokens[:, count // 2, None].expand_as(tokens)
        return (result + reference * per_window(attend, tokens, middle)) / (1 + reference)

    return rule


def per_window(attend: Attend, tokens: Tensor, seen: Tensor | None) -> Tensor:
    """What a layer does by itself: every window attends alone, to itself where `seen` is None."""
    result = attend(tokens.flatten(0, 1), None if seen is None else seen.flatten(0, 1))
    return result.unflatten(0, tokens.shape[:2])


def reduced(windows: Windows, tokens: int) -> Windows:
    """The windows as a layer with `tokens` tokens a window has them; corners must be whole tokens there.

    Raises:
        UsageError: they are not.
    """
    side = round(tokens**0.5)
    factor = windows.size // side
    lengths = {windows.height, windows.width, *(cell for corner in windows.corners for cell in corner)}
    if side * factor != windows.size or any(length % factor for length in lengths):
        raise UsageError(
            f"stride: merged attention needs windows that lie at multiples of {factor} latent cells, "
            f"as far apart as this model's coarsest tokens; use a stride that is a multiple of {factor}"
        )
    return replace(
        windows,
        height=windows.height // factor,
        width=windows.width // factor,
        size=side,
        corners=tuple((top // factor, left // factor) for top, left in windows.corners),
    )
