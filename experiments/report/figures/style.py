"""How every figure looks, and how it is saved: sizes, type, colours, labels. Figures are drawn without pyplot.

Sizes are those of a paper: one column of 85 mm, or two of 180 mm, with type of 5.5 to 7 points at that size.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from baselines import METHODS
from experiments.common.files import write_whole
from experiments.metrics.catalogue import METRICS
from experiments.report.fonts import families, legible
from experiments.report.typeset import one_line
from experiments.results.study import Results, Study

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.container import ErrorbarContainer
    from matplotlib.figure import Figure

Box = tuple[float, float, float, float]  # left, low, right, high

ONE_COLUMN, TWO_COLUMNS = 85.0, 180.0  # mm
MM = 1 / 25.4  # inches

STYLE = {
    "font.family": "DejaVu Sans",  # comes with Matplotlib: without other scripts a figure is the same on every machine
    "font.size": 7,
    "axes.labelsize": 7,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.edgecolor": "#404040",
    "xtick.color": "#404040",
    "ytick.color": "#404040",
    "xtick.labelcolor": "black",
    "ytick.labelcolor": "black",
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "axes.formatter.useoffset": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "legend.frameon": False,
    "legend.handlelength": 1.8,
    "figure.dpi": 150,  # on a screen; in a file all is vectors
    "text.parse_math": False,  # a prompt or a label may hold a dollar sign
    "svg.fonttype": "path",  # renders everywhere
    "svg.hashsalt": "syncdiffusion",  # else the ids of an SVG are random
    "pdf.fonttype": 42,  # TrueType: what publishers take
}

# Okabe and Ito's colours, which the colour-blind tell apart too, with a purple dark enough for text. A method keeps its
# own in every figure.
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = "#0072b2", "#d55e00", "#009e73", "#aa3377", "#e69f00", "#56b4e9"
OTHERS = ((PURPLE, "D"), (ORANGE, "v"), (SKY, "P"), ("#332288", "<"), ("#000000", ">"))
GREY = "#707070"

DIRECTIONS = {"lower": "↓ lower is better", "higher": "↑ higher is better"}


@contextmanager
def style(texts: Iterable[str] = ()) -> Iterator[None]:
    """The style alone, whatever the reader's own matplotlibrc says.

    texts: what the figures will show in scripts of any kind; fonts that draw them stand behind DejaVu Sans.
    """
    import matplotlib.style

    with matplotlib.style.context(["default", {**STYLE, "font.family": families(texts)}]):
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of `width` by `height` mm, whose parts keep clear of each other."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * MM, height * MM), layout="constrained")
    figure.get_layout_engine().set(w_pad=1.2 * MM, h_pad=1.0 * MM, wspace=0.03, hspace=0.03)
    return figure


def marks(study: Study) -> dict[str, tuple[str, str]]:
    """Label -> (colour, marker): one pair for each method, for all values of a swept setting, for each variant.

    A method has its own everywhere; what else the run has of it, and unknown methods, take those that are left.
    """
    found: dict[str, tuple[str, str]] = {}
    for row in study.rows:
        group, own = row.swept[0] if row.swept else row.label, mark_of(row.method)
        if group not in found:
            left = [each for each in (own, *OTHERS) if each and each not in found.values()]
            found[group] = left[0] if left else OTHERS[len(found) % len(OTHERS)]
    return {row.label: found[row.swept[0] if row.swept else row.label] for row in study.rows}


def mark_of(method: str) -> tuple[str, str] | None:
    """A method's colour and marker; None for one that has none of its own."""
    return METHODS[method].mark if method in METHODS else None


def metric_label(metric: str) -> str:
    """The metric's name and, below it, which way is better; metric: of METRICS, or "seconds"."""
    if metric == "seconds":
        return f"seconds per panorama\n{DIRECTIONS['lower']}"
    return f"{METRICS[metric].display}\n{DIRECTIONS[METRICS[metric].better]}"


def short(text: str, longest: int = 40) -> str:
    """One line of at most `longest` characters.

    >>> short("a  long\\nprompt", 10)
    'a long pr…'
    """
    line = legible(one_line(text))
    return line if len(line) <= longest else line[: longest - 1] + "…"


def caption(figure: Figure, text: str) -> None:
    """A small line or two under the figure, as wide as the figure."""
    per_line = int(figure.get_figwidth() / MM / 1.1)  # mm that a character of 5.5 points takes on average
    figure.supxlabel(textwrap.fill(text, per_line), x=0.005, ha="left", fontsize=5.5, color="#404040")


def about(results: Results, count: str) -> str:
    """The caption's last sentences: how many panoramas, and of which model."""
    study = results.study
    model = "embedded miniature model" if study.model["embedded"] else legible(one_line(str(study.model["name"])))
    size = f"{study.canvas['width']}×{study.canvas['height']} px"
    if study.made_elsewhere:
        return f"{count}; pictures {model}, {size}."
    size += f", {study.canvas['steps']} steps"
    return f"{count}; {model}, {size}."


