"""Where the windows of a row lie, for the page to draw them over its panoramas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.results.study import Row
from syncdiffusion.geometry.sizes import window_corners


def windows_of(row: Row, canvas: Mapping[str, Any]) -> dict[str, Any] | None:
    """Windows in pixels of the panorama; None for a method without windows.

    Returns:
        size: their side. boxes: [left, top] of each, by number; one that reaches beyond the right edge goes on at the
        left. anchor: the number of the one that the others are pulled toward, None where the method has none.
    """
    settings = row.settings
    if "stride" not in settings:
        return None
    factor = canvas.get("factor", 8)  # pixels per latent cell
    height, width, size = (pixels // factor for pixels in (settings["height"], settings["width"], canvas["window"]))
    corners = window_corners(height, width, size, settings["stride"], settings.get("loop_closure", "off"))
    anchor = None
    if "anchor" in settings:
        anchor = len(corners) // 2 if settings["anchor"] is None else settings["anchor"]
    boxes = [[left * factor, top * factor] for top, left in corners]
    return {"size": size * factor, "boxes": boxes, "anchor": anchor}
