"""A byte-level BPE in CLIP's format, trained on the captions.

The vocabulary begins as CLIP's does: 256 byte symbols, the same 256 with the end-of-word mark `</w>`,
then a token a merge, then the two special tokens. Since every byte is there with and without the mark,
any text at all can be written in it; words it has never seen only take more tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.common.files import replacing

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

END_OF_WORD = "</w>"
START, END = "<|startoftext|>", "<|endoftext|>"
MAX_TOKENS = 32


def byte_symbols() -> list[str]:
    """The 256 printable characters that stand for the bytes (GPT-2's table), in a fixed order."""
    from tokenizers.pre_tokenizers import ByteLevel

    return sorted(ByteLevel.alphabet())


def train_tokenizer(captions: Iterable[str], merges: int = 512) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Learns merges from captions.

    Args:
        captions: training text; the result depends on what is in it, not on its order.
        merges: most merges to learn; fewer when no pair occurs twice any more.

    Returns:
        vocabulary (token to id) and merges, in the order in which they apply.
    """
    from tokenizers import Tokenizer, trainers
    from tokenizers.models import BPE

    symbols = byte_symbols()
    base = symbols + [symbol + END_OF_WORD for symbol in symbols]
    learner = Tokenizer(BPE(end_of_word_suffix=END_OF_WORD))
    # Normalised and split exactly as CLIPTokenizer does at inference.
    from transformers import CLIPTokenizer

    reference = CLIPTokenizer(vocab={token: i for i, token in enumerate([*base, START, END])}, merges=[])
    learner.normalizer = reference.backend_tokenizer.normalizer
    learner.pre_tokenizer = reference.backend_tokenizer.pre_tokenizer
    # The trainer numbers `x</w>` symbols in the order of a hash map, which breaks ties between equally
    # frequent pairs at random. Given as special tokens, all the base symbols have their numbers beforehand.
    trainer = trainers.BpeTrainer(
        vocab_size=len(base) + merges,
        min_frequency=2,
        show_progress=False,
        special_tokens=base,
        end_of_word_suffix=END_OF_WORD,
    )
    learner.train_from_iterator(captions, trainer)
    model = json.loads(learner.to_str())["model"]
    pairs = [tuple(pair) if isinstance(pair, list) else tuple(pair.split(" ")) for pair in model["merges"]]
    tokens = list(dict.fromkeys([*base, *("".join(pair) for pair in pairs), START, END]))
    return {token: number for number, token in enumerate(tokens)}, pairs


def write_tokenizer(folder: Path, vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> None:
    """Writes vocab.json, merges.txt and the settings for transformers; vocab.json last: where it is, all are there."""
    special = {"bos_token": START, "eos_token": END, "pad_token": END, "unk_token": END}
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": MAX_TOKENS, **special}
    files = {
        "merges.txt": "\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges)]),
        "tokenizer_config.json": json.dumps(settings, indent=2),
        "special_tokens_map.json": json.dumps(special, indent=2),
        "vocab.json": json.dumps(vocabulary, ensure_ascii=False),
    }
    for name, text in files.items():
        with replacing(folder / name) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")


def load_tokenizer(folder: Path) -> CLIPTokenizer:
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(folder)


def distinct_captions(captions: Sequence[str]) -> tuple[list[str], list[int]]:
    """The distinct captions in order of appearance, and for each caption its place among them."""
    place = {caption: i for i, caption in enumerate(dict.fromkeys(captions))}
    return list(place), [place[caption] for caption in captions]
