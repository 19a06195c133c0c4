"""Imports point one way: experiments -> baselines -> syncdiffusion."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# The command and the pipeline run any method by its name: they look the registry of methods up.
ENTRIES = {"syncdiffusion/cli.py", "syncdiffusion/pipeline_arguments.py"}


def imported(path: Path) -> set[str]:
    """The top-level packages that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(str(node.module).partition(".")[0])
    return found


@pytest.mark.parametrize(
    ("folder", "above", "allowed"),
    [("syncdiffusion", {"baselines", "experiments", "tests"}, ENTRIES), ("baselines", {"experiments", "tests"}, set())],
)
def test_nothing_imports_what_stands_above_it(folder, above, allowed):
    files = sorted((ROOT / folder).rglob("*.py"))
    assert len(files) > 20
    upward = {path.relative_to(ROOT).as_posix() for path in files if imported(path) & above}
    assert upward == allowed
