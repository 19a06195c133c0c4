"""The rows of a sweep as a figure: seconds over the values of the setting, a line for each sampler; of a GPU also peak
memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baselines import METHODS
from experiments.report.figures.style import TWO_COLUMNS, caption, legend, mark_of, new_figure, save, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES = {
    "width": "width of the canvas (heights)",
    "gradient_batch": "windows at once, with a gradient (gradient_batch)",
    "window_batch": "windows at once, without a gradient (window_batch)",
}
# column -> name, unit
PANELS = {"seconds": ("seconds per panorama", 1), "peak_memory_bytes": ("peak memory (GB)", 1e9)}


def write_sweep_figure(folder: Path, name: str, rows: Sequence[Mapping[str, Any]], over: str, device: str) -> None:
    """folder/NAME.svg and NAME.pdf of the rows of `sweeps.sweep` over a setting; device: its name, for the caption.

    Raises:
        UsageError: a file cannot be written.
    """
    with style():
        save(sweep_figure(rows, over, device), folder, name)


def sweep_figure(rows: Sequence[Mapping[str, Any]], over: str, device: str) -> Figure:
    figure = new_figure(TWO_COLUMNS, 62)
    # A CPU's peak is the process's, which keeps what the sampler before took: it tells samplers apart by no means.
    shown = {name: panel for name, panel in PANELS.items() if name == "seconds" or rows[0]["device"] != "cpu"}
    panels = figure.subplots(1, len(shown), squeeze=False)[0]
    for axes, (column, (title, unit)) in zip(panels, shown.items(), strict=True):
        for sampler in dict.fromkeys(row["sampler"] for row in rows):
            mine = [row for row in rows if row["sampler"] == sampler]
            x = [row[over] / row["height"] if over == "width" else row[over] for row in mine]
            colour, marker = mark_of(sampler)
            axes.plot(
                x, [row[column] / unit for row in mine], color=colour, marker=marker, label=METHODS[sampler].title
            )
            if column == "seconds":
                axes.fill_between(
                    x, *([row[f"seconds_{end}"] for row in mine] for end in ("min", "max")), color=colour, alpha=0.18
                )
        axes.set(xlabel=NAMES[over], ylabel=title, ylim=(0, None))
        axes.set_xticks(x)
    legend(figure, panels[0])
    first = rows[0]
    canvas = f"{first['height']} px high" if over == "width" else f"{first['width']}×{first['height']} px"
    what = f"case {first['case']}, {canvas}, {first['steps']} steps, {first['precision']}, {device}"
    runs = "One run each" if first["runs"] == 1 else f"Median of {first['runs']} runs, and from least to most seconds"
    caption(figure, f"{runs}; {what}.")
    return figure
