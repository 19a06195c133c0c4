"""Ctrl-C and SIGTERM: one line and the right exit status, from the first moment on. Imports next to nothing."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

GOES_ON = "what is done stays; the same command goes on from here"
WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}

Handler = Callable[[int, FrameType | None], None]


class Terminated(KeyboardInterrupt):
    """SIGTERM: every library then cleans up as for Ctrl-C."""


def exit_status(number: int) -> int:
    """As a shell has it: 130 after Ctrl-C, 143 after SIGTERM."""
    return 128 + number


def end_at_once(number: int, frame: FrameType | None) -> None:
    """Ends the process here and now: for a time in which there is nothing to clean up.

    While libraries are imported, an exception would be taken for a defect of theirs, or be lost.
    """
    # not print: the signal may have come in the middle of one
    os.write(2, f"{WORDS[signal.Signals(number)]}: {GOES_ON}\n".encode())
    os._exit(exit_status(number))


def raise_interrupt(number: int, frame: FrameType | None) -> None:
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


@contextmanager
def answered_by(handler: Handler) -> Iterator[None]:
    """Inside the block both signals are answered by `handler`. One that is ignored, as by nohup, stays so."""
    before = {number: signal.getsignal(number) for number in WORDS}
    for number, old in before.items():
        if old is not signal.SIG_IGN:
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


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
    number = signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT
    print(f"{WORDS[number]}: {GOES_ON}", file=sys.stderr)
    sys.exit(exit_status(number))
