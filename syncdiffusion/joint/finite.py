"""No infinity and no NaN leaves a network: float16 overflows at 65504, in activations and in gradients alike."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from syncdiffusion.errors import UsageError

if TYPE_CHECKING:
    from syncdiffusion.backbones.backbone import Backbone

Rows = Callable[..., tuple[Tensor, ...]]  # rows of several tensors -> as many rows of its results


def always_finite(backbone: Backbone, function: Rows) -> Rows:
    """`function(backbone, *rows)` as a function of rows whose results hold no infinity and no NaN.

    Rows where that happened are done again in float32, with a warning that says how many.

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


def finite(backbone: Backbone, what: str, function: Callable[[Backbone], Tensor]) -> Tensor:
    """`function(backbone)`, of the autoencoder; done again in float32, with a warning, where it is not finite.

    Raises:
        UsageError: not finite in the model's full precision either.
    """
    found, wide = function(backbone), backbone.widened
    if not found.isfinite().all() and wide is not backbone:
        warnings.warn(
            f"precision={backbone.precision}: a {what} was not finite; it was done again in {wide.precision}",
            RuntimeWarning,
            stacklevel=2,
        )
        found = function(wide)
    if not found.isfinite().all():
        raise UsageError(
            f"precision={backbone.precision}: a {what} is not finite; use float32, or an autoencoder that does not "
            "overflow in half precision"
        )
    return found


def _finite_rows(results: tuple[Tensor, ...]) -> Tensor:
    """Which rows are finite in all results, [n] of booleans."""
    return torch.stack([result.isfinite().reshape(len(result), -1).all(dim=1) for result in results]).all(dim=0)
