"""Layouts: a prompt for each region of a panorama, read from a file. Nothing here imports torch.

A layout is YAML or JSON:

    background: a photo of a mountain range at twilight   # left out: the panorama's own prompt
    regions:
      - prompt: a photo of a city skyline at night
        box: [0.1, 0.2, 0.4, 1]                           # left, top, right, bottom, as shares of the picture
      - prompt: a photo of a lake
        polygon: [[0.5, 0.9], [0.7, 0.4], [0.9, 0.9]]     # x, y of its corners
      - prompt: a photo of a forest
        mask: forest.png                                  # white inside; its path from the layout's folder

A setting may also name a folder of layouts: each panorama takes the one whose background is its prompt, else the first
that leaves it out.

Regions are cells of the latent canvas. As in MultiDiffusion's region-based code (Bar-Tal et al., ICML 2023) a mask of
the picture's size is reduced to the nearest pixel and cut at a half, and the background is what no region covers.
There regions may overlap, and are averaged where they do; here that is refused: a cell belongs to one prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from syncdiffusion.errors import UsageError
from syncdiffusion.files import place_of

SUFFIXES = (".yaml", ".yml", ".json")
SHAPES = ("box", "polygon", "mask")


@dataclass(frozen=True)
class Region:
    """A prompt and where it holds.

    name: for messages, such as "region 2 (a lake)".
    corners: of a polygon, (x, y) as shares of the picture; empty where there is a mask.
    mask: an image file, None where there are corners.
    """

    name: str
    prompt: str
    corners: tuple[tuple[float, float], ...] = ()
    mask: Path | None = None


@dataclass(frozen=True)
class Layout:
    """Regions of a panorama, and what is told of the rest; `background` None is the panorama's own prompt."""

    path: Path
    background: str | None
    regions: tuple[Region, ...]

    def prompts(self, own: str) -> tuple[str, ...]:
        """Of the background and of each region, for a panorama whose own prompt is `own`."""
        return (self.background or own, *(region.prompt for region in self.regions))

    def cells(self, height: int, width: int, factor: int) -> np.ndarray:
        """Whose each latent cell is: booleans [1 + regions, height / factor, width / factor], the background first.

        Every cell belongs to one of them. The background may be empty.

        Args:
            height, width: of the picture in pixels.
            factor: pixels per latent cell.

        Raises:
            UsageError: a size of no whole cells; a mask that cannot be read, of another size or kind; a region that
                covers no cell; regions that overlap.
        """
        for name, length in (("height", height), ("width", width)):
            if length % factor:
                raise UsageError(f"{name}={length}: use a multiple of {factor}, the pixels of a latent cell")
        found = [self._pixels(region, height, width)[::factor, ::factor] for region in self.regions]
        for region, cells in zip(self.regions, found, strict=True):
            if not cells.any():
                raise UsageError(f"layout={self.path}: {region.name} covers no latent cell of {factor} px; enlarge it")
        taken = np.zeros((height // factor, width // factor), bool)
        for index, cells in enumerate(found):
            if (taken & cells).any():
                other = next(i for i in range(index) if (found[i] & cells).any())
                raise UsageError(
                    f"layout={self.path}: {self.regions[other].name} and {self.regions[index].name} overlap in "
                    f"{int((found[other] & cells).sum())} latent cells; part them"
                )
            taken |= cells
        return np.stack([~taken, *found])

    def _pixels(self, region: Region, height: int, width: int) -> np.ndarray:
        """Pixels of a region, booleans [height, width]."""
        if region.mask is None:
            return inside(region.corners, height, width)
        from PIL import Image

        where = f"layout={self.path}: {region.name}: mask={region.mask}"
        try:
            with Image.open(region.mask) as picture:
                picture.load()
                mode, size, values = picture.mode, picture.size, np.asarray(picture)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            reason = getattr(error, "strerror", None) or "not a picture that can be opened"
            raise UsageError(f"{where}: cannot be read ({reason}); give a PNG") from None
        if mode not in ("1", "L"):
            raise UsageError(f"{where}: is {mode}; save it in greyscale (L), or in black and white (1), white inside")
        if size != (width, height):
            raise UsageError(f"{where}: is {size[0]}x{size[1]} px, the picture {width}x{height}; give one of its size")
        return values if mode == "1" else values >= 127.5


def inside(corners: Sequence[tuple[float, float]], height: int, width: int) -> np.ndarray:
    """Pixels whose centre lies in a polygon, by the even-odd rule; booleans [height, width].

    corners: (x, y) as shares of the width and the height.
    """
    y, x = (np.arange(height)[:, None] + 0.5) / height, (np.arange(width)[None] + 0.5) / width
    within = np.zeros((height, width), bool)
    for (x0, y0), (x1, y1) in zip(corners, (*corners[1:], corners[0]), strict=True):
        if y0 != y1:  # a level edge crosses no ray to the right
            within ^= ((y0 <= y) != (y1 <= y)) & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    return within


def read_layout(path: Path) -> Layout:
    """
    Raises:
        UsageError: no such file, not of the form that this module's text tells.
    """
    where, content = f"layout={path}", _read(path)
    _check_keys(content, ("background", "regions"), where)
    background, listed = content.get("background"), content.get("regions")
    if background is not None and not _is_text(background):
        raise UsageError(f"{where}: background={background}: give a text, or leave it out")
    if not isinstance(listed, Sequence) or isinstance(listed, str) or not listed:
        raise UsageError(f"{where}: regions={listed}: give a list of them, one at least")
    return Layout(path, background, tuple(_region(path, number, each) for number, each in enumerate(listed, 1)))


def _read(path: Path) -> Mapping[str, Any]:
    import yaml  # reads JSON too

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"layout={path}: cannot be read ({error.strerror}); give a YAML or JSON file") from None
    except (yaml.YAMLError, ValueError) as error:  # no UTF-8, or a date that is none
        raise UsageError(f"layout={path}: is neither YAML nor JSON ({' '.join(str(error).split())})") from None
    if not isinstance(content, Mapping):
        raise UsageError(f"layout={path}: must hold `background` and `regions`")
    return content


def _region(path: Path, number: int, content: Any) -> Region:
    where = f"layout={path}: region {number}"
    if not isinstance(content, Mapping):
        raise UsageError(f"{where}: {content}: give `prompt` and one of {', '.join(SHAPES)}")
    _check_keys(content, ("prompt", *SHAPES), where)
    prompt: Any = content.get("prompt")
    given = [shape for shape in SHAPES if shape in content]
    if not _is_text(prompt):
        raise UsageError(f"{where}: prompt={prompt}: say what is there")
    if len(given) != 1:
        raise UsageError(f"{where}: has {' and '.join(given) or 'no place'}; give one of {', '.join(SHAPES)}")
    name, value = f"region {number} ({prompt})", content[given[0]]
    if given == ["mask"]:
        if not _is_text(value):
            raise UsageError(f"{where}: mask={value}: give an image file")
        return Region(name, prompt, mask=path.parent / place_of(value))
    if given == ["box"]:
        left, top, right, bottom = _numbers(f"{where}: box={value}", [value], 4, "left, top, right, bottom")[0]
        if left >= right or top >= bottom:
            raise UsageError(f"{where}: box={value}: is empty; give left < right and top < bottom")
        return Region(name, prompt, ((left, top), (right, top), (right, bottom), (left, bottom)))
    points = value if isinstance(value, Sequence) and not isinstance(value, str) else []
    if len(points) < 3:
        raise UsageError(f"{where}: polygon={value}: give three corners or more, [x, y] each")
    corners = _numbers(f"{where}: polygon={value}", points, 2, "x, y")
    return Region(name, prompt, tuple((x, y) for x, y in corners))


def _numbers(where: str, rows: Sequence[Any], count: int, names: str) -> list[tuple[float, ...]]:
    """Rows of `count` numbers from 0 to 1."""
    for row in rows:
        listed = isinstance(row, Sequence) and not isinstance(row, str) and len(row) == count
        if not (listed and all(isinstance(x, int | float) and not isinstance(x, bool) and 0 <= x <= 1 for x in row)):
            raise UsageError(f"{where}: give [{names}] as shares of the picture, from 0 to 1")
    return [tuple(map(float, row)) for row in rows]


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _check_keys(content: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    unknown = [str(key) for key in content if key not in known]
    if unknown:
        raise UsageError(f"{where}: {unknown[0]}: no such part; there are {', '.join(known)}")


def layout_files(path: str) -> list[Path]:
    """The layouts that a setting names: the file itself, or those of a folder.

    Raises:
        UsageError: a folder without any.
    """
    place = place_of(path)
    if not place.is_dir():
        return [place]
    found = sorted(each for each in place.iterdir() if each.suffix in SUFFIXES)
    if not found:
        raise UsageError(f"layout={path}: no layout in that folder; give a YAML or JSON file")
    return found


def read_layouts(path: str) -> tuple[Layout, ...]:
    """All layouts that a setting names; raises as `read_layout` and `layout_files`."""
    return tuple(map(read_layout, layout_files(path)))


def layout_for(path: str, prompt: str) -> Layout:
    """The layout of a panorama with this prompt.

    Raises:
        UsageError: none of the folder's is for it; a file that is for another prompt; or as `read_layout`.
    """
    layouts = read_layouts(path)
    for background in (prompt, None):  # one that is the prompt's own before one that is for any
        for layout in layouts:
            if layout.background == background:
                return layout
    backgrounds = [f"'{layout.background}'" for layout in layouts]
    if len(backgrounds) > 1:
        raise UsageError(
            f"layout={path}: none there is for '{prompt}'; give one of {', '.join(backgrounds)} as the prompt"
        )
    raise UsageError(f"layout={path}: its background is {backgrounds[0]}, not '{prompt}'; give that as the prompt")


def files_named(path: str) -> list[Path]:
    """Every file that decides what a layout says: itself, or those of the folder, and their masks."""
    layouts = read_layouts(path)
    return [file for each in layouts for file in (each.path, *(r.mask for r in each.regions if r.mask is not None))]


def evaluations(layouts: Sequence[Layout], height: int, width: int, factor: int, corners: Any, window: int) -> float:
    """How many predictions a step takes: of each window one for each prompt that holds in it; the mean over layouts.

    corners: (top, left) of the windows in latent cells; one may wrap around the right edge. window: their side.
    """
    total = 0
    for layout in layouts:
        cells = layout.cells(height, width, factor)
        around = np.concatenate([cells, cells], axis=2)
        for top, left in corners:
            total += int(around[:, top : top + window, left : left + window].any(axis=(1, 2)).sum())
    return total / len(layouts)
