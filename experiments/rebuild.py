"""Tables, figures and the report page of a folder, anew: ``python -m experiments.rebuild FOLDER [FOLDER ...]``.

A folder is a run folder or one under ``results/``. Only study.json, panoramas.csv, scores.csv, replicates.csv and,
where it is there, swaps.csv are read, and the same files give the same bytes. The page is written where panoramas are
there to be shown, or with ``--page``. Exit status 0; 2 for a mistake of the user's, told in one line on stderr. No
torch, no model.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from baselines import METHODS
from experiments.common.command_line import one_line_errors
from experiments.common.files import Unwritable
from experiments.metrics.catalogue import METRICS
from experiments.plan.plugins import load_plugins
from experiments.report.fonts import tell_missing
from experiments.results.numbers import titles
from experiments.results.study import read_results
from syncdiffusion.errors import UsageError


def rebuild(folder: Path, page: bool) -> str:
    """Write everything that follows from the four files; returns the main table and its notes as Markdown.

    Raises:
        UsageError: a file is missing or damaged, or one cannot be written.
    """
    from experiments.report.figures import write_figures
    from experiments.report.tables import write_tables
    from experiments.stages.score_files import check_whole

    check_whole(folder)
    results = read_results(folder)
    unknown = [name for name in results.scores["metric"].unique() if name not in METRICS]
    if unknown:
        raise UsageError(f"{folder}: the metric {unknown[0]} is not known; give its plugin's file, --plugins FILE")
    strange = [row.method for row in results.study.rows if row.method not in METHODS]
    if strange and not results.study.made_elsewhere:
        raise UsageError(f"{folder}: the method {strange[0]} is not known; give its plugin's file, --plugins FILE")
    tell_missing((*results.study.prompts, *titles(results.study).values()))
    text = write_tables(folder, results)
    write_figures(folder, results)
    if page:
        from experiments.report.page import write_page

        write_page(folder, results)
    return text


@one_line_errors()
def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.rebuild", description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="a run folder, or one under results/")
    parser.add_argument("--page", action="store_true", help="the page also where there are no panoramas to show")
    plugin_help = "the run's plugins, which its metrics and methods come from"
    parser.add_argument("--plugins", nargs="+", default=[], metavar="FILE", help=plugin_help)
    arguments = parser.parse_args(words)
    load_plugins(arguments.plugins)
    for folder in arguments.folders:
        try:
            rebuild(folder, arguments.page or (folder / "panoramas").is_dir())
        except Unwritable as error:
            raise UsageError(f"{folder}: {error}; make room there or rebuild a copy of the folder") from None
        print(f"rebuilt: {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
