"""The command line's words before Hydra reads them: a prompt is text, and so is a folder.

Hydra's grammar gives meaning to commas, brackets, quotes and more. `prompt=TEXT` keeps it away from a prompt in any
script and with any punctuation; folders and the negative prompt are put in quotes where Hydra would not read them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

from baselines import METHODS, facts
from experiments.common.shipped import shipped
from syncdiffusion.errors import UsageError

FOLDERS = ("run_dir", "shared_dir", "backbone.path", "metrics.clip_folder")
GROUPS = ("backbone", "experiment", "method", "metrics", "prompts", "tracking")
MULTIRUN = {"-m", "--multirun"}


def plain_words(words: Sequence[str]) -> list[str]:
    """The same command line, which Hydra can read.

    `prompt=TEXT`, any number of times, and `prompt_file=FILE`, a prompt a line, become `prompts.texts=[...]`.

    Raises:
        UsageError: an empty prompt, a file that cannot be read, a word that Hydra cannot read: says how to quote it.
    """
    prompts: list[str] = []
    kept: list[str] = []
    sweep = not MULTIRUN.isdisjoint(words)
    for word in words:
        setting, equals, text = word.partition("=")
        if word == "experiment=null":
            continue  # as if nothing had been typed
        if setting in GROUPS and equals and readable(word) and not is_choice(word):
            raise UsageError(f"{word}: is no name; choose from {', '.join(choices(setting))}")
        if setting == "prompt" and equals:
            prompts.append(checked(text, "prompt"))
        elif setting == "prompt_file" and equals:
            prompts += from_file(text)
        elif (setting in FOLDERS or names_file(setting)) and not readable(word):
            kept.append(f"{setting}={quoted(text)}")
        elif setting == "negative_prompt" and not sweep and not is_quoted(text):
            kept.append(f"{setting}={quoted(text)}")
        else:
            if equals and not word.startswith("-") and not readable(word):
                raise UsageError(unreadable(word))
            kept.append(word)
    if prompts:
        kept += ["prompts.name=typed", f"prompts.texts=[{','.join(map(quoted, prompts))}]"]
    return kept


def names_file(setting: str) -> bool:
    """Whether the value of a setting of any method is a file's name."""
    name = setting.rpartition(".")[2]
    return any(facts(method, name).file for method in METHODS)


def is_choice(word: str) -> bool:
    """Whether the value of a word is a name, or names to be swept over."""
    override = OverridesParser.create().parse_overrides([word])[0]
    return override.is_sweep_override() or isinstance(override.value(), str)


def choices(group: str) -> list[str]:
    """The files of a group of ``conf/``."""
    return sorted(path.stem for path in (shipped("conf") / group).glob("*.yaml"))


def quoted(text: str) -> str:
    """A text in Hydra's quotes, with nothing in it that OmegaConf would take for a reference.

    >>> quoted("a lake, at 'dawn'")
    "'a lake, at \\\\'dawn\\\\''"
    """
    plain = re.sub(r"(\\*)\$\{", lambda found: 2 * found[1] + r"\${", text)
    return QuotedString(plain, Quote.single).with_quotes()


def is_quoted(text: str) -> bool:
    return len(text) > 1 and text[0] in "'\"" and text[-1] == text[0]


def readable(word: str) -> bool:
    """Whether Hydra can read a word `setting=value`."""
    try:
        OverridesParser.create().parse_overrides([word])
    except HydraException:
        return False
    return True


def unreadable(word: str) -> str:
    """What is wrong with a word that Hydra cannot read, and how it reads in quotes."""
    setting, _, text = word.partition("=")
    culprit = next((each for each in text if each not in "[]{}(),'\"" and not readable(f"x=a{each}a")), "")
    if setting.startswith("prompts"):
        advice = f'give prompt="{text.strip("[]")}"'
    else:
        advice = f"in a shell: '{setting}={quoted(text)}'" if "'" not in text else f'"{setting}={quoted(text)}"'
    where = f"'{culprit}' needs quotes" if culprit else "a bracket or a quote is left open"
    return f"'{word}': not of the form setting=value ({where}); {advice}"


def from_file(name: str) -> list[str]:
    """The prompts of a file, one a line; empty lines do not count."""
    path = Path(name).expanduser()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise UsageError(f"prompt_file={name}: not UTF-8 text; save it as UTF-8") from None
    except OSError as error:
        raise UsageError(f"prompt_file={name}: cannot be read ({error.strerror}); give a text file") from None
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise UsageError(f"prompt_file={name}: no prompt in it; write one a line")
    return found


def checked(text: str, setting: str) -> str:
    if not text.strip():
        raise UsageError(f"{setting}={text}: is empty; say what the panorama shows")
    try:
        text.encode()
    except UnicodeEncodeError:  # bytes of another encoding reach Python as lone surrogates
        raise UsageError(f"{setting}: is not UTF-8 text; use a terminal that speaks UTF-8") from None
    return text
