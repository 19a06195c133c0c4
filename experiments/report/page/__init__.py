"""The report of a run: a folder with a page that opens from disk and asks no network for anything."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.common.files import write_whole
from experiments.results.study import Results

ASSETS = Path(__file__).parent
BESIDE = ("page.css", "page.js", "windows.js", "ring.js", "lightbox.js", "gallery.js")
VIEWER = (
    "pannellum/pannellum.js",
    "pannellum/pannellum.css",
    "pannellum/LICENSE.txt",
)  # of vendor/, if there is a ring


def write_page(folder: Path, results: Results, panoramas: Path | None = None) -> Path:
    """Write folder/report: index.html, what it needs beside it, the plots and the pictures.

    Args:
        folder: of the run, or one of scores alone; its figures/*.svg and comparisons.csv are shown where they are.
        results: the facts and numbers.
        panoramas: the folder that the `file` column of panoramas.csv starts from, where it is not `folder`. Panoramas
            that are not there are left out; a page without any says so.

    Returns:
        The path of index.html. Written again from the same files it is the same to the byte.

    Raises:
        UsageError: a file cannot be written.
    """
    from experiments.report.page.content import page_content
    from experiments.report.page.pictures import write_images, write_plots, write_ring
    from experiments.report.page.tables import table_sections

    report = folder / "report"
    images = write_images(report, panoramas or folder, results.panoramas["file"])
    content = page_content(results, table_sections(folder, results), images, write_plots(report, folder))
    for image in ring_images(results, images):
        write_ring(report, image)
        for name in VIEWER:
            write_whole(report / name, (ASSETS / "vendor" / name).read_bytes())
    for name in BESIDE:
        write_whole(report / name, (ASSETS / name).read_bytes())
    template = (ASSETS / "template.html").read_text()
    write_whole(report / "index.html", template.replace("@CONTENT@", embedded_json(content)))
    return report / "index.html"


def ring_images(results: Results, images: Mapping[str, str]) -> list[str]:
    """The pictures of panoramas that close, by the paths in `images`."""
    made, closing = results.panoramas, [row.label for row in results.study.rows if row.closed]
    files = made.loc[made["method"].isin(closing), "file"]
    return list(dict.fromkeys(images[file] for file in files if file in images))


def embedded_json(content: Mapping[str, Any]) -> str:
    """JSON to stand inside a <script> element: nothing in it can end the element or begin a comment.

    >>> embedded_json({"a": "</script>"})
    '{"a":"\\\\u003c/script>"}'
    """
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<\u2028\u2029":  # outside of strings JSON has none of them
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
