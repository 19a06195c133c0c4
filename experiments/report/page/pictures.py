"""The pictures of a page: panoramas as WebP under names of their content, and the plots."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterable
from pathlib import Path

from experiments.common.files import write_whole
from experiments.common.progress import report_images

QUALITY = 90
WIDEST = 16_383  # pixels, of a WebP picture


def write_images(report: Path, source: Path, files: Iterable[str]) -> dict[str, str]:
    """Every PNG of `files` (relative to `source`) that is there, as a picture of its full size under report/images.

    Names come from what the PNG holds, so a picture that is there already is not made again.

    Returns:
        file -> path relative to `report`; a PNG that is missing or damaged has no entry.
    """
    images, files = {}, list(files)
    done = report_images("page")
    for number, file in enumerate(files):
        try:
            images[file] = write_image(report, (source / file).read_bytes())
        except (OSError, SyntaxError):  # Pillow says SyntaxError of some broken PNGs
            continue
        finally:
            done(number + 1, len(files))
    return images


def write_image(report: Path, png: bytes) -> str:
    """Raises OSError or SyntaxError for bytes that are no whole picture."""
    from PIL import Image

    name = hashlib.sha256(f"webp {QUALITY} ".encode() + png).hexdigest()[:20]
    for there in (f"images/{name}.webp", f"images/{name}.png"):
        if (report / there).is_file():
            return there
    image = Image.open(io.BytesIO(png)).convert("RGB")
    if max(image.size) > WIDEST:
        write_whole(report / f"images/{name}.png", png)
        return f"images/{name}.png"
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=QUALITY)
    write_whole(report / f"images/{name}.webp", buffer.getvalue())
    return f"images/{name}.webp"


def write_ring(report: Path, image: str) -> None:
    """Beside a picture of `write_images` the same in a script, from which ring.js may make a texture."""
    path = report / image
    script = path.with_suffix(".js")
    if not script.is_file():
        data = base64.b64encode(path.read_bytes()).decode()
        write_whole(
            script, f'"use strict";\nrings["{image}"] = "data:image/{path.suffix[1:]};base64,{data}";\n'.encode()
        )


def write_plots(report: Path, folder: Path) -> list[dict[str, str]]:
    """Copies of folder/figures/*.svg beside the page, each with its file name as a caption."""
    plots = []
    for path in sorted((folder / "figures").glob("*.svg")):
        write_whole(report / "figures" / path.name, path.read_bytes())
        caption = path.stem.replace("_", " ").replace("-", " ")
        plots.append({"file": f"figures/{path.name}", "caption": caption[:1].upper() + caption[1:]})
    return plots
