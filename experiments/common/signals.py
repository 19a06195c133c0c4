"""How a run ends when a signal stops it: in one line and the right exit status, from the first moment on.

Imports next to nothing.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from syncdiffusion.signals import WORDS, answered_by, exit_status, raise_interrupt, signal_of

GOES_ON = "what is done stays; the same command goes on from here"


def end_at_once(number: int, frame: FrameType | None) -> None:
    """Ends the process here and now: for a time in which there is nothing to clean up.

    While libraries are imported, an exception would be taken for a defect of theirs, or be lost.
    """
    # not print: the signal may have come in the middle of one
    os.write(2, f"{WORDS[signal.Signals(number)]}: {GOES_ON}\n".encode())
    os._exit(exit_status(number))


@contextmanager
def importing() -> Iterator[None]:
    """For the import of a big library: a command ends at once there, and every other program stays as it is."""
    if signal.getsignal(signal.SIGTERM) is raise_interrupt:
        with answered_by(end_at_once):
            yield
    else:
        yield


def end_interrupted(stop: KeyboardInterrupt) -> None:
    """The end of a command that a signal stopped: one line on stderr, then SystemExit."""
    number = signal_of(stop)
    print(f"{WORDS[number]}: {GOES_ON}", file=sys.stderr)
    sys.exit(exit_status(number))
