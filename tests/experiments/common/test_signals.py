"""Ctrl-C and SIGTERM from the first moment on: one line, the right status, no traceback. Real processes."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from experiments.common.progress import report_images
from experiments.common.signals import end_at_once, importing
from syncdiffusion import cli
from syncdiffusion.signals import Terminated, answered_by, raise_interrupt
from tests.experiments.composing import REPOSITORY

GOES_ON = "what is done stays; the same command goes on from here"


def catches(process: subprocess.Popen, number: int) -> bool:
    """Whether the process has a handler of its own for a signal, as the kernel sees it."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return False
    (mask,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(mask, 16) >> (number - 1) & 1)


def wait_for_handlers(process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 60
    # Python itself handles SIGINT from its start; SIGTERM is caught once the command does it.
    while not catches(process, signal.SIGTERM):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.002)


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.2, 0.4, 0.8])
@pytest.mark.parametrize(
    ("number", "status", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_signal_during_the_start_is_one_line(tmp_path, number, status, word, delay):
    """delay: seconds after the command began to answer signals, while it imports, composes and looks around."""
    words = ["-m", "experiments.run", "experiment=demo", f"run_dir={tmp_path / 'run'}", "shared_dir=null"]
    process = subprocess.Popen(
        [sys.executable, *words],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell starts background jobs with the signal ignored, and tests may run in one
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    wait_for_handlers(process)
    time.sleep(delay)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == status, err
    assert err.splitlines()[-1] == f"{word}: {GOES_ON}" and err.count(word) == 1
    assert "Traceback" not in err and "Error" not in err and out == ""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_inside_an_exec_has_its_status(tmp_path, number, status):
    """As where a library makes a dataclass: CPython 3.11 would end `python -m` by the signal, after our line."""
    (tmp_path / "probe.py").write_text(
        "import signal\nfrom experiments.common.signals import answered_by, end_interrupted, raise_interrupt\n"
        "with answered_by(raise_interrupt):\n"
        f"    try: exec('signal.raise_signal({int(number)})')\n"
        "    except KeyboardInterrupt as stop: end_interrupted(stop)"
    )
    path = {**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{tmp_path}"}
    done = subprocess.run([sys.executable, "-m", "probe"], env=path, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == status and done.stderr.count(GOES_ON) == 1


def test_nothing_heavy_is_imported_before_signals_are_answered():
    """What stands between Python's own start and the handlers is this package's little."""
    probe = (
        "import sys; from experiments.common import signals\n"
        "def stop(handler): print(len(sys.modules), sorted({'hydra', 'omegaconf', 'torch', 'numpy', 'pandas'} "
        "& sys.modules.keys())); sys.exit(7)\n"
        "import experiments.run as run; run.answered_by = stop; run.main()"
    )
    done = subprocess.run([sys.executable, "-c", probe], cwd=REPOSITORY, capture_output=True, text=True)
    count, heavy = done.stdout.split(maxsplit=1)
    assert done.returncode == 7 and heavy == "[]\n" and int(count) < 200


def test_a_signal_that_is_ignored_stays_ignored_and_handlers_come_back():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    term = signal.getsignal(signal.SIGTERM)
    try:
        with answered_by(raise_interrupt):
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            os.kill(os.getpid(), signal.SIGINT)
            with pytest.raises(Terminated):
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(1)
        assert signal.getsignal(signal.SIGTERM) is term
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_signal_whose_exception_was_lost_is_raised_again_at_the_next_step(monkeypatch):
    """Python prints an exception that leaves a finaliser, and goes on."""

    class Finalised:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)

    swallowed = []
    monkeypatch.setattr(sys, "unraisablehook", lambda found: swallowed.append(found.exc_type))
    step = SimpleNamespace(index=0, count=2)
    progress, on_image = cli.StepProgress(io.StringIO()), report_images("score", io.StringIO())
    with answered_by(raise_interrupt):
        progress(step)
        Finalised()
        assert swallowed == [Terminated]
        for go_on in (lambda: progress(step), lambda: on_image(1, 2)):
            with pytest.raises(Terminated):
                go_on()
    progress(step)  # nothing is left of it


def test_importing_ends_a_command_at_once_and_leaves_other_programs_alone():
    before = signal.getsignal(signal.SIGTERM)
    with importing():
        assert signal.getsignal(signal.SIGTERM) is before  # a notebook, a test
    with answered_by(raise_interrupt):
        with importing():
            assert signal.getsignal(signal.SIGTERM) is end_at_once
        assert signal.getsignal(signal.SIGTERM) is raise_interrupt
