"""Claims: which process makes what, when several work on one folder, on one machine or on many.

A claim is a small file that its holder touches now and then (`filelock.SoftFileLease`). One whose holder has died is
taken over: at once where the process can be looked up, on the same machine, else once nobody has touched it for LEASE
seconds of the waiting process's own clock, so that clocks of machines need not agree. A process that is stopped for so
long loses its claim; whoever publishes something asks `lost` first.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from filelock import LeaseSettingsMismatch, SoftFileLease, Timeout

from experiments.common.files import discard, unwritable
from syncdiffusion.errors import UsageError

# Seconds. Every process must use the same; touched every third of it, so two touches may be missed. Much shorter would
# take a busy machine for a dead one, much longer would leave a dead machine's work waiting.
LEASE = 60.0


class Marker(NamedTuple):
    """What changes when a claim is touched (nanoseconds of the file's own clock), and when it is another's."""

    touched: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> Marker:
        with path.open("rb") as file:  # NFS asks its server only when a file is opened
            stat = os.fstat(file.fileno())
        return cls(stat.st_mtime_ns, stat.st_ino)


class Claims:
    """The claims of one folder, as one process sees them. It must be kept while waiting: it remembers what it saw."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.leases: dict[str, SoftFileLease] = {}
        self.seen: dict[str, tuple[Marker, float]] = {}  # how another's claim looks, and since when
        self.alive: set[str] = set()  # claims of others that were touched before our eyes

    @contextlib.contextmanager
    def held(self, name: str) -> Iterator[SoftFileLease | None]:
        """Try once to claim `name`; yields None where another process holds it.

        Raises:
            Unwritable: the folder cannot be written.
            UsageError: other processes use another LEASE.
        """
        lease = self.leases.get(name)
        if lease is None:
            lease = self.leases[name] = SoftFileLease(self.path(name), lease_duration=LEASE)
        try:
            if not self.acquire(name, lease):
                yield None
                return
            del self.leases[name]
            self.seen.pop(name, None)
            self.alive.discard(name)
            yield lease
        finally:
            if lease.is_locked:
                lease.release()

    @contextlib.contextmanager
    def awaited(self, name: str, doing: str, forever: Callable[[], bool]) -> Iterator[SoftFileLease | None]:
        """As `held`, but tried again until it is free, or unless `forever()` until its holder is seen to be alive.

        doing: what a holder does, for the message.
        """
        waiting = Waiting()
        while True:
            with self.held(name) as lease:
                if lease is not None or (name in self.alive and not forever()):
                    yield lease
                    return
            waiting.once_more(f"{self.holder(name)}, which {doing}")

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.lock"

    def acquire(self, name: str, lease: SoftFileLease) -> bool:
        for _ in range(10):
            try:
                lease.acquire(blocking=False)
                return True
            except Timeout:
                if not self.watch(name):
                    return False
            except FileNotFoundError:
                continue  # another process has just removed the empty folder
            except LeaseSettingsMismatch:
                raise UsageError(
                    f"{self.path(name)}: held by a process of another version of this program; stop that one first"
                ) from None
            except OSError as error:
                raise unwritable(self.path(name), error) from error
        return False

    def watch(self, name: str) -> bool:
        """Remember when another's claim was touched, and move it aside where that process must be dead; whether it was.

        The lease takes such a claim over itself, unless the file system cannot swap two names in one step, as NFS
        cannot; there it leaves the claim alone for good.
        """
        path, now = self.path(name), time.monotonic()
        try:
            marker = Marker.of(path)
            before, since = self.seen.setdefault(name, (marker, now))
            if marker != before:
                self.seen[name] = (marker, now)
                if marker.inode == before.inode:
                    self.alive.add(name)
                else:  # another's since
                    self.alive.discard(name)
            elif now - since >= 1.5 * LEASE or self.died_here(name):
                aside = path.with_name(f"{path.name}.stale.{secrets.token_hex(4)}")
                os.rename(path, aside)
                if Marker.of(aside) != marker:  # taken over by another just now: give it back
                    os.link(aside, path)
                aside.unlink()
                return True
        except OSError:
            pass  # gone already; the next try sees
        return False

    def died_here(self, name: str) -> bool:
        """Whether the holder was a process of this machine that is no more."""
        owner = SoftFileLease(self.path(name), lease_duration=LEASE).owner
        if owner is None or owner.hostname != self.host:
            return False
        try:
            os.kill(owner.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass  # another user's
        return False

    @functools.cached_property
    def host(self) -> str:
        """This machine and process namespace, as filelock writes them into a claim."""
        with SoftFileLease(self.path(f"own-{secrets.token_hex(4)}"), lease_duration=LEASE) as own:
            owner = own.owner
            return "" if owner is None else owner.hostname

    def holder(self, name: str) -> str:
        """Who holds the claim, for messages."""
        owner = SoftFileLease(self.path(name), lease_duration=LEASE).owner
        # filelock adds the process namespace to the host's name, which tells nobody anything.
        return "another process" if owner is None else f"process {owner.pid} on {owner.hostname.partition('?')[0]}"

    def sweep(self) -> None:
        """Remove the claims of the dead, and the folder where no claim is left."""
        for name in {path.name.partition(".lock")[0] for path in self.folder.glob("*.lock*")}:
            # A claim that another version of this program left is none of ours.
            with contextlib.suppress(UsageError), self.held(name) as lease:
                for leftover in self.folder.glob(f"{name}.lock.*") if lease else ():
                    discard(leftover)  # of a process killed while it took a claim over
        with contextlib.suppress(OSError):
            self.folder.rmdir()


def lost(lease: SoftFileLease) -> bool:
    """Whether another process has taken the claim over: what was made under it is then the other's to publish."""
    for _ in range(5):
        if lease.compromise is not None:
            return True
        owner = lease.owner
        if owner is not None and owner.token == lease.token:
            return False
        time.sleep(0.1)  # a process that judges the claim moves it aside for a moment
    return True


class Waiting:
    """Waits between tries, ever longer up to five seconds, and says once for what."""

    def __init__(self) -> None:
        self.seconds, self.told = 0.2, False

    def once_more(self, what: str) -> None:
        if not self.told:
            print(f"waiting for {what}", file=sys.stderr, flush=True)
        self.told = True
        time.sleep(self.seconds)
        self.seconds = min(1.5 * self.seconds, 5.0)
