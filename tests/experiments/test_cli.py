"""The command line: every mistake of a user's is one line that says what would do, and a non-zero exit status."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments import run
from experiments.common.files import Unwritable
from experiments.stages import generate
from experiments.stages.unwritable import unwritable_line
from tests.experiments.composing import REPOSITORY, compose_plan


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """command(*words) -> (exit status, stdout, stderr) of `python -m experiments.run *words`, in this process."""

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["experiments.run", *words])
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        capsys.readouterr()
        try:
            run.main()
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
        out, err = capsys.readouterr()
        return status, out, err

    return call


MISTAKES = [
    (["method.weight=abc"], "method.weight=abc: must be a number"),
    (["method.first_n=1.5"], "method.first_n=1.5: must be a whole number"),
    (["method.wieght=3"], "method.wieght=3: no such setting (did you mean weight?)"),
    (["metric=paper"], "metric=paper: no such setting (did you mean metrics?)"),
    (["metrics=papr"], "metrics=papr: no such choice; choose from mini, paper (did you mean paper?)"),
    (["prompts=nonsense"], "prompts=nonsense: no such choice; choose from demo, heldout, layouts, one, paper"),
    (["stage=scoer"], "stage=scoer: Invalid value 'scoer', expected one of [all, generate, score, report]"),
    (["steps=null"], "steps=null: field 'steps' is not Optional"),
    (["name"], "'name': not of the form setting=value"),
    (["prompts.texts=[a"], "'prompts.texts=[a': not of the form setting=value"),
    (["~method"], "method: no value; give method=VALUE"),
    (["backbone=folder", "backbone.path=/no/such/model"], "backbone.path=/no/such/model: no such folder"),
    (["seeds.count=0"], "seeds.count=0: must be 1 or more"),
    (["experiment=ring", "method=cdgs"], "experiment=ring: method.loop_closure: no such setting; there are candidates"),
    (["metrics.metrics=[fod]"], "metrics.metrics=fod: choose from fid"),
    (["metrics.metrics=fid"], "metrics.metrics=fid: must be a list; give metrics.metrics=[fid]"),
    (["+ablations.decay=0.9"], "ablations.decay=0.9: must be a list; give ablations.decay=[0.9]"),
    (["+variants.a=3"], "variants.a=3: holds settings of its own; give variants.a.SETTING=VALUE"),
    (["seeds=3"], "seeds=3: holds settings of its own; give seeds.SETTING=VALUE"),
    (["steps=5000"], "syncdiffusion: steps=5000: use 1 to 1000"),
    (["--config-name=nosuch"], "--config-name=nosuch: no such file; leave it out, and choose by experiment=NAME"),
]


@pytest.mark.parametrize(("words", "message"), MISTAKES, ids=lambda value: value[0] if isinstance(value, list) else "")
def test_mistake_in_a_setting(command, tmp_path, words, message):
    status, out, err = command(*words)
    assert status == 2 and out == ""
    assert err.startswith(f"error: {message}") and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []  # and nothing has been begun


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["backbone.width=100"], "multidiffusion: width=100: windows of 64 px"),
        (["steps=0"], "multidiffusion: steps=0: use 1 to 1000"),
        (["+method@baselines.sync=syncdiffusion", "baselines.sync.weight=-1"], "sync: weight=-1.0: use 0 or more"),
        (["method.loop_closure=on"], "multidiffusion: loop_closure=on: use one of"),
        (["backbone.precision=float8"], "backbone.precision=float8: use one of"),
        (["backbone.device=abacus"], "device=abacus: not usable here"),
        (["backbone.window=128", "height=128"], "backbone.window=128: this model's window is 64 px"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_mistake_that_a_method_or_the_model_finds(command, tiny_settings, words, message):
    status, out, err = command(*tiny_settings, "run_dir=there", "stage=generate", *words)
    assert status == 2 and out == ""
    assert err.splitlines()[-1].startswith(f"error: {message}") and "Traceback" not in err
    assert len([line for line in err.splitlines() if "error" in line.lower()]) == 1


def test_model_folder_without_weights(command, tiny_settings, tiny_folder, tmp_path):
    shutil.copytree(tiny_folder, tmp_path / "model")
    shutil.rmtree(tmp_path / "model" / "unet")
    status, _, err = command(*tiny_settings, f"backbone.path={tmp_path / 'model'}", "stage=generate")
    assert status == 2 and err.splitlines()[-1].startswith("error: backbone.path=") and "Traceback" not in err


def test_a_file_in_the_way(command, tmp_path):
    (tmp_path / "file").write_text("")
    status, _, err = command("run_dir=file/run")
    assert status == 2 and err.count("\n") == 1
    assert err.startswith("error: run_dir: cannot write file/run/config.yaml (Not a directory)")


def test_a_file_in_the_way_of_what_is_shared(command, tiny_settings, tmp_path):
    (tmp_path / "file").write_text("")
    words = [*tiny_settings, "run_dir=there", "stage=generate", "shared_dir=file/shared"]
    status, _, err = command(*words)
    line = err.splitlines()[-1]
    assert status == 2 and line.startswith("error: shared_dir: cannot write file/shared/claims/")
    assert line.endswith(" (Not a directory); make room there or give another shared_dir=FOLDER; what is done stays")


def test_of_two_folders_the_inner_one_is_named(tmp_path):
    plan = compose_plan([f"run_dir={tmp_path}", f"shared_dir={tmp_path / 'shared'}"])
    inner, outer, neither = (
        unwritable_line(Unwritable(path, "no reason"), plan)
        for path in (tmp_path / "shared" / "x.png", tmp_path / "table.md", tmp_path.parent / "elsewhere")
    )
    assert inner.startswith("shared_dir: cannot write ") and "another shared_dir=FOLDER" in inner
    assert outer.startswith("run_dir: cannot write ") and "another run_dir=FOLDER" in outer
    assert neither == f"cannot write {tmp_path.parent / 'elsewhere'} (no reason); make room there; what is done stays"


def on_own_file_system(folder: Path, options: str, words: list[str]) -> subprocess.CompletedProcess:
    """The command with a small file system of its own mounted on `folder`; skips where the kernel forbids that."""
    folder.mkdir()
    probe = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", str(folder)]
    if shutil.which("unshare") is None or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("no private mounts here")
    script = 'mount -t tmpfs -o "$1" tmpfs "$2" && shift 2 && "$@"; status=$?; ls -A "$OUT" >&3; exit $status'
    command = ["unshare", "-rm", "sh", "-c", f"exec 3>&1; {script}", "sh", options, str(folder)]
    command += [sys.executable, "-m", "experiments.run", *words]
    return subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, env=os.environ | {"OUT": str(folder / "run")}
    )


def test_read_only_output_folder(tmp_path):
    done = on_own_file_system(tmp_path / "out", "ro", [f"run_dir={tmp_path / 'out' / 'run'}"])
    assert done.returncode == 2
    (line,) = [each for each in done.stderr.splitlines() if not each.startswith("ls:")]
    assert line.startswith(f"error: run_dir: cannot write {tmp_path}") and "(Read-only file system)" in line


def test_full_disk_keeps_what_is_done(tmp_path, tiny_settings):
    """300 KiB hold a few panoramas. The rest is refused in one line, and no half file is left."""
    words = [*tiny_settings, f"run_dir={tmp_path / 'out' / 'run'}", "stage=generate", "seeds.count=40"]
    done = on_own_file_system(tmp_path / "out", "size=300k", words)
    assert done.returncode == 2, done.stderr
    lines = done.stderr.splitlines()
    assert lines[-1].startswith("error: run_dir: cannot write") and "(No space left on device)" in lines[-1]
    assert lines[-1].endswith("what is done stays") and "Traceback" not in done.stderr
    assert "panoramas" in done.stdout.split() and ".tmp" not in done.stdout


def test_ctrl_c(command, tiny_settings, monkeypatch):
    monkeypatch.setattr(generate, "make", lambda *arguments: signal.raise_signal(signal.SIGINT))
    # A shell starts background jobs with the signal ignored, and Python leaves it so: tests may run in one.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        status, _, err = command(*tiny_settings, "stage=generate")
    finally:
        signal.signal(signal.SIGINT, before)
    assert status == 130
    assert err.splitlines()[-1] == "interrupted: what is done stays; the same command goes on from here"


def test_a_defect_keeps_its_traceback(command, tiny_settings, monkeypatch):
    def broken(*arguments):
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(generate, "make", broken)
    with pytest.raises(ZeroDivisionError):
        command(*tiny_settings, "stage=generate")


def test_full_error_shows_where_it_comes_from():
    environment = os.environ | {"HYDRA_FULL_ERROR": "1"}
    words = [sys.executable, "-m", "experiments.run", "method.weight=abc"]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, env=environment)
    assert done.returncode != 0 and "Traceback" in done.stderr


def test_typo_is_refused_before_torch_is_imported():
    """Measured against `import torch` in the same environment: a typo must not wait for it."""
    probe = (
        "import sys; sys.argv = ['run', 'method.weight=abc']\n"
        "from experiments import run\n"
        "try:\n    run.main()\nexcept SystemExit as end:\n    print(end.code, 'torch' in sys.modules)"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", probe], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stdout == "2 False\n", done.stderr
    assert time.monotonic() - started < 20  # seconds; about one on an idle machine


def test_help_and_printed_configuration(command, tmp_path):
    status, out, _ = command("--help")
    assert status == 0 and "python -m experiments.run experiment=demo" in out and "  experiment=table1  " in out
    status, _, err = command("--help", "method.weight=abc")
    assert status == 2 and err == "error: method.weight=abc: must be a number\n"
    status, out, _ = command("--cfg", "job", "experiment=demo")
    assert status == 0 and "blended_latent" in out
    assert list(tmp_path.iterdir()) == []
