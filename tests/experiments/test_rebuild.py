"""Everything that is shown follows from four files, to the byte."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from experiments.rebuild import main
from experiments.results.study import FILES, SWAPS, read_results, write_study
from experiments.stages.sequence import run
from syncdiffusion.errors import UsageError
from tests.experiments.composing import REPOSITORY
from tests.experiments.report.test_tables import CITY, HILLS, LABELS, by_hand

WRITTEN = {"table.md", "table.csv", "table.tex", "comparisons.csv"}


def write_files(folder: Path, results=None) -> Path:
    """The four files of a run whose numbers are made up."""
    results = results or by_hand()
    folder.mkdir(parents=True, exist_ok=True)
    write_study(folder, results.study)
    panoramas = results.panoramas.assign(file="panoramas/" + results.panoramas["method"] + "/x/0.png")
    panoramas.to_csv(folder / "panoramas.csv", index=False)
    results.scores.to_csv(folder / "scores.csv", index=False)
    results.replicates.to_csv(folder / "replicates.csv", index=False)
    return folder


@pytest.fixture
def no_figures(monkeypatch):
    """For tests of something else: figures take a second of each."""
    monkeypatch.setattr("experiments.report.figures.write_figures", lambda folder, results: [])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_run_folder_is_rebuilt_from_its_four_files(compose, known_scores, tmp_path):
    """Tables and figures of a run, made again elsewhere from nothing but the four files, are equal to the byte."""
    plan = compose("tracking=disabled", "shared_dir=null")
    run(plan)
    first = contents(plan.folder)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in (*FILES, SWAPS):
        shutil.copy(plan.folder / name, elsewhere / name)
    assert main([str(elsewhere)]) == 0
    again = contents(elsewhere)
    made = again.keys() - {*FILES, SWAPS}
    assert made == WRITTEN | {name for name in first if name.startswith("figures/")}
    assert any(name.endswith(".svg") for name in made) and any(name.endswith(".pdf") for name in made)
    assert {name for name in made if again[name] != first[name]} == set()
    assert main([str(plan.folder)]) == 0  # in place, the page too: panoramas are there
    after = contents(plan.folder)
    assert {name for name in after if after[name] != first.get(name)} == set() == first.keys() - after.keys()
    assert "report/index.html" in after


def test_another_process_writes_the_same_bytes_without_torch(tmp_path):
    """Nothing hangs on the order of a set, on the hour or on the folder's name; and no model is needed."""
    one, two = (write_files(tmp_path / name) for name in ("one", "two"))
    code = (
        "import sys; from experiments.rebuild import main; "
        f"assert main([{str(one)!r}, '--page']) == 0; "
        "sys.exit(','.join({'torch', 'diffusers', 'transformers', 'wandb'} & sys.modules.keys()) or 0)"
    )
    other_order = os.environ | {"PYTHONHASHSEED": "12345"}
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, env=other_order, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"rebuilt: {one}\n"
    assert main([str(two), "--page"]) == 0
    assert contents(one) == contents(two) and contents(one).keys() > {*WRITTEN, *FILES, "report/index.html"}


def test_page_only_where_it_has_panoramas_or_is_asked_for(tmp_path, no_figures):
    folder = write_files(tmp_path / "run")
    assert main([str(folder)]) == 0 and not (folder / "report").exists()
    assert main([str(folder), "--page"]) == 0 and (folder / "report" / "index.html").is_file()


def test_several_folders(tmp_path, capsys, no_figures):
    folders = [str(write_files(tmp_path / name)) for name in ("one", "two")]
    assert main(folders) == 0
    assert capsys.readouterr().out.splitlines() == [f"rebuilt: {folder}" for folder in folders]
    assert all((Path(folder) / "table.md").is_file() for folder in folders)


