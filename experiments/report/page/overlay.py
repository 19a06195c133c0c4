"""Where the windows of a row lie, for the page to draw them over its panoramas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from baselines import METHODS
from experiments.results.study import Row
from syncdiffusion.cost import Square
from syncdiffusion.geometry.sizes import choose_anchors
from syncdiffusion.settings import facts_of


def windows_of(row: Row, canvas: Mapping[str, Any]) -> dict[str, Any] | None:
    """Windows in pixels of the panorama; None for a method without windows.

    Returns:
        size: their side. boxes: [left, top] of each, by number; one that reaches beyond the right edge goes on at the
        left. anchors: the numbers of those that the others are pulled toward, none where the method has none.
    """
    method = METHODS.get(row.method)
    if method is None or method.moving:
        return None
    factor = canvas.get("factor", 8)  # pixels per latent cell
    square = Square(canvas["window"] // factor, factor)
    # What a row does not say it has in common with the others.
    told = {**canvas, **row.settings}
    known = {name: told[name] for name in facts_of(method.settings) if name in told}
    corners = method.corners(method.settings(**known), square)
    if not corners:
        return None
    toward_other = any(row.settings.get(name) is not None for name in ("toward", "toward_picture"))
    has_anchors = "anchor" in row.settings and not toward_other
    anchors = choose_anchors(row.settings["anchor"], len(corners)) if has_anchors else ()
    boxes = [[left * factor, top * factor] for top, left in corners]
    return {"size": square.pixels, "boxes": boxes, "anchors": list(anchors)}
