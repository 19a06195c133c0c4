"""How far a run is and how long it still takes, on a terminal as a bar, elsewhere as a line now and then."""

from __future__ import annotations

import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from typing import TextIO


class Progress:
    """Counts panoramas or other runs. Methods differ tenfold in cost, so the time left is reckoned label by label."""

    def __init__(
        self,
        labels: Iterable[str],
        known_seconds: Mapping[str, float],
        stream: TextIO | None = None,
        every: float = 10.0,
        title: str = "generate",
        noun: str = "panoramas",
    ) -> None:
        """`labels`: one entry per panorama to make; `known_seconds`: seconds per panorama from earlier runs;
        `every`: least seconds between two lines where `stream` is no terminal; `title`, `noun`: what a terminal's bar
        calls the work and what is counted."""
        from tqdm import tqdm

        self.left = Counter(labels)
        self.total = sum(self.left.values())
        self.seconds = dict(known_seconds)
        self.stream, self.every = stream or sys.stderr, every
        self.done, self.part, self.last_line = 0, 0.0, time.monotonic()
        self.bar = None
        if self.stream.isatty():
            counts = f"{{n:.1f}}/{{total}} {noun}, {{elapsed}} so far{{postfix}}"
            shape = "{desc} {percentage:3.0f}% |{bar}| " + counts
            self.bar = tqdm(total=self.total, file=self.stream, bar_format=shape, desc=title)

    def step(self, label: str, fraction: float) -> None:
        """`fraction` of the panorama in hand is done."""
        if self.bar is not None:
            self.bar.update(max(fraction - self.part, 0.0))
            self.bar.set_postfix_str(f"{self.time_left(label, fraction)} left, {label}")
        self.part = fraction

    def finish(self, label: str, what: str, seconds: float) -> None:
        """The panorama in hand is on disk."""
        self.step(label, 1.0)
        before = self.seconds.get(label)
        self.seconds[label] = seconds if before is None else 0.7 * before + 0.3 * seconds
        self.left[label] -= 1
        self.done, self.part = self.done + 1, 0.0
        now = time.monotonic()
        if self.bar is None and (now - self.last_line >= self.every or self.done in (1, self.total)):
            self.last_line = now
            left = self.time_left(label, 0.0)
            print(f"[{self.done}/{self.total}] {what}: {seconds:.1f} s; {left} left", file=self.stream, flush=True)

    def skip(self, label: str) -> None:
        """Another process has made one of those that were to be made here."""
        self.left[label] -= 1
        self.total -= 1
        if self.bar is not None:
            self.bar.total = self.total
            self.bar.refresh()

    def time_left(self, label: str, fraction: float) -> str:
        if not self.seconds:
            return "?"
        # What was not made yet are mostly reference squares, the cheapest of all.
        typical = min(self.seconds.values())
        rest = sum(count * self.seconds.get(each, typical) for each, count in self.left.items())
        return clock(max(rest - fraction * self.seconds.get(label, typical), 0.0))

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def counted(what: str, stream: TextIO | None = None, every: float = 10.0) -> Callable[[int, int], None]:
    """A callback (done, total): a bar on a terminal, elsewhere a line every so often.

    The time left is told at the pace of the last few lines: what is found again at the start goes faster than the rest.
    """
    from tqdm import tqdm

    stream = stream or sys.stderr
    bar: list[tqdm] = []
    last: deque[tuple[float, int]] = deque(maxlen=6)

    def say(done: int, total: int) -> None:
        now = time.monotonic()
        if stream.isatty():
            bar or bar.append(tqdm(total=total, desc=what, file=stream))
            bar[0].update(done - bar[0].n)
            if done == total:
                bar[0].close()
        elif not last:  # the first image also waited for the networks: its time tells nothing of the others
            last.append((now, done))
        elif now - last[-1][0] >= every or done == total:
            since, before = last[0]
            last.append((now, done))
            left = (now - since) / max(done - before, 1) * (total - done)
            print(f"{what}: {done}/{total} images; {clock(left)} left", file=stream, flush=True)

    return say


def clock(seconds: float) -> str:
    """
    >>> clock(59), clock(61), clock(7322)
    ('59 s', '1 min 01 s', '2 h 02 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
