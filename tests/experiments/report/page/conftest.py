"""One run folder with its page for all tests of the page; those that change something copy it."""

from pathlib import Path

import pytest

from experiments.report.page import write_page
from experiments.results.study import Results, read_results
from tests.experiments.report.page.run_folders import table_run


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results]:
    """(folder, results), the page written."""
    folder = tmp_path_factory.mktemp("table")
    table_run(folder)
    results = read_results(folder)
    assert write_page(folder, results) == folder / "report" / "index.html"
    return folder, results
