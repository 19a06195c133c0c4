"""The command from end to end on the tiny model: what it writes, what makes a row void, what it refuses."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.benchmarks import run, sweeps
from experiments.benchmarks.compare import judge
from experiments.benchmarks.run import main


def rows_of(folder: Path, name: str = "tiny") -> list[dict[str, str]]:
    with (folder / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


def test_all_comparisons_end_to_end(tiny_case, tmp_path, capsys, monkeypatch):
    # Compiling takes a minute and has a test of its own (test_backbone); here it is about the rows.
    monkeypatch.setattr(run, "compile_unet", lambda backbone: backbone)
    words = ["--case", "tiny", "--device", "cpu", "--pairs", "2", "--out", str(tmp_path)]
    assert main(words) == 0
    rows = rows_of(tmp_path)
    assert [row["sampler"].split(",")[0] for row in rows] == [
        *("syncdiffusion", "literal"),
        *("multidiffusion", "multidiffusion"),
        *("multidiffusion", "diffusers panorama") * 2,
        *("profile_matching", "multidiffusion"),
        *("profile_matching", "syncdiffusion"),
        *("shifted_matching", "multidiffusion"),
        *("shifted_matching", "syncdiffusion"),
    ]
    assert rows[3]["sampler"] == "multidiffusion, compiled"
    for row in rows[-8:]:  # an approximation is timed, and not called equal
        assert row["equal"] == row["tolerance"] == "" and row["difference_from"] == "an approximation"
        assert float(row["ratio"]) > 0 and float(row["timed_difference"]) > 1e-2
    approximate = [int(row["flops"]) for row in rows[-8:]]
    assert approximate[0] == approximate[1] == approximate[2] < approximate[3]
    assert approximate[4] == approximate[6] == approximate[5] < approximate[7]  # three windows by either here
    for row in rows[:-8]:
        assert row["equal"] == "true" and row["runs"] == "2"
        assert float(row["timed_difference"]) <= 1e-4 and float(row["check_difference"]) <= 1e-9
        assert row["difference"] == row["timed_difference"] and row["difference_from"] == "the timed runs"
        assert float(row["ratio_min"]) <= float(row["ratio"]) <= float(row["ratio_max"])
        assert float(row["fraction_of_matmul"]) == pytest.approx(
            float(row["flops"]) / float(row["seconds"]) / float(row["matmul_tflops"]) / 1e12
        )
    ours, literal = rows[:2]
    ratio = float(ours["ratio"])
    assert 0.2 < ratio / (float(literal["seconds"]) / float(ours["seconds"])) < 5  # theirs over ours, not the reverse
    # three windows, one synchronised step: the literal sampler wastes one gradient, and features three times
    assert (float(ours["unet_backward"]), float(literal["unet_backward"])) == (2, 3)
    assert (float(ours["loss"]), float(literal["loss"])) == (3, 6)
    assert int(literal["flops"]) > int(ours["flops"])
    told = capsys.readouterr()
    assert "float64 check, literal" in told.out and "left" in told.err
    about = json.loads((tmp_path / "tiny.json").read_text())
    assert about["command"].startswith("python -m experiments.benchmarks.run --case tiny")
    assert about["case"]["timed"][0]["steps"] == 2 and about["packages"]["torch"] and "revision" in about["git"]


def wrong(sampler, by: float):
    return replace(sampler, latents=lambda task: sampler.latents(task) + by)


@pytest.mark.parametrize(
    ("only", "name"), [("syncdiffusion", "syncdiffusion, first_n 1"), ("multidiffusion", "multidiffusion, one view")]
)
def test_a_wrong_sampler_makes_its_rows_void(tiny_case, tmp_path, capsys, monkeypatch, only, name):
    panoramas = run.panoramas
    monkeypatch.setattr(run, "LITERAL", wrong(run.LITERAL, 1e-3))
    monkeypatch.setattr(run, "panoramas", lambda task: [wrong(each, 1e-3) for each in panoramas(task)[:1]])
    words = ["--case", "tiny", "--device", "cpu", "--pairs", "1", "--out", str(tmp_path), "--only", only]
    assert main(words) == 1
    for row in rows_of(tmp_path):
        assert row["equal"] == "false" and row["ratio"] == row["ratio_min"] == row["ratio_max"] == ""
        assert float(row["difference"]) == pytest.approx(1e-3, rel=0.2) and float(row["seconds"]) > 0
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"void: {name}: latents differ by 1.0e-03")


@pytest.mark.parametrize(
    ("checked", "timed", "tolerance", "precision", "equal", "source"),
    [
        (1e-12, 0.5, None, "float32", True, "float64 check, 64x96, 2 steps, first_n 1"),
        (1e-8, 0.0, None, "float32", False, "float64 check, 64x96, 2 steps, first_n 1"),
        (1e-12, float("inf"), None, "float32", False, "float64 check, 64x96, 2 steps, first_n 1"),
        (1e-12, 1e-3, 1e-4, "float32", False, "the timed runs"),
        (1e-8, 1e-5, 1e-4, "float32", False, "the timed runs"),
        (1e-12, 1e-3, 1e-4, "float16", True, "float64 check, 64x96, 2 steps, first_n 1"),
    ],
)
def test_the_check_and_the_timed_runs_must_both_hold(tiny_case, checked, timed, tolerance, precision, equal, source):
    found = judge(replace(tiny_case, precision=precision), checked, timed, tolerance)
    assert (found.equal, found.source) == (equal, source)


@pytest.mark.parametrize(
    ("over", "tried", "values"),
    [
        ("width", (2, 3), ["128", "128", "192", "192"]),  # SyncDiffusion and MultiDiffusion
        ("gradient_batch", (1, 2), ["1", "2"]),
        ("window_batch", (1, 3), ["1", "3"]),
    ],
)
def test_sweeps_of_ours_alone(tiny_case, tmp_path, monkeypatch, over, tried, values):
    monkeypatch.setitem(sweeps.SWEEPS, over, replace(sweeps.SWEEPS[over], values=tried))
    words = ["--case", "tiny", "--device", "cpu", "--pairs", "1", "--out", str(tmp_path), "--over", over]
    assert main(words) == 0
    rows = rows_of(tmp_path, f"tiny_over_{over}")
    assert [row[over] for row in rows] == values
    assert all(float(row["seconds"]) > 0 and int(row["peak_memory_bytes"]) > 1e6 for row in rows)
    drawn = (tmp_path / f"tiny_over_{over}.svg").read_text()
    assert drawn.count('id="line2d') > 2 * len(tried)  # both panels have their points


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--pars", "3"], "--pars"),
        (["--pairs", "0"], "--pairs 0: use 1 or more"),
        (["--case", "nosuch"], "nosuch"),
        (["--case", "sd2", "--device", "cpu"], "--case sd2"),
        (["--count", "--over", "width"], "--count with --over width"),
        (["--precision", "float8"], "--precision float8"),
        (["--device", "nowhere"], "device=nowhere"),
        (["--name", "a/b"], "--name a/b"),
        (["--out", __file__], "--out"),
    ],
)
def test_mistakes_are_refused_in_one_line(words, said, capsys):
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and said in error and error.count("\n") == 1


def test_what_was_measured_is_told_where_it_cannot_be_written(tiny_case, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sweeps.SWEEPS, "width", replace(sweeps.SWEEPS["width"], values=(2,)))
    (tmp_path / "tiny_over_width.csv").mkdir()
    words = ["--case", "tiny", "--device", "cpu", "--pairs", "1", "--out", str(tmp_path), "--over", "width"]
    assert main(words) == 2
    told = capsys.readouterr()
    assert told.out.startswith("comparison") and "written" not in told.out
    last = told.err.splitlines()[-1]
    assert last.startswith(f"error: --out: cannot write {tmp_path / 'tiny_over_width.csv'} (Is a directory)")
    assert last.endswith("give another --out FOLDER")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny_over_width.csv"]
