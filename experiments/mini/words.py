"""The words that the captions of the procedural world have, for `words.txt` beside the miniature's weights.

python -m experiments.mini.words                # writes syncdiffusion/weights/mini/words.txt anew
python -m experiments.mini.words FOLDER         # of another model that was trained on these captions
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from experiments.common.command_line import one_line_errors
from experiments.common.files import write_whole
from experiments.mini.captions import PAPER_PROMPTS, caption, vocabulary
from experiments.mini.world import KINDS, sample_scene
from syncdiffusion.backbones.model_files import EMBEDDED_FOLDER
from syncdiffusion.prompts import WORDS_FILE, words_of

# Captions that the words of the grammar's sentences are read off. The rarest of them stand in one caption of 500.
DRAWN = 12_000
REMARK = "# The words that this model was trained on, one a line: python -m experiments.mini.words"


def grammar_words() -> list[str]:
    """Every word that a caption can have, in alphabetical order; the letters drawn at random are none.

    The tables of the grammar are read whole; what its sentences say around them is read off captions, always the same.
    """
    texts = [*PAPER_PROMPTS, *vocabulary()]
    rng = np.random.default_rng(0)
    for index in range(DRAWN):
        texts.append(caption(sample_scene(rng, kind=KINDS[index % len(KINDS)]), rng))
    return sorted({word for text in texts for word in words_of(text)})


def write_words(folder: Path) -> Path:
    """Writes `words.txt` into a model's folder; returns its path."""
    path = folder / WORDS_FILE
    write_whole(path, "\n".join([REMARK, *grammar_words()]) + "\n")
    return path


@one_line_errors(exits=True)
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write the words of the captions beside a model's weights.")
    parser.add_argument("folder", type=Path, nargs="?", default=EMBEDDED_FOLDER)
    print(write_words(parser.parse_args(arguments).folder))


if __name__ == "__main__":
    main()