def damage(path: Path, text: str | None) -> None:
    if text is None:
        path.unlink()
    else:
        path.write_text(text)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("study.json", None, "no study.json there; give a run folder"),
        ("study.json", "{", "study.json: not readable"),
        ("study.json", "{}", "study.json: not readable"),
        ("scores.csv", None, "scores.csv: missing; run stage=score"),
        ("replicates.csv", None, "replicates.csv: missing; run stage=score"),
        ("panoramas.csv", "", "panoramas.csv: not readable"),
        ("panoramas.csv", 'a,b\n"1,2\n3,4,5\n', "panoramas.csv: not readable"),
        (
            "scores.csv",
            "method,prompt,metric,value,stderr,n,network\na,all,fid,1.0,,4,x\na,all,kid,much,,4,x\n",
            "scores.csv: 'much' in column 'value' is no number; run stage=score again",
        ),
        ("panoramas.csv", "method,prompt,seed\n", "panoramas.csv: no column 'seconds'; run stage=score again"),
    ],
)
def test_mistakes_are_one_line(tmp_path, capsys, name, text, words):
    folder = write_files(tmp_path / "run")
    damage(folder / name, text)
    assert main([str(folder)]) == 2
    out, error = capsys.readouterr()
    assert out == "" and error.startswith(f"error: {folder}") and error.count("\n") == 1 and words in error
    assert not (folder / "table.md").exists()


def test_scores_cut_since_they_were_written_are_one_line(compose, known_scores, no_figures, capsys):
    """At the end of a line, where what is left reads well."""
    plan = compose("tracking=disabled", "shared_dir=null", "stage=generate")
    run(plan)
    run(compose("tracking=disabled", "shared_dir=null", "stage=score"))
    path = plan.folder / "scores.csv"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    capsys.readouterr()
    assert main([str(plan.folder)]) == 2
    error = capsys.readouterr().err
    assert error == f"error: {path}: cut or changed since it was written; run stage=score again\n"


def test_a_folder_is_wanted(capsys):
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2 and "FOLDER" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, capsys):
    folder = write_files(tmp_path / "run")
    (folder / "figures").write_text("in the way")
    assert main([str(folder)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {folder}: cannot write {folder / 'figures'}") and error.count("\n") == 1
    assert "run_dir" not in error


def test_labels_and_prompts_stay_text(tmp_path):
    """A row called 10 and a prompt called null are neither a number nor nothing."""
    whole = by_hand()
    names = dict(zip(LABELS, ("10", "20", "NA"), strict=True))
    frames = [
        frame.assign(method=frame["method"].map(names)).replace({"prompt": {HILLS: "null", CITY: "1e3"}})
        for frame in (whole.panoramas, whole.scores)
    ]
    replicates = whole.replicates.assign(method=whole.replicates["method"].map(names))
    found = read_results(write_files(tmp_path / "run", type(whole)(whole.study, *frames, replicates)))
    assert set(found.panoramas["method"]) == set(found.replicates["method"]) == {"10", "20", "NA"}
    assert set(found.panoramas["prompt"]) == {"null", "1e3"}


def test_numbers_are_read_back_exactly(tmp_path):
    whole = by_hand()
    found = read_results(write_files(tmp_path / "run", whole))
    for name in ("intra_lpips", "intra_style_sum", "seconds"):
        assert found.panoramas[name].tolist() == whole.panoramas[name].tolist()
    pd.testing.assert_frame_equal(found.replicates, whole.replicates, check_exact=True, check_dtype=False)


def test_missing_file_is_told_by_its_name(tmp_path):
    with pytest.raises(UsageError, match="nowhere: no study.json there"):
        read_results(tmp_path / "nowhere")


def test_a_method_of_a_plugin_that_is_not_given_is_named(tmp_path, capsys, no_figures):
    """Its mark in figures and the windows on its page would be lost."""
    folder = write_files(tmp_path / "run")
    study = json.loads((folder / "study.json").read_text())
    study["rows"][0]["method"] = "my_method"
    (folder / "study.json").write_text(json.dumps(study))
    assert main([str(folder)]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert "the method my_method is not known; give its plugin's file, --plugins FILE" in told
    assert not (folder / "table.md").exists()


def test_a_metric_of_a_plugin_that_is_not_given_is_named(tmp_path, capsys, no_figures):
    folder = write_files(tmp_path / "run")
    scores = pd.read_csv(folder / "scores.csv")
    pd.concat([scores, scores.iloc[:1].assign(metric="brightness")]).to_csv(folder / "scores.csv", index=False)
    assert main([str(folder)]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert "the metric brightness is not known; give its plugin's file, --plugins FILE" in told
    assert not (folder / "table.md").exists()
