"""Where the regions of a panorama's layout are, for metrics that look at them. Nothing here imports torch."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from syncdiffusion.conditioning.layout import Layout, layout_for

if TYPE_CHECKING:
    from experiments.metrics.measure import PanoramaImage


def layout_of(item: PanoramaImage) -> Layout | None:
    """The layout that a panorama was made with, None where there was none; UsageError where it cannot be read."""
    named = item.made.get("settings", {}).get("layout")
    return None if named is None else layout_for(named, item.prompt)


def cells_of(item: PanoramaImage, layout: Layout) -> np.ndarray:
    """Whose each latent cell is, the background's first: booleans [1 + regions, h, w]."""
    settings = item.made["settings"]
    return layout.cells(settings["height"], settings["width"], item.made["factor"])


def region_pixels(item: PanoramaImage, size: tuple[int, int]) -> np.ndarray:
    """Pixels of each region of a panorama's layout, booleans [regions, *size]: those of its latent cells."""
    layout = layout_of(item)
    if layout is None:
        return np.empty((0, *size), bool)
    return cells_of(item, layout)[1:].repeat(item.made["factor"], axis=1).repeat(item.made["factor"], axis=2)


def background_pixels(item: PanoramaImage, size: tuple[int, int]) -> np.ndarray:
    """Pixels that belong to no region, booleans of this size; all of them without a layout."""
    return ~region_pixels(item, size).any(axis=0)


def cells_digest(item: PanoramaImage) -> str:
    """What a measurement that depends on the regions is kept by; "" without a layout."""
    layout = layout_of(item)
    if layout is None:
        return ""
    cells = cells_of(item, layout)
    return hashlib.sha256(repr(cells.shape).encode() + np.packbits(cells).tobytes()).hexdigest()
