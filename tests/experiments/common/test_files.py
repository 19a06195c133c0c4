"""Files written whole and lasting; leftovers of dead writers swept, those of living ones spared."""

import os
import time
from pathlib import Path

import pytest

from experiments.common import files
from experiments.common.files import Unwritable, replacing, sweep_leftovers, write_together, write_whole


@pytest.fixture
def calls(monkeypatch) -> list[tuple[str, str]]:
    """(what, name) of each fsync and replace, in order."""
    seen: list[tuple[str, str]] = []
    fsync, replace = os.fsync, os.replace

    def watched_fsync(file: int) -> None:
        name = Path(os.readlink(f"/proc/self/fd/{file}")).name
        seen.append(("sync", "temporary" if name.endswith(".tmp") else name))
        fsync(file)

    def watched_replace(source, target) -> None:
        seen.append(("replace", Path(target).name))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    return seen


def test_on_the_disk_before_it_takes_its_place(tmp_path, calls):
    """File, name, then the folder; a new folder's own name too."""
    write_whole(tmp_path / "new" / "newer" / "file", "content")
    assert calls[:2] == [("sync", "new"), ("sync", tmp_path.name)]
    assert calls[2:] == [("sync", "temporary"), ("replace", "file"), ("sync", "newer")]
    calls.clear()
    write_whole(tmp_path / "entry", b"of a cache", lasting=False)
    assert calls == [("replace", "entry")] and (tmp_path / "entry").read_bytes() == b"of a cache"


def test_those_that_belong_together_are_all_whole_before_the_first_takes_its_place(tmp_path, calls):
    write_together({tmp_path / "a": "1", tmp_path / "b": "2"}, before=lambda: calls.append(("before", "")))
    own = [each for each in calls if each[1] != tmp_path.name]
    assert own[:3] == [("sync", "temporary"), ("sync", "temporary"), ("before", "")]
    assert [name for what, name in own if what == "replace"] == ["a", "b"]
    assert (tmp_path / "a").read_text() == "1" and (tmp_path / "b").read_text() == "2"


def test_the_file_that_cannot_be_written_is_the_one_that_is_named(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "a").write_text("old")
    with pytest.raises(Unwritable) as raised:
        write_together({tmp_path / "b": "2", tmp_path / "a": "1"}, before=lambda: None)
    assert raised.value.path == tmp_path / "b" and (tmp_path / "a").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_what_another_writes_into_it_takes_its_place(tmp_path):
    with replacing(tmp_path / "folder" / "file") as temporary:
        temporary.write_text("new")
        assert not (tmp_path / "folder" / "file").exists()
    assert (tmp_path / "folder" / "file").read_text() == "new"
    with pytest.raises(ValueError, match="not mine"), replacing(tmp_path / "folder" / "file") as temporary:
        temporary.write_text("half")
        raise ValueError("not mine")
    assert (tmp_path / "folder" / "file").read_text() == "new" and len(list((tmp_path / "folder").iterdir())) == 1


def test_leftovers_of_the_dead_go_and_those_of_the_living_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "ABANDONED", 1.0)
    (tmp_path / "deep").mkdir()
    picture = tmp_path / "3.png"
    picture.write_bytes(b"of long ago")
    dead = [tmp_path / ".3.png.0123abcd.tmp", tmp_path / "deep" / ".scores.csv.0123abcd.tmp"]
    others = [tmp_path / ".notes.tmp", tmp_path / "3.png.0123abcd.tmp", tmp_path / "deep" / ".x.0123ABCD.tmp"]
    for path in (*dead, *others):
        path.write_bytes(b"half")
    time.sleep(1.3)
    os.utime(picture, (0, 0))
    living = [tmp_path / "deep" / ".a.00000000.tmp", tmp_path / ".link.11111111.tmp"]
    living[0].write_bytes(b"half")
    os.link(picture, living[1])  # a link's content is as old as the picture
    sweep_leftovers(tmp_path)
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == {picture, *others, *living}


def test_sweeping_where_there_is_nothing_or_nothing_can_be_written(tmp_path, monkeypatch):
    sweep_leftovers(tmp_path / "not there")
    path = tmp_path / ".3.png.0123abcd.tmp"
    path.write_bytes(b"half")
    monkeypatch.setattr(files, "ABANDONED", 0.0)

    def refused(self, **options):
        raise PermissionError("read-only")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "touch", refused)
        sweep_leftovers(tmp_path)
    assert path.exists()
    sweep_leftovers(tmp_path)
    assert not path.exists()
