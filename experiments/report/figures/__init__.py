"""The figures of a run, from its numbers alone: SVG for a page, PDF for a paper."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.common.files import discard
from experiments.results.numbers import titles
from experiments.results.study import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OURS = re.compile("tradeoff|prompts|cost|ablation_.+")  # names of figures


def write_figures(folder: Path, results: Results) -> list[Path]:
    """Write folder/figures/NAME.svg and NAME.pdf of every figure; the same bytes from the same results.

    Figures of an earlier time that these results no longer have are removed.

    Raises:
        UsageError: a file cannot be written.
    """
    from experiments.report.figures.style import save, style

    figures, place = figures_of(results), folder / "figures"
    for old in (*place.glob("*.svg"), *place.glob("*.pdf")):
        if OURS.fullmatch(old.stem) and old.stem not in figures:
            discard(old)
    with style():
        return [path for name, figure in figures.items() for path in save(figure, place, name)]


def figures_of(results: Results) -> dict[str, Figure]:
    """Every figure that the results have the numbers for, by name.

    tradeoff: coherence against KID and against seconds, all rows.
    ablation_SETTING, ablation_SETTING_paired: the metrics over the values of a swept setting, and their paired
        difference to the row compared with.
    cost: the metrics over the seconds that a panorama takes, all swept settings.
    prompts: where nothing is swept, the paired differences in Intra-LPIPS prompt by prompt.
    """
    from experiments.report.figures.comparisons import prompts_figure, tradeoff_figure
    from experiments.report.figures.style import style
    from experiments.report.figures.sweeps import cost_figure, curves_figure, paired_figure
    from experiments.report.figures.values import swept_settings

    texts = (*results.study.prompts, *titles(results.study).values(), str(results.study.model["name"]))
    with style(texts):
        swept = swept_settings(results)
        figures = {"tradeoff": tradeoff_figure(results)}
        for setting in swept:
            figures[f"ablation_{setting}"] = curves_figure(results, setting)
            figures[f"ablation_{setting}_paired"] = paired_figure(results, setting)
        figures["cost" if swept else "prompts"] = cost_figure(results) if swept else prompts_figure(results)
    return {name: figure for name, figure in figures.items() if figure is not None}
