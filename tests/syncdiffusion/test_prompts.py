"""Which words of a prompt a model was not trained on, as far as its folder tells."""

import pytest

from syncdiffusion.errors import UsageError
from syncdiffusion.prompts import checked_prompt, known_words, unknown_words_line, words_of


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "words.txt").write_text("# remark\na\nlake\n\nof\nÉté\n", encoding="utf-8")
    return tmp_path


def test_unknown_words_are_named_once_in_one_line(folder):
    line = unknown_words_line(folder, ["A lake of Tokyo, 3 cats", "a cats' lake", "夜の城"])
    assert line is not None and "\n" not in line and line.endswith(str(folder / "words.txt"))
    assert "not trained on: tokyo, cats, 夜の城;" in line
    assert unknown_words_line(folder, ["a LAKE; of a lake (1:6)", "été"]) is None


def test_of_many_their_number_is_told(folder):
    line = unknown_words_line(folder, [" ".join(f"x{'y' * i}" for i in range(20))])
    assert line is not None and " and 8 more; " in line


def test_nothing_is_said_where_nothing_is_known(tmp_path):
    assert unknown_words_line("owner/name", ["a cat"]) is None
    assert known_words(tmp_path) is None and unknown_words_line(tmp_path, ["a cat"]) is None
    (tmp_path / "words.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="words.txt: cannot be read"):
        known_words(tmp_path)


def test_words_of_any_script():
    assert words_of("L'été à Zürich: l'été!") == ["l'été", "à", "zürich"]
    assert words_of("42 % #7") == []


@pytest.mark.parametrize("prompt", ["", "  ", "\udce9"])
def test_what_is_no_text_is_refused_with_the_setting(prompt):
    with pytest.raises(UsageError, match="^line 3: "):
        checked_prompt(prompt, "line 3")
