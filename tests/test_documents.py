"""What documents and code say of each other: cited sections exist, links lead somewhere, versions agree."""

import re
import subprocess
from itertools import takewhile
from pathlib import Path

import pandas as pd
import pytest
import yaml

from experiments.metrics.catalogue import METRICS
from syncdiffusion import __version__

REPOSITORY = Path(__file__).parents[1]
CODE = ("syncdiffusion", "baselines", "experiments", "conf", "tests")
DOCUMENTS = (
    "README.md",
    "PROTOCOL.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "results/README.md",
    "results/mini/README.md",
    "results/published/README.md",
    "syncdiffusion/pipeline.md",
    "syncdiffusion/weights/mini/README.md",
    "experiments/mini/README.md",
)


def sources() -> list[Path]:
    found = [p for folder in CODE for p in (REPOSITORY / folder).rglob("*") if p.suffix in (".py", ".yaml")]
    return [path for path in found if path != Path(__file__)]


def test_every_cited_section_of_the_protocol_exists():
    sections = set(re.findall(r"^## (\d+)\. ", (REPOSITORY / "PROTOCOL.md").read_text(), re.MULTILINE))
    assert sections == {"1", "2", "3", "4", "5"}
    texts = {path: path.read_text() for path in sources()}
    cited = [match for text in texts.values() for match in re.findall(r"PROTOCOL\.md, section (\d+)", text)]
    assert len(cited) >= 5 and set(cited) <= sections
    # A citation of any other kind has no reader.
    unread = [path for path, text in texts.items() if re.search(r"[Pp]rotocol §|\(protocol\b", text)]
    assert unread == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name):
    document = REPOSITORY / name
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if "://" not in target:
            path, _, anchor = target.partition("#")
            aim = document.parent / path if path else document
            assert aim.exists(), target
            if anchor:
                text = aim.read_text()
                anchors = {anchor_of(title) for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}
                assert anchor in anchors or f'name="{anchor}"' in text, target


def anchor_of(title: str) -> str:
    """The anchor that a rendered heading has.

    >>> anchor_of("What `run` does, and where")
    'what-run-does-and-where'
    """
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def test_the_citation_is_of_this_version_and_names_the_paper():
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(citation)  # the format's required ones
    assert str(citation["version"]) == __version__ and citation["license"] == "Apache-2.0"
    (paper,) = citation["references"]
    assert [each["family-names"] for each in paper["authors"]] == ["Lee", "Kim", "Kim", "Sung"]
    assert paper["identifiers"][0]["value"] == "arXiv:2306.05178" and paper["year"] == 2023


def test_the_changelog_has_this_version_and_room_for_the_next():
    text = (REPOSITORY / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## \[([^\]]+)\]", text, re.MULTILINE)
    assert versions[0] == "Unreleased" and __version__ in versions


IN_WORDS = {
    "**Profile matching**": "Profile matching",
    "SyncDiffusion, LPIPS-Alex": "lpips_alex",
    "the same without the UNet's Jacobian, w = 5": "without_jacobian",
    "SyncDiffusion, first 3 steps": "first_three",
}


@pytest.mark.parametrize(
    ("document", "corner", "folder"),
    [
        ("README.md", "n = 60 each", "benchmark"),
        ("README.md", "", "demo"),
        ("results/mini/README.md", "n = 24 each", "approximations"),
    ],
)
def test_tables_of_the_documents_are_those_of_the_results(document, corner, folder):
    """Every number to its last digit, bold for the best, a dagger for what differs."""
    lines = (REPOSITORY / document).read_text().splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    begin = next(i for i, row in enumerate(cells) if row[0] == corner and "Intra-LPIPS ↓" in row)
    table = pd.read_csv(REPOSITORY / "results" / "mini" / folder / "table.csv").set_index(["title", "metric"])
    metrics = {metric.display: name for name, metric in METRICS.items() if name in table.index.levels[1]}
    titles = set(table.index.levels[0])
    for row in cells:
        row[0] = IN_WORDS.get(row[0], row[0])
    checked = 0
    for row in takewhile(lambda row: row[0] in titles, cells[begin + 2 :]):
        for heading, cell in zip(cells[begin][1:], row[1:], strict=True):
            name = metrics.get(heading[:-2])
            if name is None or cell == "–":
                continue
            found = table.loc[(row[0], name)]
            numbers = re.findall(r"[−\d.]+", cell)
            assert (cell.startswith("**"), "†" in cell) == (found["best"], found["differs"]), (row[0], heading)
            for text, value in zip(numbers, (found["value"], found["plus_minus"]), strict=False):
                digits = len(text.partition(".")[2])
                assert abs(float(text.replace("−", "-")) - value) <= 0.5001 * 10**-digits, (row[0], heading)
                checked += 1
    assert checked >= 2 * len(titles) * 4 and {row[0] for row in cells[begin + 2 : begin + 2 + len(titles)]} == titles


def test_commands_in_contributing_are_of_this_repository():
    text = (REPOSITORY / "CONTRIBUTING.md").read_text()
    targets = set(re.findall(r"^make ([a-z-]+)", text, re.MULTILINE))
    rules = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    assert targets and targets <= rules
    modules = set(re.findall(r"python -m (experiments\.[\w.]+)", text))
    assert modules
    for module in modules:
        assert (REPOSITORY / f"{module.replace('.', '/')}.py").is_file(), module


def test_the_command_of_continuous_integration_can_be_read_by_a_shell():
    subprocess.run(["bash", "-n", str(REPOSITORY / ".ci" / "run")], check=True)
