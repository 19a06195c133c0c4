"""How far a run is and how long it still takes, on a terminal as a bar, elsewhere as a line now and then."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from syncdiffusion.signals import raise_lost

if TYPE_CHECKING:
    from tqdm import tqdm

RECENT = 32  # runs, here and elsewhere, by which it is reckoned how much other processes do
WORTH_COUNTING = 3.0  # seconds that a piece of work has taken before it is counted how much is left


@dataclass(frozen=True)
class Stand:
    """How far a piece of work is: `done` of `total` runs, and `fraction` (0 to 1) of the one in hand, of kind `label`.

    seconds: what the run took that has just ended; None in the middle of one.
    count: how many runs go together, in hand or just ended.
    """

    done: int
    total: int
    label: str
    fraction: float
    seconds: float | None = None
    count: int = 1


class Progress:
    """How far a piece of work is that consists of runs: panoramas being made, or a benchmark's runs.

    Labels differ tenfold in cost, so the time left is reckoned label by label: at the label's own pace where one of it
    was done, else at the pace of the others, in units of work. A run's pace leaves out what comes before the end of its
    first step, since networks that load and kernels that are used for the first time say nothing of the next run. What
    other processes do of the same work shortens it.
    """

    def __init__(
        self,
        labels: Iterable[str],
        known_seconds: Mapping[str, float],
        stream: TextIO | None = None,
        every: float = 10.0,
        *,
        work: Callable[[], Mapping[str, float]] | None = None,
        title: str,
        noun: str,
        listener: Callable[[Stand], None] | None = None,
    ) -> None:
        """
        Args:
            labels: one entry for each run that is to come.
            known_seconds: label -> seconds that one run took earlier.
            stream: where to say it; stderr where none is given.
            every: least seconds between two lines where `stream` is no terminal.
            work: gives label -> how much work one run is, in any unit, such as FLOPs; nothing where that is not known.
                It may take seconds, so it is asked once, between two runs, and only where these take long too.
            title, noun: what a terminal's bar calls the work, and what it counts.
            listener: is told after every step and every run, and of what others have done.
        """
        from tqdm import tqdm

        self.left = Counter(labels)
        self.total = sum(self.left.values())
        self.seconds = dict(known_seconds)
        self.work: Mapping[str, float] = {}
        self.count_work, self.began = work, time.monotonic()
        self.stream, self.every = stream or sys.stderr, every
        self.done, self.part, self.last_line = 0, 0.0, time.monotonic()
        self.first_step: tuple[float, float] | None = None  # of the run in hand: (when, how far it was)
        self.recent: deque[tuple[str, bool]] = deque(maxlen=RECENT)  # (label of a run, whether it was done here)
        self.listener = listener
        self.bar = None
        if self.stream.isatty():
            counts = f"{{n:.1f}}/{{total}} {noun}, {{elapsed}} so far{{postfix}}"
            shape = "{desc} {percentage:3.0f}% |{bar}| " + counts
            self.bar = tqdm(
                total=self.total, file=self.stream, bar_format=shape, desc=title, **known_shape(self.stream)
            )

    def step(self, label: str, fraction: float, what: str = "", count: int = 1) -> None:
        """`fraction` (0 to 1) of the `count` runs in hand, which go together and are called `what`, is done."""
        self.first_step = self.first_step or (time.monotonic(), fraction)
        if self.bar is not None:
            self.bar.update(max(fraction - self.part, 0.0) * count)
            self.bar.set_postfix_str(f"{self.time_left(label, fraction, count)} left, {label}")
        elif fraction < 1.0 and time.monotonic() - self.last_line >= self.every:
            left = self.time_left(label, fraction, count)
            which = f"{self.done + 1}" if count == 1 else f"{self.done + 1}-{self.done + count}"
            self.say(f"[{which}/{self.total}] {what or label}: {100 * fraction:.0f} % of it; {left} left")
        self.part = fraction
        if self.listener is not None and fraction < 1.0:
            self.listener(Stand(self.done, self.total, label, fraction, count=count))

    def finish(self, label: str, what: str, seconds: float, count: int = 1) -> None:
        """The `count` runs in hand, called `what`, are done and took `seconds` together."""
        self.step(label, 1.0, what, count)
        pace, self.first_step = self.pace(1.0), None
        if count:
            each = (seconds if pace is None else min(seconds, pace)) / count
            before = self.seconds.get(label)
            self.seconds[label] = each if before is None else 0.7 * before + 0.3 * each
        self.left[label] -= count
        self.recent.extend([(label, True)] * count)
        self.done, self.part = self.done + count, 0.0
        if self.listener is not None:
            self.listener(Stand(self.done, self.total, label, 0.0, seconds, count))
        now = time.monotonic()
        unseen = any(left and name not in self.seconds for name, left in self.left.items())
        if self.count_work is not None and unseen and now - self.began >= WORTH_COUNTING:
            self.work, self.count_work = self.count_work(), None
        if self.bar is None and (now - self.last_line >= self.every or self.done in (count, self.total)):
            left = self.time_left(label, 0.0, 1 if any(self.left.values()) else 0)
            self.say(f"[{self.done}/{self.total}] {what}: {seconds:.1f} s; {left} left")

    def say(self, line: str) -> None:
        self.last_line = time.monotonic()
        print(line, file=self.stream, flush=True)

    def skip(self, label: str) -> None:
        """Another process has done one of those that were to be done here."""
        self.left[label] -= 1
        self.recent.append((label, False))
        self.total -= 1
        if self.bar is not None:
            self.bar.total = self.total
            self.bar.refresh()
        if self.listener is not None:
            self.listener(Stand(self.done, self.total, label, 0.0))

    def time_left(self, label: str, fraction: float, count: int = 1) -> str:
        """Of all that is left, in words; `fraction` of the `count` runs of `label` in hand is done."""
        seconds = dict(self.seconds)
        if label not in seconds and count and (at_this_pace := self.pace(fraction)) is not None:
            seconds[label] = at_this_pace / count
        if not seconds:
            return "?"
        if not self.seconds and not self.work and any(left and name != label for name, left in self.left.items()):
            # Nothing is known of the others yet, which may take a tenth as long.
            return f"{clock((1 - fraction) * count * seconds[label])} of this one"
        each = {name: seconds_of(name, seconds, self.work) for name in (*self.left, label)}
        in_hand = (1 - fraction) * count * each[label]
        rest = sum(left * each[name] for name, left in self.left.items()) - fraction * count * each[label]
        return clock(max(rest / self.processes(each), in_hand, 0.0))

    def processes(self, each: Mapping[str, float]) -> float:
        """How many as quick as this one do the work, by what was done of late; each: label -> seconds of a run."""
        here, elsewhere = (sum(each[name] for name, ours in self.recent if ours is mine) for mine in (True, False))
        return 1 + elsewhere / here if here else 1.0

    def pace(self, fraction: float) -> float | None:
        """Seconds that the runs in hand take in all, by their steps so far; None while there was only one."""
        when, before = self.first_step or (0.0, fraction)
        return (time.monotonic() - when) / (fraction - before) if fraction > before else None

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def known_shape(stream: TextIO) -> dict[str, int]:
    """What tqdm must be told of a terminal that does not know its own size, as in a container: it would say nothing."""
    try:
        columns, lines = os.get_terminal_size(stream.fileno())
    except OSError:
        return {}
    return {} if columns and lines else {"ncols": (columns or 80) - 1, "nrows": 24}


def seconds_of(label: str, known: Mapping[str, float], work: Mapping[str, float]) -> float:
    """Seconds of a run of `label`: as known, else by its work at the pace of those that are known.

    Where its work is not known either it counts as the cheapest: that is mostly a reference square.

    >>> seconds_of("slow", {"quick": 2.0}, {"quick": 10.0, "slow": 80.0})
    16.0
    """
    if label in known:
        return known[label]
    both = [name for name in known if work.get(name)]
    if label not in work or not both:
        return min(known.values())
    return work[label] * sum(known[name] for name in both) / sum(work[name] for name in both)


def report_images(title: str, stream: TextIO | None = None, every: float = 10.0) -> Callable[[int, int], None]:
    """A callback (images done, images in all) that says how far `title` is: a bar on a terminal, else lines.

    stream: stderr where none is given; every: least seconds between two lines.
    """
    stream = stream or sys.stderr
    told = _ImageBar(title, stream) if stream.isatty() else _ImageLines(title, stream, every)

    def on_image(done: int, total: int) -> None:
        raise_lost()
        told(done, total)

    return on_image


class _ImageBar:
    def __init__(self, title: str, stream: TextIO) -> None:
        self.title, self.stream = title, stream
        self.bar: tqdm | None = None  # it begins with the first image, not with the networks being loaded

    def __call__(self, done: int, total: int) -> None:
        from tqdm import tqdm

        if self.bar is None:
            shape = "{desc}: {percentage:3.0f}% |{bar}| {n}/{total} images, {elapsed} so far, {remaining} left"
            self.bar = tqdm(
                total=total, desc=self.title, file=self.stream, bar_format=shape, **known_shape(self.stream)
            )
        self.bar.update(done - self.bar.n)
        if done == total:
            self.bar.close()


class _ImageLines:
    """The time left is told at the pace of the last few lines: images that were found again at the start go faster."""

    def __init__(self, title: str, stream: TextIO, every: float) -> None:
        self.title, self.stream, self.every = title, stream, every
        self.told: deque[tuple[float, int]] = deque(maxlen=6)  # (when, images done)

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if not self.told:  # the first image also waited for the networks: its time tells nothing of the others
            self.told.append((now, done))
        elif now - self.told[-1][0] >= self.every or done == total:
            since, before = self.told[0]
            self.told.append((now, done))
            left = clock((now - since) / max(done - before, 1) * (total - done))
            print(f"{self.title}: {done}/{total} images; {left} left", file=self.stream, flush=True)


def say_step(title: str, what: str) -> None:
    """A line on stderr before something that takes long, so that nobody waits in silence."""
    say_line(f"{title}: {what}")


def say_line(line: str) -> None:
    """A line on stderr; a bar that stands there steps aside."""
    if "tqdm" in sys.modules:
        from tqdm import tqdm

        tqdm.write(line, file=sys.stderr)
    else:
        print(line, file=sys.stderr, flush=True)


def plural(n: int, thing: str) -> str:
    """
    >>> plural(1, "seed"), plural(2, "seed")
    ('1 seed', '2 seeds')
    """
    return f"{n} {thing}{'' if n == 1 else 's'}"


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
