"""Claims: held by one at a time, taken over from the dead, lost by the stopped. Real processes, short leases."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import filelock._soft
import pytest

from experiments.common.files import Unwritable
from experiments.panoramas import claims
from experiments.panoramas.claims import Claims, lost
from syncdiffusion.errors import UsageError
from tests.experiments.composing import REPOSITORY

HOLD = """
import sys
from pathlib import Path
from experiments.common.files import Unwritable
from experiments.panoramas import claims
claims.LEASE = float(sys.argv[2])
with claims.Claims(Path(sys.argv[1])).held("it") as claim:
    print("held" if claim else "taken", flush=True)
    sys.stdin.readline()
    print("lost" if claims.lost(claim) else "kept", flush=True)
"""


@pytest.fixture
def holder():
    """holder(folder) -> a process that holds the claim `it` and, when told a line, says whether it was lost."""
    started = []

    def start(folder: Path, lease: float = claims.LEASE) -> subprocess.Popen:
        words = [sys.executable, "-c", HOLD, str(folder), str(lease)]
        process = subprocess.Popen(words, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def foreign(folder: Path, lease: float, name: str = "it") -> Path:
    """A claim of a process on another machine, which nobody here can look up."""
    path = folder / f"{name}.lock"
    path.write_text(f"filelock/2\npid=1\nhost=elsewhere\nmode=lease\ntoken=abc\nduration={lease!r}\n")
    return path


def seconds_until_held(own: Claims, limit: float) -> float | None:
    began = time.monotonic()
    while time.monotonic() - began < limit:
        with own.held("it") as claim:
            if claim is not None:
                return time.monotonic() - began
        time.sleep(0.02)
    return None


def test_one_at_a_time_and_nothing_left(tmp_path, holder):
    process, own = holder(tmp_path / "claims"), Claims(tmp_path / "claims")
    with own.held("it") as claim, own.held("another") as other:
        assert claim is None and other is not None
    assert own.holder("it").startswith(f"process {process.pid} on ")
    process.communicate("\n")
    with own.held("it") as claim:
        assert claim is not None and not lost(claim)
    own.sweep()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("swaps", [True, False], ids=["swaps names", "as NFS"])
def test_a_dead_process_on_this_machine_is_followed_at_once(tmp_path, monkeypatch, holder, swaps):
    """At the lease of a minute: its process is looked up, not waited for."""
    if not swaps:
        monkeypatch.setattr(filelock._soft, "exchange_names", lambda source, target: False)
    process, own = holder(tmp_path), Claims(tmp_path)
    assert seconds_until_held(own, limit=0.2) is None
    process.kill()
    process.wait()
    assert seconds_until_held(own, limit=10.0) is not None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("clock", [-1e6, 1e6], ids=["behind", "ahead"])
def test_a_dead_machine_is_followed_after_the_lease(tmp_path, monkeypatch, clock):
    """Whatever its clock said: eleven days before or after ours."""
    monkeypatch.setattr(claims, "LEASE", 0.5)
    then = time.time() + clock
    os.utime(foreign(tmp_path, 0.5), (then, then))
    waited = seconds_until_held(Claims(tmp_path), limit=10.0)
    assert waited is not None and waited >= 0.5


def test_a_living_machine_is_never_followed(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "LEASE", 0.5)
    path, own, stop = foreign(tmp_path, 0.5), Claims(tmp_path), threading.Event()

    def beat() -> None:
        while not stop.wait(0.05):
            os.utime(path)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        assert seconds_until_held(own, limit=2.0) is None
        assert own.alive == {"it"}
    finally:
        stop.set()
        thread.join()
    assert seconds_until_held(own, limit=10.0) is not None


def test_a_file_system_that_cannot_swap_names(tmp_path, monkeypatch):
    """As NFS: filelock leaves the claim alone for good, and half a lease later it is moved aside here."""
    monkeypatch.setattr(claims, "LEASE", 0.4)
    monkeypatch.setattr(filelock._soft, "exchange_names", lambda source, target: False)
    foreign(tmp_path, 0.4)
    waited = seconds_until_held(Claims(tmp_path), limit=10.0)
    assert waited is not None and waited >= 0.6
    assert list(tmp_path.iterdir()) == []


def test_a_claim_taken_over_under_our_eyes_is_given_back(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "LEASE", 0.2)
    monkeypatch.setattr(filelock._soft, "exchange_names", lambda source, target: False)
    path, own, rename = foreign(tmp_path, 0.2), Claims(tmp_path), os.rename

    def overtaken(source: Path, target: Path) -> None:
        fresh = path.with_name("fresh")
        fresh.write_text(path.read_text().replace("abc", "def"))
        os.replace(fresh, path)
        rename(source, target)
        monkeypatch.setattr(os, "rename", rename)

    monkeypatch.setattr(os, "rename", overtaken)
    began = time.monotonic()
    while os.rename is overtaken:
        assert time.monotonic() - began < 10
        with own.held("it") as claim:
            assert claim is None
        time.sleep(0.02)
    assert "token=def" in path.read_text() and [each.name for each in tmp_path.iterdir()] == ["it.lock"]


def test_a_stopped_process_loses_its_claim_and_knows(tmp_path, monkeypatch, holder):
    monkeypatch.setattr(claims, "LEASE", 0.5)
    process, own = holder(tmp_path, 0.5), Claims(tmp_path)
    process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    while True:
        assert time.monotonic() - began < 10
        with own.held("it") as claim:
            if claim is not None:
                assert time.monotonic() - began >= 0.5
                process.send_signal(signal.SIGCONT)
                assert process.communicate("\n")[0] == "lost\n"
                assert not lost(claim)  # and the loser's end takes nothing from its successor
                break
        time.sleep(0.02)
    assert list(tmp_path.iterdir()) == []


def test_waiting_ends_when_the_holder_is_seen_alive(tmp_path, monkeypatch, capsys, holder):
    monkeypatch.setattr(claims, "LEASE", 1.0)
    process = holder(tmp_path, 1.0)
    with Claims(tmp_path).awaited("it", "does this", forever=lambda: False) as claim:
        assert claim is None
    assert capsys.readouterr().err.startswith(f"waiting for process {process.pid} on ")


def test_waiting_goes_on_until_the_holder_ends(tmp_path, holder):
    process = holder(tmp_path)

    def release() -> None:
        process.stdin.write("\n")
        process.stdin.flush()

    threading.Timer(1.0, release).start()
    began = time.monotonic()
    with Claims(tmp_path).awaited("it", "does this", forever=lambda: True) as claim:
        assert claim is not None and time.monotonic() - began >= 0.9


def test_sweeping_spares_the_living(tmp_path, holder):
    dead, leftover = holder(tmp_path), tmp_path / "it.lock.break.1.abc"
    dead.kill()
    dead.wait()
    leftover.write_text("of a process killed while it took the claim over")
    foreign(tmp_path, claims.LEASE, "living")
    Claims(tmp_path).sweep()
    assert [each.name for each in tmp_path.iterdir()] == ["living.lock"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "shared").write_text("")
    with pytest.raises(Unwritable, match="cannot write .*it.lock ") as raised:
        with Claims(tmp_path / "shared" / "claims").held("it"):
            pass
    assert raised.value.path == tmp_path / "shared" / "claims" / "it.lock"


def test_another_lease_is_refused(tmp_path):
    foreign(tmp_path, claims.LEASE + 1)
    with pytest.raises(UsageError, match="another version of this program"):
        with Claims(tmp_path).held("it"):
            pass
