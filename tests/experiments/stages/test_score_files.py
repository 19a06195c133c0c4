"""The files of a scoring pass: the old set, the new one or no scores, whatever interrupts; a damaged one is refused."""

import errno
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from experiments.common import files
from experiments.panoramas.index import read_index
from experiments.plan.schema import Stage
from experiments.stages.generate import generate
from experiments.stages.score import score
from experiments.stages.score_files import read_scores, written_rows
from experiments.stages.sequence import run
from syncdiffusion.errors import UsageError
from tests.experiments.composing import compose_plan

TABLES = ["panoramas.csv", "replicates.csv", "scores.csv", "swaps.csv"]
SET = {"study.json", "scores.sha256", "references.sha256", *TABLES}
SMALLER = ["prompts.texts=[hills by the sea]"]  # half the panoramas: every file of the set differs


def the_set(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in SET if (folder / name).is_file()}


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if ".tmp" in path.name]


@pytest.fixture(scope="module")
def panoramas(tiny_settings, tmp_path_factory) -> Path:
    """The run folder of the tiny plan, generated once."""
    folder = tmp_path_factory.mktemp("made")
    assert generate(compose_plan([*tiny_settings, f"run_dir={folder}"])) == 10
    return folder


@pytest.fixture
def generated(compose, panoramas, known_scores):
    """The tiny plan in a run folder of its own, with all its panoramas."""
    shutil.copytree(panoramas, compose().folder)
    return compose()


@pytest.fixture
def scored(compose, generated):
    """(plan, its files, another plan of the same run folder, its files); the first one's are there."""
    plan, other = generated, compose(*SMALLER)
    sets = []
    for each in (other, plan):
        score(each, read_index(each))
        sets.append(the_set(each.folder))
    assert sets[0].keys() == sets[1].keys() == SET
    assert all(sets[0][name] != sets[1][name] for name in SET - {"replicates.csv", "swaps.csv"})
    return plan, sets[1], other, sets[0]


class Fault:
    """Lets a function of `os` raise at its n-th call."""

    def __init__(self, monkeypatch, name: str, n: int, error: BaseException) -> None:
        self.calls, self.n, self.error, self.real = 0, n, error, getattr(os, name)
        monkeypatch.setattr(os, name, self)

    def __call__(self, *words, **options):
        self.calls += 1
        if self.calls == self.n:
            raise self.error
        return self.real(*words, **options)


