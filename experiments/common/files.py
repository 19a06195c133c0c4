"""Files that are written whole or not at all, and stay so when the power fails."""

from __future__ import annotations

import io
import json
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from syncdiffusion.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

# Seconds after which a temporary file that nobody touches is a dead writer's. Writing one takes seconds at most, and a
# process that was stopped for so long is only told that its file could not be written.
ABANDONED = 600.0
TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")


class Unwritable(UsageError):
    """A file that cannot be written; `reason` is the system's.

    Which setting or option chose the folder only a command knows: it adds that, and what would do.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)  # both of them, so that the error can be pickled
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"cannot write {self.path} ({self.reason})"


def unwritable(path: Path, error: OSError) -> Unwritable:
    return Unwritable(path, str(error.strerror))


@contextmanager
def replacing(path: Path, lasting: bool = True) -> Iterator[Path]:
    """A temporary path beside `path` to write to, which takes its place at the end; its folder is made.

    An error or an interruption leaves what stood at `path`, and nothing else.

    lasting: the file is on the disk itself before it takes its place, so that a machine that loses its power leaves
        the old one or the new one; false for what is not worth the wait.

    Raises:
        Unwritable: the folder is read-only, the disk full, a file stands where a folder must be, ...
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        make_folder(path.parent)
        yield temporary
        if lasting:
            sync_file(temporary)
        os.replace(temporary, path)
        if lasting:
            sync_folder(path.parent)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        discard(temporary)


def check_writable(path: Path) -> None:
    """Try whether a file can be written, and leave what is there.

    Raises:
        Unwritable: see `replacing`.
    """
    probe = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        make_folder(path.parent)
        probe.write_bytes(b"")
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        discard(probe)


def write_whole(path: Path, content: bytes | str, lasting: bool = True) -> None:
    """Write a file whole or not at all; see `replacing`, which also says what `lasting` is.

    Raises:
        Unwritable: see `replacing`.
    """
    with replacing(path, lasting) as temporary:
        temporary.write_bytes(as_bytes(content))


def write_together(files: Mapping[Path, bytes | str], before: Callable[[], None]) -> None:
    """Write files that belong together: every one is whole on the disk before the first takes its place.

    They take their places in the order of `files`, after `before` was called. An error or an interruption up to then
    leaves all the old ones; what one in between leaves, the caller must see from what is there.

    Raises:
        Unwritable: see `replacing`.
    """
    with ExitStack() as stack:
        for path, content in reversed(files.items()):  # they are left, and take their places, last to first
            temporary = stack.enter_context(replacing(path))
            try:
                temporary.write_bytes(as_bytes(content))
                sync_file(temporary)
            except OSError as error:
                raise unwritable(path, error) from error
        before()


def write_json(path: Path, value: Any) -> None:
    """As `write_whole`, of plain JSON values."""
    write_whole(path, json_text(value))


def json_text(value: Any) -> str:
    """Plain JSON values as they stand in files."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def as_bytes(content: bytes | str) -> bytes:
    return content.encode() if isinstance(content, str) else content


def make_folder(folder: Path) -> None:
    """Make a folder with those above it, and have the disk remember them."""
    new = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in new:
        sync_folder(each.parent)


def sync_file(path: Path) -> None:
    """Wait until the file's content is on the disk itself."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def sync_folder(folder: Path) -> None:
    """Wait until the folder's names are on the disk itself, where the file system can do that."""
    with suppress(OSError):  # some, such as SMB's, cannot
        sync_file(folder)


def discard(path: Path) -> None:
    """Remove a file where it is there and can be removed."""
    with suppress(OSError):
        path.unlink()


def sweep_leftovers(folder: Path) -> None:
    """Remove the temporary files that writers who died left anywhere in `folder`.

    Those of living ones are spared: they were touched within ABANDONED seconds of the file system's own clock, which is
    the same for all machines.
    """
    now = file_clock(folder)
    if now is None:
        return
    for parent, _, names in os.walk(folder):
        for path in (Path(parent, name) for name in names if TEMPORARY.fullmatch(name)):
            with suppress(OSError):
                # The time of its last change, not of its content: a hard link's content is as old as the picture.
                if now - path.stat().st_ctime >= ABANDONED:
                    path.unlink()


def file_clock(folder: Path) -> float | None:
    """The time, in seconds, that the file system of `folder` gives to a file made now; None where none can be."""
    probe = folder / f".clock.{secrets.token_hex(4)}.tmp"
    try:
        probe.touch(exist_ok=False)
        return probe.stat().st_ctime
    except OSError:
        return None
    finally:
        discard(probe)


def png_bytes(image: np.ndarray) -> bytes:
    """PNG of an H×W×3 uint8 image."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()
