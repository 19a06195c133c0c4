"""The time left, reckoned label by label."""

import io

import pytest

from experiments.common.progress import Progress

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