@pytest.mark.parametrize("n", range(1, len(SET) + 1))
@pytest.mark.parametrize("name", ["replace", "fsync"])
def test_an_interruption_anywhere_mixes_no_two_sets(scored, monkeypatch, name, n):
    plan, before, other, after = scored
    with monkeypatch.context() as patch:
        Fault(patch, name, n, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            score(other, read_index(other))
    there = the_set(plan.folder)
    assert leftovers(plan.folder) == []
    if name == "fsync":  # they are still being written: nothing old is gone
        assert there == before
        read_scores(plan.folder, read_index(plan))
    else:  # they take their places
        assert "scores.csv" not in there
        assert all(content in (before[name], after[name]) for name, content in there.items())
        for each in (plan, other):
            with pytest.raises(UsageError, match="not scored yet; run stage=score"):
                read_scores(plan.folder, read_index(each))
    score(other, read_index(other))
    assert the_set(plan.folder) == after


def test_a_kill_while_they_take_their_places_leaves_no_scores(scored, monkeypatch):
    """As SIGKILL does: nothing is cleaned up, and what is left goes with a later run."""
    plan, _, other, after = scored
    child = os.fork()
    if child == 0:
        real, calls = os.replace, []

        def killed(*words):
            calls.append(words)
            if len(calls) == 3:
                os.kill(os.getpid(), 9)
            real(*words)

        os.replace = killed
        score(other, read_index(other))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -9
    assert not (plan.folder / "scores.csv").exists() and len(leftovers(plan.folder)) == len(SET) - 2
    monkeypatch.setattr(files, "ABANDONED", 0.0)
    run(replace(other, stage=Stage.score))
    assert the_set(plan.folder) == after and leftovers(plan.folder) == []


@pytest.mark.parametrize("n", range(1, len(SET) + 1))
def test_a_full_disk_leaves_the_old_scores(scored, monkeypatch, n):
    plan, before, other, _ = scored
    with monkeypatch.context() as patch:
        Fault(patch, "fsync", n, OSError(errno.ENOSPC, "No space left on device"))
        with pytest.raises(UsageError, match=r"cannot write .*(csv|json|sha256) \(No space left on device\)"):
            score(other, read_index(other))
    assert the_set(plan.folder) == before and leftovers(plan.folder) == []


def test_the_checksums_are_what_sha256sum_reads(scored):
    plan = scored[0]
    if shutil.which("sha256sum") is None:
        pytest.skip("no sha256sum here")
    done = subprocess.run(["sha256sum", "-c", "scores.sha256"], cwd=plan.folder, capture_output=True, text=True)
    assert done.returncode == 0 and sorted(done.stdout.splitlines()) == [f"{name}: OK" for name in TABLES]


def without_last_line(content: bytes) -> bytes:
    return b"\n".join(content.splitlines()[:-1]) + b"\n"


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize(
    "damage",
    [without_last_line, lambda content: content[:-4], lambda content: b"", lambda content: b"\xff\x00\xfe" * 50],
    ids=["a line less", "cut", "empty", "binary"],
)
def test_a_damaged_file_is_refused_by_a_report_and_healed_by_scoring(scored, compose, name, damage):
    plan, before, *_ = scored
    path = plan.folder / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UsageError, match="run stage=score"):
        run(compose("stage=report"))
    assert not (plan.folder / "table.md").exists()
    run(compose("stage=score"))
    assert the_set(plan.folder) == before


def test_scores_without_checksums_are_still_read(scored):
    """Those of a run folder that an earlier version wrote."""
    plan, before, *_ = scored
    (plan.folder / "scores.sha256").unlink()
    scores, panoramas = read_scores(plan.folder, read_index(plan))
    assert len(panoramas) == 8 and len(scores) == before["scores.csv"].count(b"\n") - 1
    lines = before["scores.sha256"].splitlines(keepends=True)
    for damaged in (b"", b"\xff\xfe nonsense", b"nonsense", lines[0], lines[-1]):
        (plan.folder / "scores.sha256").write_bytes(damaged)
        with pytest.raises(UsageError, match="run stage=score again"):
            read_scores(plan.folder, read_index(plan))


@pytest.mark.parametrize(
    "content",
    [b"", b"\x89PNG\x00\x00\xff", b"method,prompt\na,b\n", b'method,key\n"a,b\nc', b"\n\n"],
    ids=["empty", "binary", "no key", "open quote", "blank"],
)
def test_damaged_panoramas_csv_is_written_again(generated, content):
    plan = replace(generated, stage=Stage.generate)
    path = plan.folder / "panoramas.csv"
    path.write_bytes(content)
    run(plan)
    assert len(pd.read_csv(path)) == 8 and written_rows(path) == read_index(plan).rows


def test_panoramas_csv_that_cannot_be_read_or_replaced_is_one_line(generated):
    plan = replace(generated, stage=Stage.generate)
    path = plan.folder / "panoramas.csv"
    path.mkdir(parents=True)
    assert written_rows(path) is None
    with pytest.raises(UsageError, match=r"run_dir: cannot write .*panoramas.csv \(Is a directory\)"):
        run(plan)


def test_panoramas_replaced_while_they_are_scored_are_not_scored(generated, monkeypatch):
    from experiments.metrics import score as metrics

    plan = generated
    honest, png = metrics.score_panoramas, plan.units[2].png(plan.folder)

    def meanwhile(*words, **options):
        png.unlink()
        png.write_bytes(b"another picture")
        return honest(*words, **options)

    monkeypatch.setattr(metrics, "score_panoramas", meanwhile)
    with pytest.raises(UsageError, match=f"{png}: replaced or damaged while it was scored"):
        score(plan, read_index(plan))
    assert the_set(plan.folder) == {}
