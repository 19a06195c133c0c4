"""The trained tokenizer: CLIP's format, any text, the same from run to run."""

import json
import random
import subprocess
import sys

import numpy as np
import pytest

from experiments.mini import diffusion_data
from experiments.mini import tokenizer as tokenizer_module
from experiments.mini.captions import PAPER_PROMPTS, sample_pair
from experiments.mini.tokenizer import (
    END,
    MAX_TOKENS,
    START,
    byte_symbols,
    load_tokenizer,
    train_tokenizer,
    write_tokenizer,
)


def grammar_captions(count: int) -> list[str]:
    rng = np.random.default_rng(0)
    return [sample_pair(rng)[1] for _ in range(count)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(path, *train_tokenizer(grammar_captions(1500)))
    return path


@pytest.fixture(scope="module")
def tokenizer(folder):
    return load_tokenizer(folder)


def test_captions_come_back(tokenizer):
    for text in [*PAPER_PROMPTS, *grammar_captions(50)]:
        ids = tokenizer(text).input_ids
        # A comma is a word of its own.
        spaced = text.replace(",", " ,")
        assert tokenizer.decode(ids, skip_special_tokens=True) in (text, spaced)
        # Frequent words are single tokens: start, one a word, end.
        assert len(ids) <= 2 + 2 * len(spaced.split())


def test_paper_prompts_take_one_token_a_word(tokenizer):
    for prompt in PAPER_PROMPTS:
        assert len(tokenizer(prompt).input_ids) == 2 + len(prompt.split())


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "🏔️🌃",
        "日本の山 în ceață",
        "a\u0000b\u200d\ufeff",
        "ﬁ ½ ²³ Ⅷ",
        "naïve—“quotes”…",
        "\U0010ffff\ue000",
        "x" * 500,
        "1234 't's'll",
    ],
)
def test_any_text_is_32_known_tokens(tokenizer, text):
    ids = tokenizer(text, padding="max_length", truncation=True).input_ids
    assert len(ids) == MAX_TOKENS == tokenizer.model_max_length
    assert ids[0] == tokenizer.bos_token_id and ids[-1] == tokenizer.eos_token_id
    assert 0 <= min(ids) and max(ids) < len(tokenizer)


def test_every_byte_of_random_unicode_has_a_token(tokenizer):
    """No character falls to the unknown token (which is the end token): only the last id is that."""
    rng = random.Random(0)
    for _ in range(300):
        points = [p for p in (rng.randrange(1, 0x110000) for _ in range(4)) if not 0xD800 <= p < 0xE000]
        ids = tokenizer("".join(map(chr, points))).input_ids
        assert tokenizer.eos_token_id not in ids[1:-1]


def test_vocabulary_is_clips(folder):
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    symbols = byte_symbols()
    assert len(symbols) == 256
    assert list(vocabulary)[:512] == symbols + [s + "</w>" for s in symbols]
    assert list(vocabulary)[-2:] == [START, END]
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))
    merges = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    assert merges[0] == "#version: 0.2"
    assert all("".join(line.split(" ")) in vocabulary for line in merges[1:])


def test_a_tokenizer_that_was_not_written_whole_is_made_anew(folder, tmp_path, monkeypatch):
    """Whatever file the writing stops before, the next call ends with the whole tokenizer."""
    made = {path.name: path.read_bytes() for path in folder.iterdir()}
    arguments = train_tokenizer(grammar_captions(1500))
    monkeypatch.setattr(diffusion_data, "train_tokenizer", lambda texts: arguments)
    write = tokenizer_module.replacing
    for count in range(len(made)):
        left = iter(range(count))

        def some(path, left=left):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return write(path)

        place = tmp_path / str(count)
        with monkeypatch.context() as patch:
            patch.setattr(tokenizer_module, "replacing", some)
            with pytest.raises(KeyboardInterrupt):
                diffusion_data.make_tokenizer(place, count=1)
        diffusion_data.make_tokenizer(place, count=1)
        assert {path.name: path.read_bytes() for path in place.iterdir()} == made


def test_same_in_another_process_and_order():
    """Hash maps are seeded anew in every process, so this fails if an order depends on one."""
    code = (
        "import sys, json, random; from experiments.mini.tokenizer import train_tokenizer\n"
        "c = json.load(sys.stdin); random.Random(1).shuffle(c); print(json.dumps(train_tokenizer(c)))"
    )
    captions = grammar_captions(800)
    command = [sys.executable, "-c", code]
    answer = subprocess.run(command, input=json.dumps(captions), capture_output=True, text=True, check=True)
    vocabulary, merges = json.loads(answer.stdout)
    expected = train_tokenizer(captions)
    assert list(vocabulary.items()) == list(expected[0].items())
    assert [tuple(pair) for pair in merges] == expected[1]
