"""A user's mistake told in one line: setting, value, what would do; Hydra's, OmegaConf's and argparse's words too."""

from __future__ import annotations

import difflib
import errno
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, is_dataclass
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from syncdiffusion.errors import UsageError
from syncdiffusion.signals import unread

Words = ParamSpec("Words")
Status = TypeVar("Status")

KINDS = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false", "String": "text"}


def one_line_errors(exits: bool = False) -> Callable[[Callable[Words, Status]], Callable[Words, Status | int]]:
    """Decorates a `main`, which then tells a UsageError in one line on stderr and ends with status 2.

    A reader of its stdout that has gone, as of `| head`, is no error: the status is 141, without a word.

    exits: the status goes out by SystemExit, for a `main` that returns none; else it is returned.
    """

    def decorate(main: Callable[Words, Status]) -> Callable[Words, Status | int]:
        @wraps(main)
        def told(*words: Words.args, **named: Words.kwargs) -> Status | int:
            try:
                status = main(*words, **named)
                sys.stdout.flush()
                return status
            except UsageError as error:
                print(f"error: {error_line(error)}", file=sys.stderr)
                failed = 2
            except BrokenPipeError:
                failed = unread()
            if exits:
                raise SystemExit(failed)
            return failed

        return told

    return decorate


def error_line(error: BaseException, overrides: Sequence[str] = ()) -> str | None:
    """One line for a mistake of the user's, None for anything else (a defect: it deserves its traceback).

    `overrides` are the command line's `setting=value` words; they supply the value where the library drops it.
    """
    if isinstance(error, UsageError):
        return _flat(str(error))
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        if not group:
            return (
                f"--config-name={choice}: no such file; leave it out, and choose by experiment=NAME (--help lists them)"
            )
        known = sorted(error.options or [])
        return f"{group}={choice}: no such choice; choose from {', '.join(known)}{_nearest(choice, known)}"
    if isinstance(error, OverrideParseException):
        return f"'{error.override}': not of the form setting=value (quote values that hold , = {{ or [)"
    if isinstance(error, ConfigCompositionException) and isinstance(error.__cause__, OmegaConfBaseException):
        return _config_line(error.__cause__, overrides)
    file = re.match(r"In '(\w+)/(\w+)'", str(error))  # what a file sets, such as a setting that the method has not
    if isinstance(error, ConfigCompositionException) and file and isinstance(error.__context__, OmegaConfBaseException):
        return f"{file[1]}={file[2]}: {_config_line(error.__context__, overrides)}"
    if isinstance(error, OmegaConfBaseException):
        return _config_line(error, overrides)
    if isinstance(error, HydraException):
        return _flat(str(error))
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:  # Hydra looks for a file of every group
        return "a name on the command line is longer than a file's name may be; give a shorter one"
    return None


def refuse_unknown(node: Any, path: str = "") -> None:
    """Refuse keys that no schema knows; `+setting=value` gets them past Hydra's own check."""
    if not isinstance(node, DictConfig) or node._is_none() or node._is_missing():
        return
    schema = OmegaConf.get_type(node)
    known = [each.name for each in fields(schema)] if is_dataclass(schema) else None
    for key in node:
        if known is not None and key not in known:
            raise UsageError(unknown_setting(f"{path}{key}", str(key), known))
        if not OmegaConf.is_missing(node, key) and not OmegaConf.is_interpolation(node, key):
            refuse_unknown(node[key], f"{path}{key}.")


def unknown_setting(setting: str, key: str, known: Iterable[str]) -> str:
    names = sorted(str(name) for name in known)
    return f"{setting}: no such setting{_nearest(key, names)}; there are {', '.join(names) or 'none yet: + adds one'}"


def _config_line(error: OmegaConfBaseException, overrides: Sequence[str]) -> str:
    setting, value = _typed(str(error.full_key or error.key), overrides)
    named = setting if value is None else f"{setting}={value}"
    if isinstance(error, (ConfigKeyError, ConfigAttributeError)):
        parent = error.parent_node
        known = list(parent.keys()) if isinstance(parent, DictConfig) else []
        return unknown_setting(named, setting.rpartition(".")[2], known)
    if isinstance(error, MissingMandatoryValue):
        return f"{setting}: no value; give {setting}=VALUE"
    text = _flat(str(error).partition("full_key:")[0])
    converted = re.search(r"Value '(.*)' of type '\w+' could not be converted to (\w+)", text)
    if converted:
        return f"{setting}={converted[1]}: must be {KINDS.get(converted[2], converted[2])}"
    if "is not a ListConfig" in text:
        return f"{named}: must be a list; give {setting}=[{'VALUE' if value is None else value}]"
    if re.search(r"is not a subclass of \w+|Cannot assign \w+ to Dict", text):
        return f"{named}: holds settings of its own; give {setting}.SETTING=VALUE (--help lists them)"
    return f"{named}: {text}"


def _typed(key: str, overrides: Sequence[str]) -> tuple[str, str | None]:
    """A setting as it was typed, and its value; OmegaConf tells of a dictionary's entry the last name alone."""
    words = [word.lstrip("+").partition("=") for word in overrides]
    for matches in (lambda setting: setting == key, lambda setting: setting.endswith(f".{key}")):
        for setting, _, value in words:
            if matches(setting):
                return setting, value
    return key, None


def _nearest(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _flat(text: str) -> str:
    return " ".join(text.split())
