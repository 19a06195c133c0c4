"""The notebooks run from their own folder, from top to bottom, in this very Python; nothing is written back."""

import re
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

from tests.experiments.composing import REPOSITORY
from tests.experiments.synthetic import synthetic_results, write_results

NOTEBOOKS = REPOSITORY / "notebooks"
NEEDED = {"one_panorama": (), "tables": ("table1",), "ablations": ("ablation_weight", "ablation_skip")}


def execute(notebook: nbformat.NotebookNode, folder: Path) -> str:
    """Run it in `folder`; returns its outputs as text, a picture as the name of its kind."""
    # No folder of kernel specs: then "python3" is ipykernel's own, started with sys.executable.
    manager = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))
    client = NotebookClient(
        notebook, km=manager, timeout=300, record_timing=False, resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return "\n".join(map(text_of, outputs))


def text_of(output: nbformat.NotebookNode) -> str:
    if output.output_type == "stream":
        return output.text
    return "\n".join(kind if kind.startswith("image/") else content for kind, content in output.data.items())


def results_folder(names: tuple[str, ...], scratch: Path) -> Path:
    """Whole experiments that were never measured: a test must not depend on which results are committed."""
    for name in names:
        write_results(scratch / name, synthetic_results(f"experiment={name}", "seeds.count=3"))
    return scratch


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def test_every_notebook_is_run_here():
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == set(NEEDED)


@pytest.mark.parametrize("name", NEEDED)
def test_notebook_runs(name, tmp_path, monkeypatch):
    monkeypatch.setenv("RESULTS", str(results_folder(NEEDED[name], tmp_path)))
    notebook = read(name)
    text = execute(notebook, NOTEBOOKS)
    pictures = {"one_panorama": 3, "tables": 2, "ablations": 6}
    assert text.count("image/") == pictures[name]
    expected = {"one_panorama": "(7, 3, 5)", "tables": "Blended latent diffusion", "ablations": "gain kept"}
    assert expected[name] in text
    assert str(REPOSITORY) not in text and "Warning" not in text  # what is committed with its outputs has neither


def test_kernel_is_this_python(tmp_path):
    code = "import sys\nprint(sys.executable)"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    assert execute(notebook, tmp_path).strip() == sys.executable


@pytest.mark.parametrize("name", NEEDED)
def test_notebook_is_clean(name):
    """No path of a machine, no times of an execution; short cells, and small outputs if there are any."""
    content = (NOTEBOOKS / f"{name}.ipynb").read_text()
    assert f"jupyter execute --inplace notebooks/{name}.ipynb" in read(name).cells[0].source  # how to open and run it
    assert not re.search(r"/(home|root|work|tmp|Users)/", content)
    assert len(content) < 1_000_000
    for cell in read(name).cells:
        assert "execution" not in cell.metadata
        assert cell.source.strip() and len(cell.source.splitlines()) <= 22


@pytest.mark.parametrize(("name", "folder"), [("tables", "table1"), ("ablations", "ablation_skip")])
def test_what_a_notebook_shows_are_the_committed_results(name, folder):
    """Run it again where this fails: `jupyter execute --inplace`. To four digits, as it shows them."""
    outputs = [output for cell in read(name).cells if cell.cell_type == "code" for output in cell.outputs]
    shown = set(re.findall(r"-?\d\.\d+", "\n".join(map(text_of, outputs))))
    compared = pd.read_csv(REPOSITORY / "results" / "mini" / folder / "comparisons.csv")
    lines = compared[(compared["prompt"] == "all") & (compared["metric"] == "intra_lpips")]
    wanted = {f"{value:.4f}" for name in ("difference", "low", "high", "p_holm") for value in lines[name].dropna()}
    assert len(wanted) > 4 and {value for value in wanted if value != "-0.0000"} <= shown
