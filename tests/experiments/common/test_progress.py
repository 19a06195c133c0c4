"""The time left, reckoned label by label."""

import fcntl
import io
import os
import pty
import re
import select
import struct
import sys
import termios
import time

import pytest

from experiments.common.progress import Progress, Stand, report_images, say_step

NAMES = {"title": "generate", "noun": "panoramas"}


def test_time_left_counts_each_method_at_its_own_cost():
    stream = io.StringIO()
    progress = Progress(["slow"] * 3 + ["quick"] * 10, {}, stream, every=0.0, **NAMES)
    assert progress.time_left("slow", 0.0) == "?"
    progress.finish("slow", "one", 50.0)
    progress.finish("quick", "two", 2.0)
    progress.close()
    # two slow ones at 50 s and nine quick ones at 2 s are left: 118 s
    first, second = stream.getvalue().splitlines()
    assert first.startswith("[1/13] one: 50.0 s; ")
    assert second == "[2/13] two: 2.0 s; 1 min 58 s left"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"title": "generate", "noun": "panoramas"}, "generate 100%"),
        ({"title": "generate", "noun": "panoramas"}, "1.0/1 panoramas, "),
        ({"title": "benchmark", "noun": "runs"}, "1.0/1 runs, "),
    ],
)
def test_a_terminal_is_told_what_is_counted(words, said):
    stream = Terminal()
    progress = Progress(["one"], {}, stream, **words)
    progress.finish("one", "it", 5.0)
    progress.close()
    assert said in stream.getvalue()


def test_what_was_never_made_counts_as_the_cheapest_known():
    progress = Progress(["seen", "new", "new"], {"seen": 10.0, "other": 3.0}, io.StringIO(), **NAMES)
    assert progress.time_left("seen", 0.0) == "16 s"


def test_what_another_process_made_is_no_longer_to_do():
    stream = io.StringIO()
    progress = Progress(["one", "one", "one"], {}, stream, every=0.0, **NAMES)
    progress.skip("one")
    progress.finish("one", "it", 5.0)
    assert stream.getvalue() == "[1/2] it: 5.0 s; 5 s left\n"


def test_what_other_processes_do_shortens_the_time_left():
    progress = Progress(["slow"] * 20 + ["quick"] * 20, {"slow": 40.0, "quick": 10.0}, io.StringIO(), **NAMES)
    progress.finish("slow", "one", 40.0)
    assert progress.time_left("slow", 0.0) == "16 min 00 s"  # 19 at 40 s and 20 at 10 s, by this process alone
    for _ in range(4):
        progress.skip("quick")
    # 4 at 10 s were done elsewhere while one at 40 s was done here: 19 at 40 s and 16 at 10 s by two as quick
    assert progress.time_left("slow", 0.0) == "7 min 40 s"
    assert progress.time_left("slow", 0.5) == "7 min 30 s"
    for _ in range(18):
        progress.skip("slow")
    for _ in range(16):
        progress.skip("quick")
    assert progress.time_left("slow", 0.25) == "30 s"  # the one in hand is helped by nobody


def test_a_process_that_helps_no_more_is_forgotten():
    progress = Progress(["one"] * 200, {}, io.StringIO(), **NAMES)
    for _ in range(20):
        progress.finish("one", "it", 10.0)
        progress.skip("one")
    assert progress.time_left("one", 0.0) == "13 min 20 s"  # 160 at 10 s by two
    for _ in range(32):
        progress.finish("one", "it", 10.0)
    assert progress.time_left("one", 0.0) == "21 min 20 s"  # 128 at 10 s by one


def test_steps_are_told_now_and_then_where_there_is_no_terminal(monkeypatch):
    """A run of 100 s in 20 steps, a line every ten seconds; the time left follows from the steps alone."""
    now, stream = [0.0], io.StringIO()
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    progress = Progress(["slow", "slow"], {}, stream, every=10.0, **NAMES)
    now[0] = 30.0  # the model was loaded
    for step in range(1, 21):
        now[0] += 5.0
        progress.step("slow", step / 20, "slow, seed 3")
    progress.finish("slow", "slow, seed 3", 100.0)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "[1/2] slow, seed 3: 5 % of it; ? left"
    assert lines[1] == "[1/2] slow, seed 3: 15 % of it; 3 min 05 s left"  # 85 s of this one, 100 s of the next
    assert len(lines) == 11 and lines[-2] == "[1/2] slow, seed 3: 95 % of it; 1 min 45 s left"
    assert lines[-1] == "[1/2] slow, seed 3: 100.0 s; 1 min 40 s left"


def test_on_a_terminal_the_bar_tells_the_steps():
    stream = Terminal()
    progress = Progress(["one"], {}, stream, every=0.0, **NAMES)
    progress.step("one", 0.5, "it")
    progress.close()
    assert "generate  50%" in stream.getvalue() and "% of it" not in stream.getvalue()


