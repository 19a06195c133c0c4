"""Colours of the procedural world: skies by time of day, ground and leaves by season.

Every time of day has several palettes that differ clearly: that freedom under one and the same
caption is what makes independent windows of a panorama disagree.
"""

from dataclasses import dataclass

import numpy as np

Colour = np.ndarray  # float32[3], RGB in [0, 1]


def rgb(code: str) -> Colour:
    """'#rrggbb' as float32 RGB in [0, 1]."""
    return np.array([int(code[i : i + 2], 16) for i in (1, 3, 5)], np.float32) / 255


@dataclass(frozen=True)
class Palette:
    """One look of the sky and of what it lights; colours are '#rrggbb'."""

    name: str  # the word captions use for it
    top: str  # zenith
    middle: str
    horizon: str
    far: str  # most distant ridge, nearly lost in the air
    near: str  # nearest ridge
    light: str  # sun, moon, lit windows
    cloud: str
    ambient: str  # multiplies the colours of ground and leaves


SKIES: dict[str, tuple[Palette, ...]] = {
    "day": (
        Palette("blue", "#2f74d0", "#6fb0ee", "#d3ecfb", "#a9c6df", "#3f6b7a", "#fff6d0", "#ffffff", "#ffffff"),
        Palette("turquoise", "#1592a8", "#55c3c4", "#d8f3e3", "#a2cfc6", "#2f7565", "#fffbe0", "#f7fffb", "#e8fff2"),
        Palette("golden", "#c99a4a", "#ecca83", "#fbf0cd", "#d9c39a", "#8a6a3c", "#fff3c4", "#fffaf0", "#ffe9bd"),
        Palette("pale", "#9db8cf", "#c5d6e2", "#eef2f3", "#c3ced6", "#6d7f8b", "#fffdf2", "#ffffff", "#e3e9ee"),
    ),
    "sunset": (
        Palette("orange", "#3b3a78", "#d9673f", "#ffc35c", "#c97a57", "#4a2440", "#fff0a8", "#f59b63", "#ffb380"),
        Palette("crimson", "#3a1440", "#b3243f", "#ff8552", "#a03a4a", "#2c0f26", "#ffd98c", "#e2545a", "#f28c84"),
        Palette("pink", "#6b7fc4", "#e79ac0", "#ffdcc8", "#c29abf", "#5d4674", "#fff3d8", "#ffc6d6", "#f7c5d2"),
        Palette("golden", "#a0622c", "#e9a93c", "#fff0a6", "#cf9a52", "#5b3415", "#fffbd8", "#ffd98a", "#ffcf85"),
    ),
    "dawn": (
        Palette("lilac", "#7f8fd0", "#c9b3df", "#ffe3d6", "#b3a9cf", "#5e5f8d", "#fff1d2", "#f3dcee", "#dcd2f0"),
        Palette("peach", "#8fb4d9", "#f4c9b2", "#fff0d0", "#d3b7b3", "#7b6a7c", "#fff6d6", "#ffe2d0", "#ffdcc6"),
        Palette("mint", "#5ea7b8", "#a9dcc9", "#f6f6d2", "#a5cbc0", "#3f7672", "#fffbe0", "#e8f9ea", "#d5f2e0"),
        Palette("rose", "#b0698f", "#e7a0a8", "#ffe1cf", "#c99aa8", "#6f3f5c", "#fff0d4", "#ffd0d0", "#f6c8cc"),
    ),
    "twilight": (
        Palette("indigo", "#141a4e", "#3d4a9c", "#a9a4dc", "#6a6fb4", "#171b45", "#fff2c8", "#7b80c4", "#8088d0"),
        Palette("purple", "#2a1250", "#7d3a94", "#f09ab4", "#8d5a9f", "#2b1440", "#ffe2c0", "#b86aa8", "#a878c0"),
        Palette("red", "#33101f", "#97303a", "#f5a25d", "#8a4248", "#260d18", "#ffe0a0", "#c4574e", "#c07a70"),
        Palette("teal", "#07333f", "#1f7f86", "#b9e6c4", "#4b9794", "#0a3038", "#fff6d0", "#5fb0a8", "#70b0aa"),
        Palette("orange", "#2c3a66", "#b0685a", "#ffc27a", "#93706e", "#2e2a3e", "#fff0b8", "#dc9470", "#c89888"),
    ),
    "night": (
        Palette("blue", "#030a2a", "#0d2260", "#2b4f9a", "#22366e", "#060d26", "#fff2b8", "#2d447e", "#4860a8"),
        Palette("violet", "#160528", "#3f1166", "#8a3a9e", "#4c2270", "#14061f", "#ffc6f0", "#5c2f86", "#7a50a0"),
        Palette("teal", "#01181c", "#05454a", "#1f8a80", "#0f504f", "#021416", "#d8fff0", "#1d6460", "#3f8a84"),
        Palette("amber", "#160c06", "#4a2a10", "#b0702c", "#57361a", "#120a05", "#ffdf90", "#6b4620", "#a87c4c"),
        Palette("black", "#030304", "#0e0f14", "#2b2d36", "#1e2028", "#050506", "#fff6dc", "#26282f", "#585c68"),
        Palette("crimson", "#1a0309", "#560b1d", "#b4323c", "#5e1a28", "#160308", "#ffd0b0", "#74202c", "#a05058"),
    ),
    "overcast": (
        Palette("grey", "#87919b", "#aeb6bc", "#d9dcdc", "#adb5ba", "#4c565e", "#f4f4ee", "#c9ced1", "#c4cacd"),
        Palette("steel", "#566b82", "#8199ad", "#bccbd4", "#8ea2b2", "#34485a", "#eef4f7", "#9db0be", "#a2b4c2"),
        Palette("sepia", "#8f8068", "#b9aa8e", "#e2d8c1", "#b7aa92", "#5c4f3c", "#fff6de", "#cdc1a9", "#d0c2a4"),
    ),
}

# Meadow, leaf and accent (flower or leaf light) colours of a season, in white light.
SEASONS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "spring": (("#86bf55", "#f0a3c2", "#ffe36b"), ("#a5cf6a", "#bfe07a", "#ffffff"), ("#74b868", "#f7d7e6", "#e86aa6")),
    "summer": (("#4f9a3c", "#2f7a34", "#f4d84a"), ("#d9c24c", "#5a8f3a", "#d9482f"), ("#6fae3f", "#3f8f58", "#8f6fd0")),
    "autumn": (("#b9873a", "#d9682a", "#f2c040"), ("#8f8a45", "#b23a2c", "#e8a03c"), ("#a8743a", "#c9992e", "#d9502a")),
    "winter": (("#eef3f8", "#dfe9f2", "#ffffff"), ("#dfe6ee", "#7d93a3", "#ffffff"), ("#f3f1ee", "#55707a", "#ffffff")),
}