def panoramas_each(results: Results, labels: Sequence[str]) -> str:
    """
    n of every row, and how it comes about, such as "n = 24 panoramas each (6 prompts)".
    """
    mine = results.panoramas[results.panoramas["method"].isin(labels)]
    counts = mine["method"].value_counts()
    least, most = int(counts.min()), int(counts.max())
    number = f"{most}" if least == most else f"{least} to {most}"
    prompts = mine["prompt"].nunique()
    return f"n = {number} panoramas each ({prompts} prompt{'s' if prompts != 1 else ''})"


def legend(figure: Figure, axes: Axes) -> None:
    """One legend above all panels, of what one of them shows."""
    handles, names = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, names, loc="outside upper center", ncols=len(names))


def few_ticks(axes: Axes, *which: str) -> None:
    """Round numbers, five or so; which: "x", "y"."""
    from matplotlib.ticker import MaxNLocator

    for each in which:
        getattr(axes, f"{each}axis").set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))


PLACES = ((1, 0), (0, 1), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1))  # (right, up) of a point
ALIGNED = {1: ("left", "bottom"), 0: ("center", "center"), -1: ("right", "top")}
TEXT, APART = 6.0, 4.5  # points: size of a text beside a point, and its distance


def place_labels(
    axes: Axes,
    points: Sequence[tuple[float, float]],
    texts: Sequence[str],
    colours: Sequence[str],
    avoid: Sequence[Box] = (),
) -> None:
    """Write a text beside each point (data coordinates), where it covers least of the points, lines and other texts,
    and of `avoid` (boxes in pixels). Call it when the limits of the axes and the layout are final."""
    from matplotlib.patheffects import withStroke

    unit = axes.figure.dpi / 72
    at = [tuple(map(float, each)) for each in axes.transData.transform(points)]
    taken = [(x - 2.5 * unit, y - 2.5 * unit, x + 2.5 * unit, y + 2.5 * unit) for x, y in at]
    taken += [*avoid, *line_boxes(axes, unit)]
    for place, point, text, colour in zip(at, points, texts, colours, strict=True):
        size = (0.6 * TEXT * len(text) * unit, 1.1 * TEXT * unit)
        boxes = {side: text_box(place, size, side, APART * unit) for side in PLACES}
        frame = axes.bbox.extents
        cover = {side: area(box) - overlap(box, frame) for side, box in boxes.items()}
        side = min(PLACES, key=lambda side: cover[side] + sum(overlap(boxes[side], other) for other in taken))
        taken.append(boxes[side])
        offset, (across, along) = (APART * side[0], APART * side[1]), (ALIGNED[side[0]][0], ALIGNED[side[1]][1])
        halo = [withStroke(linewidth=1.2, foreground="white")]
        how = {"ha": across, "va": along, "fontsize": TEXT, "color": colour, "path_effects": halo}
        axes.annotate(text, point, offset, textcoords="offset points", **how)


def line_boxes(axes: Axes, unit: float) -> list[Box]:
    """Small boxes, two points apart, along every line and every error bar of the axes."""
    import numpy as np

    paths = [line.get_transform().transform(line.get_xydata()) for line in axes.lines]
    paths += [axes.transData.transform(part) for bars in axes.containers for part in segments(bars)]
    boxes = []
    for path in paths:
        for (x0, y0), (x1, y1) in zip(path[:-1], path[1:], strict=True):
            if np.isfinite([x0, y0, x1, y1]).all():
                for share in np.linspace(0, 1, max(2, int(np.hypot(x1 - x0, y1 - y0) / (2 * unit)))):
                    x, y = float(x0 + share * (x1 - x0)), float(y0 + share * (y1 - y0))
                    boxes.append((x - unit / 2, y - unit / 2, x + unit / 2, y + unit / 2))
    return boxes


def segments(bars: ErrorbarContainer) -> list[np.ndarray]:
    return [part for collection in bars.lines[2] for part in collection.get_segments()]


def text_box(point: tuple[float, float], size: tuple[float, float], side: tuple[int, int], apart: float) -> Box:
    """Where a text of (width, height) lies that stands on one side of a point."""
    left, low = (p + s * apart - (1 - s) / 2 * length for p, s, length in zip(point, side, size, strict=True))
    return left, low, left + size[0], low + size[1]


def area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def overlap(a: Box, b: Box) -> float:
    """The area that two boxes share.

    >>> overlap((0, 0, 2, 2), (1, 1, 3, 3)), overlap((0, 0, 1, 1), (2, 0, 3, 1))
    (1, 0)
    """
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """NAME.svg and NAME.pdf, the same to the byte whenever the figure is the same."""
    kept = []
    for kind, metadata in (
        ("svg", {"Date": None, "Creator": None}),
        ("pdf", {"CreationDate": None, "Creator": None, "Producer": None}),
    ):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, metadata=metadata)
        write_whole(folder / f"{name}.{kind}", buffer.getvalue())
        kept.append(folder / f"{name}.{kind}")
    return kept
