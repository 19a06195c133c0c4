"""The list of words beside the miniature's weights is the grammar's, no word more and no word less."""

import numpy as np

from experiments.mini.captions import _IDLE, _NATURE, _NOUNS, PAPER_PROMPTS, caption
from experiments.mini.words import grammar_words, write_words
from experiments.mini.world import sample_scene
from syncdiffusion.backbones.model_files import EMBEDDED_FOLDER, fingerprint_folder
from syncdiffusion.prompts import WORDS_FILE, known_words, words_of


def test_the_file_is_what_the_grammar_says(tmp_path):
    """`python -m experiments.mini.words` writes it anew where this fails."""
    written = write_words(tmp_path).read_text(encoding="utf-8")
    assert (EMBEDDED_FOLDER / WORDS_FILE).read_text(encoding="utf-8") == written


def test_every_caption_is_made_of_these_words():
    """Other captions than the list was read off, and the tables; letters drawn at random stay outside."""
    known, rng = set(grammar_words()), np.random.default_rng(12345)
    captions = [caption(sample_scene(rng), rng) for _ in range(3000)]
    tables = [*PAPER_PROMPTS, *_IDLE, *_NATURE, *(noun for nouns in _NOUNS.values() for noun in nouns)]
    assert {word for text in (*captions, *tables) for word in words_of(text)} <= known
    assert not {"cat", "venice", "tokyo", "supermarket", "spaceship"} & known and len(known) < 300


def test_the_list_is_no_part_of_the_model(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    before = fingerprint_folder(tmp_path)
    write_words(tmp_path)
    assert fingerprint_folder(tmp_path) == before and len(known_words(tmp_path) or ()) > 100