@pytest.mark.parametrize(("lines", "columns"), [(0, 0), (0, 100), (40, 100)])
def test_a_terminal_that_does_not_know_its_size_has_a_bar_too(lines, columns):
    here, there = pty.openpty()
    fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    with os.fdopen(there, "w") as stream:
        progress = Progress(["one"], {}, stream, **NAMES)
        progress.finish("one", "it", 5.0)
        progress.close()
        say = report_images("score", stream)
        say(1, 1)
        told = ""
        while "score: 100%" not in told and select.select([here], [], [], 10)[0]:  # it comes in pieces
            told += os.read(here, 10_000).decode()
    os.close(here)
    assert "generate 100%" in told and "score: 100%" in told
    assert max(map(len, re.split("[\r\n]+", told))) <= (columns or 80)


def test_a_listener_is_told_every_step_and_every_run():
    told = []
    progress = Progress(["one", "two"], {}, io.StringIO(), listener=told.append, **NAMES)
    progress.step("one", 0.5)
    progress.step("one", 1.0)
    progress.finish("one", "it", 5.0)
    progress.finish("two", "it", 7.0)
    assert told == [
        Stand(0, 2, "one", 0.5),
        Stand(1, 2, "one", 0.0, 5.0),
        Stand(2, 2, "two", 0.0, 7.0),
    ]


def test_the_listener_is_told_of_runs_that_go_together_and_of_others(monkeypatch):
    told = []
    progress = Progress(["one"] * 4, {}, io.StringIO(), listener=told.append, **NAMES)
    progress.step("one", 0.5, count=2)
    progress.finish("one", "it", 5.0, count=2)
    progress.skip("one")
    assert told == [
        Stand(0, 4, "one", 0.5, count=2),
        Stand(2, 4, "one", 0.0, 5.0, count=2),
        Stand(2, 3, "one", 0.0),
    ]


def test_a_line_does_not_run_into_a_bar(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    progress = Progress(["one"], {}, stream, **NAMES)
    say_step("generate", "loading the model")
    progress.close()
    told = re.split("[\r\n]+", stream.getvalue())
    assert "generate: loading the model" in told  # a line of its own


def test_images_are_a_bar_on_a_terminal():
    stream = Terminal()
    say = report_images("score", stream)
    assert stream.getvalue() == ""  # the networks are still being loaded
    for done in (1, 2, 4):
        say(done, 4)
    assert "score: 100%" in stream.getvalue() and "4/4" in stream.getvalue()


# Seconds of a panorama of each method as committed under results/mini/demo (of a square: by its FLOPs), and FLOPs in
# units of 10^11.
DEMO = {"multidiffusion": 15.6, "blended_latent": 12.8, "syncdiffusion": 119.1, "stable_diffusion": 0.8}
FLOPS = {"multidiffusion": 7.0, "blended_latent": 3.0, "syncdiffusion": 62.0, "stable_diffusion": 0.35}
COUNTS = {"multidiffusion": 4, "blended_latent": 4, "syncdiffusion": 4, "stable_diffusion": 40}


def seconds_in(text: str) -> int:
    """What `clock` says, as seconds."""
    units = {"s": 1, "min": 60, "h": 3600}
    words = text.split()
    return sum(int(number) * units[unit] for number, unit in zip(words[::2], words[1::2], strict=True))


@pytest.mark.parametrize(("work", "error"), [(DEMO, 0.02), (FLOPS, 0.25)], ids=["measured before", "FLOPs"])
def test_the_first_panorama_tells_how_long_a_mixed_run_takes(monkeypatch, work, error):
    """MultiDiffusion first, with 40 s of loading and first use in its first step; SyncDiffusion takes eight times as
    long. Work as it was measured before is exact up to that first step, counted FLOPs are within a quarter here."""
    now, stream = [0.0], io.StringIO()
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    labels = [label for label, count in COUNTS.items() for _ in range(count)]
    progress = Progress(labels, {}, stream, every=1e9, work=lambda: work, **NAMES)
    now[0] += 40.0
    for step in range(25):
        now[0] += DEMO["multidiffusion"] / 25
        progress.step("multidiffusion", (step + 1) / 25)
    progress.finish("multidiffusion", "the first", 40.0 + DEMO["multidiffusion"])
    told = seconds_in(stream.getvalue().rpartition("; ")[2].removesuffix(" left\n"))
    truth = sum(COUNTS[label] * DEMO[label] for label in COUNTS) - DEMO["multidiffusion"]
    assert told == pytest.approx(truth, rel=error)


def test_several_at_once_count_as_several():
    stream = io.StringIO()
    progress = Progress(["one"] * 7, {}, stream, every=0.0, **NAMES)
    progress.finish("one", "three of them", 30.0, count=3)
    progress.finish("one", "three more", 30.0, count=3)
    assert stream.getvalue() == "[3/7] three of them: 30.0 s; 40 s left\n[6/7] three more: 30.0 s; 10 s left\n"


def test_before_anything_is_done_only_the_one_in_hand_is_reckoned(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    progress = Progress(["slow"] + ["quick"] * 50, {}, io.StringIO(), **NAMES)
    progress.step("slow", 0.1)
    now[0] = 10.0
    assert progress.time_left("slow", 0.2) == "1 min 20 s of this one"
    alike = Progress(["slow"] * 2, {}, io.StringIO(), **NAMES)
    alike.step("slow", 0.1)
    now[0] = 20.0
    assert alike.time_left("slow", 0.2) == "3 min 00 s"
