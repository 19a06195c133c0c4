"""The command line's words before Hydra reads them: a prompt is text, and so is a folder.

Hydra's grammar gives meaning to commas, brackets, quotes and more. `prompt=TEXT` keeps it away from a prompt in any
script and with any punctuation; folders and the negative prompt are put in quotes where Hydra would not read them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

from baselines import METHODS, facts
from experiments.common.shipped import shipped
from experiments.plan.prompt_file import Line, read_prompts
from syncdiffusion.errors import UsageError
from syncdiffusion.prompts import checked_prompt

FOLDERS = (
    "run_dir",
    "shared_dir",
    "backbone.path",
    "metrics.clip_folder",
    "metrics.dino",
    "metrics.hps_file",
    "pictures",
    "reference.pictures",
    "reference.features",
)
GROUPS = ("backbone", "experiment", "method", "metrics", "prompts", "tracking")
MULTIRUN = {"-m", "--multirun"}
VALUED = {  # Hydra's own options that a value follows
    *("--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd"),
}
INFO = {"--info", "-i"}  # which a value may follow
ALONE = {
    *("--help", "-h", "--hydra-help", "--version", "--resolve", "--run", "-r", "--multirun", "-m"),
    *("--shell-completion", "-sc"),
}
OPTIONS = VALUED | INFO | ALONE
NOT_HERE = {"hydra.run.dir", "hydra.sweep.dir"}


def plain_words(words: Sequence[str]) -> list[str]:
    """The same command line, which Hydra can read: its options behind the settings, wherever they were typed.

    `prompt=TEXT`, any number of times, and `prompt_file=FILE` (see `read_prompts`) become `prompts.texts=[...]`, with
    `prompts.seeds` and `prompts.ids` where a file has some.

    Raises:
        UsageError: an empty prompt, a file that cannot be read, a word that Hydra cannot read: says how to quote it.
    """
    prompts: list[Line] = []
    kept: list[str] = []
    sweep = not MULTIRUN.isdisjoint(words)
    chosen = None
    settings, options = parted(words)
    for word in settings:
        setting, equals, text = word.partition("=")
        if setting.lstrip("+~") in NOT_HERE:
            raise UsageError(f"{word}: the run folder is chosen by run_dir; give run_dir=FOLDER")
        if equals and setting == "prompts":
            chosen = text
        if word == "experiment=null":
            continue  # as if nothing had been typed
        if setting in GROUPS and equals and readable(word) and not is_choice(word):
            raise UsageError(f"{word}: is no name; choose from {', '.join(choices(setting))}")
        if setting == "prompt" and equals:
            prompts.append(Line(checked_prompt(text)))
        elif setting == "prompt_file" and equals:
            prompts += read_prompts(text)
        elif (setting in FOLDERS or names_file(setting)) and not readable(word):
            kept.append(f"{setting}={quoted(text)}")
        elif setting == "negative_prompt" and not sweep and not is_quoted(text):
            kept.append(f"{setting}={quoted(text)}")
        else:
            if equals and not readable(word):
                raise UsageError(unreadable(word))
            kept.append(word)
    if prompts and chosen is not None:
        raise UsageError(f"prompts={chosen}: prompts are typed as well; give the one or the other")
    if prompts:
        kept += ["prompts.name=typed", *prompt_settings(prompts)]
    return [*kept, *options]


def parted(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Settings, and Hydra's options with their values: between settings argparse would not know them.

    Raises:
        UsageError: a word with dashes that is no option.
    """
    settings: list[str] = []
    options: list[str] = []
    before = ""
    for word in words:
        if before in VALUED or (before in INFO and not (word.startswith("-") or "=" in word)):
            options.append(word)
            before = ""
            continue
        check_dashes(word)
        (options if word.startswith("-") else settings).append(word)
        before = word
    return settings, options


def overruled(words: Sequence[str]) -> list[str]:
    """What is to be told of settings that were typed twice: of a command and what is added to it the last counts.

    >>> overruled(["steps=3", "prompt=a", "prompt=b", "steps=2", "tracking=disabled", "tracking=disabled"])
    ['steps=3: typed before steps=2, which counts']
    """
    given: dict[str, str] = {}
    found = []
    for word in words:
        setting, equals, _ = word.partition("=")
        if not equals or setting.startswith("-") or setting in ("prompt", "prompt_file"):
            continue
        if given.get(setting, word) != word:
            found.append(f"{given[setting]}: typed before {word}, which counts")
        given[setting] = word
    return found


def check_dashes(word: str) -> None:
    """Refuse a setting with dashes before it, which argparse might take for the beginning of an option of Hydra's."""
    name = word.partition("=")[0]
    if name.startswith("-") and name not in OPTIONS:
        setting = name.lstrip("-").replace("-", "_")
        raise UsageError(f"{name}: no such option; settings have no dashes: {setting}=VALUE (--help lists them)")
    if word.startswith("="):
        raise UsageError(f"'{word}': names no setting; write setting=value")


def prompt_settings(lines: Sequence[Line]) -> list[str]:
    """The settings of typed prompts. Lines of one prompt that name seeds are one prompt with several seeds."""
    seeds: dict[str, list[int]] = {}
    ids: dict[str, str] = {}
    texts: list[str] = []
    for line in lines:
        if line.prompt in seeds and (line.seed is None) != (not seeds[line.prompt]):
            raise UsageError(
                f"prompt_file: '{line.prompt}' has a seed in one line and none in another; give all its lines one, or "
                "name it once"
            )
        if line.seed is None or line.prompt not in seeds:
            texts.append(line.prompt)  # twice, where it was typed twice: refused with all other prompts
        if line.name:
            if ids.setdefault(line.prompt, line.name) != line.name:
                both = f"{ids[line.prompt]} and {line.name}"
                raise UsageError(f"prompt_file: '{line.prompt}' has the ids {both}; an id names a prompt, give it one")
        seeds.setdefault(line.prompt, []).extend([] if line.seed is None else [line.seed])
    words = [f"prompts.texts=[{','.join(map(quoted, texts))}]"]
    if any(seeds.values()):
        words.append(f"prompts.seeds={[seeds[text] for text in texts]}".replace(" ", ""))
    if ids:
        words.append(f"prompts.ids=[{','.join(quoted(ids.get(text, '')) for text in texts)}]")
    return words


def names_file(setting: str) -> bool:
    """Whether the value of a setting of any method is a file's name."""
    name = setting.rpartition(".")[2]
    return any(facts(method, name).file for method in METHODS)


def is_choice(word: str) -> bool:
    """Whether the value of a word is a name, or names to be swept over."""
    override = OverridesParser.create().parse_overrides([word])[0]
    return override.is_sweep_override() or isinstance(override.value(), str)


def sweeps(word: str) -> bool:
    """Whether a word gives several values, a job each."""
    return OverridesParser.create().parse_overrides([word])[0].is_sweep_override()


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
