"""Ctrl-C and SIGTERM for commands: how both are raised, their words and exit statuses. Imports next to nothing."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}

Handler = Callable[[int, FrameType | None], None]

_raised: list[int] = []  # the signals that were raised since they are answered


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, by a class of its own.

    CPython takes note of a plain KeyboardInterrupt that leaves an `exec` of text, as of dataclasses and named tuples,
    and ends the process by SIGINT later, whatever caught the exception and whatever status was asked for.
    """


class Terminated(KeyboardInterrupt):
    """SIGTERM: every library then cleans up as for Ctrl-C."""


def unread() -> int:
    """The exit status, 141, of a command whose reader has gone, as in `... | head`; nothing more is written to it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still in the buffer goes there at the end
    return exit_status(signal.SIGPIPE)


def exit_status(number: int) -> int:
    """As a shell has it: 130 after Ctrl-C, 143 after SIGTERM."""
    return 128 + number


def signal_of(stop: KeyboardInterrupt) -> signal.Signals:
    """The signal that raised `stop`."""
    return signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT


def raise_interrupt(number: int, frame: FrameType | None) -> None:
    _raised.append(number)
    raise Terminated if number == signal.SIGTERM else Interrupted


def raise_lost() -> None:
    """Raise again a signal whose exception was lost, as in a finaliser or a callback of a library; else nothing.

    Long work asks between two steps: where it goes on although a signal was raised, nobody has taken note of it.
    """
    if _raised:
        raise_interrupt(_raised[-1], None)


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
        _raised.clear()
