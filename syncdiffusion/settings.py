"""What a setting is: a field of a frozen dataclass that carries everything that is known of it.

The configuration's schema and help, the check of values, table titles, axis labels and a panorama's key are all read
from here, so that a fact of a setting stands in one place. Which settings methods have: `method_settings`. Nothing here
imports torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_type_hints

from syncdiffusion.errors import UsageError

PRECISION_NAMES = ("float64", "float32", "tf32", "float16", "bfloat16")  # torch's dtypes, and CUDA's shorter float32
AUTO = "auto"  # of a number: as the machine and the model have it


@dataclass(frozen=True)
class Facts:
    """What is known of a setting besides its type and its default.

    means: one line for help.
    choices: the words that it may be, in a mapping that grows where plugins add to them; empty for anything of its
        type.
    least, most: bounds of a number, themselves allowed; above, below: bounds that are not.
    symbol: what tables call it; "" for its own name.
    axis: the label of an axis over its values; "" for its own name.
    null: what None means, in labels; "" for "null".
    speed_only: it decides time and memory and not the picture, up to rounding; such settings are not in a key.
    added: a setting that came after panoramas had been made has its value of then: at that value it is as if it
        were not there, and old keys stay good. (value,), or () for a setting that was always there.
    shared: the run has one value of it for all methods, under the same name.
    file: it names a file. A key holds the hash of the file's content, a record its name and hash, neither its place.
    picture: the file is a picture, which is looked at before the work begins.
    names: every file that decides what the named one says, where that names others, or is a folder; of a value that is
        no file (a hub id) None. Without it: the file alone.
    many: it may be a list of such values.
    """

    means: str
    choices: Collection[str] = ()
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    symbol: str = ""
    axis: str = ""
    null: str = ""
    speed_only: bool = False
    added: tuple[Any, ...] = ()
    shared: bool = False
    file: bool = False
    picture: bool = False
    names: Callable[[str], Sequence[Path] | None] | None = None
    many: bool = False


def setting(default: Any, means: str, **facts: Any) -> Any:
    """A field of a settings dataclass: its default, one line of what it means, and what else `Facts` holds."""
    return field(default=default, metadata={"facts": Facts(means, **facts)})


def facts_of(settings: type) -> dict[str, Facts]:
    """The facts of every field of a settings dataclass; of a field without `setting` they are empty."""
    return {each.name: each.metadata.get("facts", Facts("")) for each in fields(settings)}


def _types(settings: type) -> dict[str, tuple[type, ...]]:
    """The types that each field of a settings dataclass may have."""
    hints = get_type_hints(settings)
    return {
        each.name: get_args(hints[each.name]) if isinstance(hints[each.name], UnionType) else (hints[each.name],)
        for each in fields(settings)
    }


def check_settings(settings: Any) -> None:
    """Refuse a value of the wrong type or outside its bounds.

    Raises:
        UsageError: names the setting, its value and what would do.
    """
    for name, facts in facts_of(type(settings)).items():
        types = _types(type(settings))[name]
        for value in each_of(getattr(settings, name)) if facts.many else (getattr(settings, name),):
            if not (_has_type(value, types) and _is_allowed(value, facts)):
                raise UsageError(f"{name}={value}: use {allowed(facts, types)}")


def each_of(value: Any) -> list[Any]:
    """The values of a setting that may be a list of them.

    >>> each_of("a"), each_of(["a", "b"]), each_of(None)
    (['a'], ['a', 'b'], [None])
    """
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]


def _has_type(value: Any, types: Sequence[type]) -> bool:
    if isinstance(value, bool) or value is None:
        return (bool if value is not None else NoneType) in types
    if isinstance(value, str):
        return str in types
    # A whole number may stand where a number is wanted; NumPy's numbers are numbers too.
    return (isinstance(value, Integral) and (int in types or float in types)) or (
        isinstance(value, Real) and float in types
    )


def _is_allowed(value: Any, facts: Facts) -> bool:
    if value is None or isinstance(value, bool):
        return True
    if isinstance(value, str):
        return not facts.choices or value in facts.choices
    number = value if isinstance(value, int) else float(value)  # a whole number may be beyond float's range
    return (
        (isinstance(number, int) or math.isfinite(number))
        and (facts.least is None or number >= facts.least)
        and (facts.most is None or number <= facts.most)
        and (facts.above is None or number > facts.above)
        and (facts.below is None or number < facts.below)
    )


def allowed(facts: Facts, types: Sequence[type]) -> str:
    """The values that a setting may have, in words.

    >>> allowed(Facts("", least=1), (int,)), allowed(Facts("", above=0, most=1), (float,))
    ('1 or more', 'a number above 0 and up to 1')
    """
    words = []
    if int in types or float in types:
        words.append(_range(facts, "a whole number" if int in types else "a number"))
    elif bool in types:
        words.append("true or false")
    if facts.choices:
        one_of = "" if len(facts.choices) == 1 else "one of "
        words.append(one_of + ", ".join(facts.choices))
    elif str in types:
        words.append("text")
    if NoneType in types:
        words.append(f"null for {facts.null}" if facts.null else "null")
    return ", or ".join(words)


def _range(facts: Facts, kind: str) -> str:
    low, high = facts.least, facts.most
    if low is not None and high is None and facts.below is None:
        return f"{low:g} or more"
    if low is not None and high is not None:
        return f"{low:g} to {high:g}"
    if facts.above is not None and facts.below is not None:
        return f"{kind} between {facts.above:g} and {facts.below:g}"
    lower = "" if low is None else f" from {low:g}"
    lower = lower if facts.above is None else f" above {facts.above:g}"
    upper = "" if high is None else f" up to {high:g}"
    upper = upper if facts.below is None else f" below {facts.below:g}"
    return kind + " and".join(filter(None, (lower, upper)))


def written(value: Any) -> str:
    """A setting's value as it is given on the command line.

    >>> written(None), written(True), written(1), written(20.0), written("off")
    ('null', 'true', '1', '20', 'off')
    """
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def label_of(name: str, facts: Facts, value: Any) -> str:
    """A setting's value as a label.

    >>> label_of("first_n", Facts("", null="all"), None), label_of("weight", Facts(""), 20.0)
    ('first_n=all', 'weight=20')
    """
    if value is None:
        return f"{name}={facts.null or 'null'}"
    if facts.many and len(each_of(value)) > 1:
        return f"{name}=" + "+".join(label_of(name, facts, each).removeprefix(f"{name}=") for each in value)
    if facts.file:
        return f"{name}={Path(value).name}"
    return f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
