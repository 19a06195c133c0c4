"""Prompts: is it text, and does the model know its words? Nothing here imports torch.

A folder in diffusers' layout may hold ``words.txt``, the words that its model was trained on, one a line; lines that
begin with # are remarks. The embedded miniature does. What a model knows does not change what it is, so the file is no
part of its fingerprint. Without it, as in hub repositories, nothing is said of any word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from syncdiffusion.backbones.model_files import configurations
from syncdiffusion.errors import UsageError

WORDS_FILE = "words.txt"
MOST_TOLD = 12  # unknown words that are named; of more their number is told


def checked_prompt(prompt: str, setting: str = "prompt") -> str:
    """The prompt; UsageError, which names `setting`, for an empty one or one that is no text."""
    if not prompt.strip():
        raise UsageError(f"{setting}: is empty; say what the panorama shows")
    try:
        prompt.encode()
    except UnicodeEncodeError:  # bytes of another encoding reach Python as lone surrogates
        raise UsageError(f"{setting}: is not UTF-8 text; use a terminal that speaks UTF-8") from None
    return prompt


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, each once, in their order. Numbers and signs are none.

    >>> words_of("A photo of the artist's garden, a garden!")
    ['a', 'photo', 'of', 'the', "artist's", 'garden']
    """
    return list(dict.fromkeys(re.findall(r"[^\W\d_]+(?:['’][^\W\d_]+)*", text.lower())))


def known_words(source: Path | str) -> frozenset[str] | None:
    """The words that a model was trained on, as its folder tells; None where it does not.

    source: the model's folder or single file, or a hub id.

    Raises:
        UsageError: a file that is no text.
    """
    if isinstance(source, str):
        return None
    path = configurations(source) / WORDS_FILE
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read ({error}); mend it or remove it") from None
    return frozenset(line.strip().lower() for line in lines if line.strip() and not line.startswith("#"))


def unknown_words_line(source: Path | str, prompts: Iterable[str]) -> str | None:
    """One line that names the words of the prompts that the model was not trained on; None where there are none.

    source: the model's folder, or a hub id, of whose words nothing is known.
    """
    known = known_words(source)
    if known is None:
        return None
    strange = list(dict.fromkeys(word for prompt in prompts for word in words_of(prompt) if word not in known))
    if not strange:
        return None
    named = ", ".join(strange[:MOST_TOLD])
    more = f" and {len(strange) - MOST_TOLD} more" if len(strange) > MOST_TOLD else ""
    return (
        f"this model was not trained on: {named}{more}; the picture cannot follow them. "
        f"The words that it knows: {configurations(Path(source)) / WORDS_FILE}"
    )
