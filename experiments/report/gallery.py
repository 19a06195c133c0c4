"""The pictures of a run: the whole gallery, and a comparison narrow enough for a page."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.common.files import write_whole
from experiments.panoramas.store import Unit
from experiments.report.fonts import Pen

if TYPE_CHECKING:
    from PIL.Image import Image

CELL_WIDTH = 768  # wider panoramas are scaled down to it; the miniature's are shown pixel by pixel
GAP, TEXT = 8, 16  # pixels
ROWS = 24  # panoramas of comparison.png, if one prompt has not more
MOST_ROWS = 36
INK, PAPER, BLANK = "#1c1c1c", "#ffffff", "#e4e4e4"


def write_gallery(folder: Path, units: Sequence[Unit], titles: dict[str, str]) -> Path:
    """Draw gallery.png; `titles` maps each label to its column's heading.

    Of more than MOST_ROWS rows the first seeds of every prompt are shown, of more prompts the first ones. A panorama
    that is not there stays blank.
    """
    from PIL import Image, ImageDraw

    rows = choose_rows(units)
    by_cell = {(unit.prompt, unit.seed, unit.label): unit for unit in units}
    columns = list(titles)
    cells = {key: open_image(folder, by_cell[key]) for key in by_cell if key[:2] in rows}
    height = max((cell.height for cell in cells.values() if cell is not None), default=CELL_WIDTH // 6)
    cell_width = max([240, *(cell.width for cell in cells.values() if cell is not None)])
    row_height = height + TEXT + 2 * GAP
    size = (GAP + (cell_width + GAP) * len(columns), TEXT + 3 * GAP + row_height * len(rows))
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    bold, plain = Pen(TEXT, bold=True), Pen(TEXT - 2)
    for column, label in enumerate(columns):
        bold.write(draw, (GAP + (cell_width + GAP) * column, GAP), titles[label], INK)
    for row, (prompt, seed) in enumerate(rows):
        top = TEXT + 3 * GAP + row_height * row
        plain.write(draw, (GAP, top - 2), f"{' '.join(prompt.split())}, seed {seed}", INK)
        for column, label in enumerate(columns):
            corner = (GAP + (cell_width + GAP) * column, top + TEXT + GAP // 2)
            cell = cells.get((prompt, seed, label))
            if cell is None:
                draw.rectangle((*corner, corner[0] + cell_width - 1, corner[1] + height - 1), fill=BLANK)
            else:
                sheet.paste(cell, corner)
    return save(sheet, folder / "gallery.png")


def write_comparison(folder: Path, units: Sequence[Unit], titles: dict[str, str]) -> Path:
    """Draw comparison.png: of the first seed of every prompt, the methods one below the other.

    A page is too narrow for panoramas side by side; the gallery holds them all. Of many methods the first prompts
    alone, so that it stays a picture that one looks at: ROWS panoramas in all, or one prompt's.
    """
    from PIL import Image, ImageDraw

    prompts = list(dict.fromkeys(unit.prompt for unit in units))[: max(1, ROWS // len(titles))]
    first = {unit.prompt: unit.seed for unit in reversed(units) if unit.prompt in prompts}
    units = [unit for unit in units if unit.prompt in first]
    cells = {(unit.prompt, unit.label): open_image(folder, unit) for unit in units if first[unit.prompt] == unit.seed}
    there = [cell for cell in cells.values() if cell is not None]
    height = max((cell.height for cell in there), default=CELL_WIDTH // 6)
    bold, plain = Pen(TEXT, bold=True), Pen(TEXT - 2)
    left = 2 * GAP + max(plain.length(title) for title in titles.values())
    block = TEXT + 2 * GAP + (height + GAP) * len(titles)
    width = left + max([CELL_WIDTH, *(cell.width for cell in there)]) + GAP
    sheet = Image.new("RGB", (width, GAP + block * len(first)), PAPER)
    draw = ImageDraw.Draw(sheet)
    for row, prompt in enumerate(prompts):
        top = GAP + block * row
        bold.write(draw, (left, top), " ".join(prompt.split()), INK)
        for place, (label, title) in enumerate(titles.items()):
            corner = (left, top + TEXT + GAP + (height + GAP) * place)
            plain.write(draw, (GAP, corner[1] + height // 2 - TEXT // 2), title, INK)
            cell = cells.get((prompt, label))
            if cell is not None:
                sheet.paste(cell, corner)
    return save(sheet, folder / "comparison.png")


def save(sheet: Image, path: Path) -> Path:
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG")
    write_whole(path, buffer.getvalue())
    return path


def choose_rows(units: Sequence[Unit]) -> list[tuple[str, int]]:
    """(prompt, seed) of the rows, in the plan's order."""
    seeds: dict[str, list[int]] = {}
    for unit in units:
        if unit.seed not in seeds.setdefault(unit.prompt, []):
            seeds[unit.prompt].append(unit.seed)
    each = max(1, MOST_ROWS // len(seeds))
    return [(prompt, seed) for prompt, known in seeds.items() for seed in known[:each]][:MOST_ROWS]


def open_image(folder: Path, unit: Unit) -> Image | None:
    """A panorama, no wider than a cell; None where there is no whole picture."""
    from PIL import Image

    try:
        image = Image.open(unit.png(folder)).convert("RGB")
    except OSError:
        return None
    if image.width > CELL_WIDTH:
        image = image.resize((CELL_WIDTH, round(image.height * CELL_WIDTH / image.width)), Image.Resampling.LANCZOS)
    return image
