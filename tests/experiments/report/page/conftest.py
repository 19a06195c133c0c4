"""One run folder with its page for all tests of the page, those that change something copy it; and one browser."""

from pathlib import Path

import pytest

from experiments.report.page import write_page
from experiments.results.study import Results, read_results
from tests.experiments.report.page.browsing import CHROMIUM, DRIVER, Page, start
from tests.experiments.report.page.run_folders import table_run


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results]:
    """(folder, results), the page written."""
    folder = tmp_path_factory.mktemp("table")
    table_run(folder)
    results = read_results(folder)
    assert write_page(folder, results) == folder / "report" / "index.html"
    return folder, results


@pytest.fixture(scope="session")
def page(tmp_path_factory):
    """One browser for all; every test opens the page that it needs."""
    if not (CHROMIUM and DRIVER):
        pytest.skip("needs chromium and chromedriver (Debian: chromium and chromium-driver)")
    driver = start(tmp_path_factory.mktemp("chromium"))
    yield Page(driver)
    driver.quit()
