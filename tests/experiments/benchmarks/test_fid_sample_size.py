"""The simulation of FID's fall with n: its file, its order, its refusals."""

import pandas as pd
import pytest

from experiments.benchmarks.fid_sample_size import main


def test_fid_falls_with_n_and_kid_does_not(tmp_path):
    assert main(["--out", str(tmp_path), "--sizes", "20", "80", "--runs", "4"]) == 0
    found = pd.read_csv(tmp_path / "fid_sample_size.csv").set_index("n")
    assert (found["runs"] == 4).all()
    assert found.loc[20, "fid_mean"] > 1.15 * found.loc[80, "fid_mean"] > 50
    # KID is zero for equal distributions: within three standard errors of four runs
    assert (found["kid_mean"].abs() < 3 * found["kid_deviation"] / 2).all()


def test_too_few_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path), "--runs", "1"])
    assert "2 or more of each" in capsys.readouterr().err
