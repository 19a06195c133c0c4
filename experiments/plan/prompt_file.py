"""A file of prompts: a prompt a line, or JSON lines such as ``{"prompt": "a lake", "seed": 3, "id": "lake"}``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from syncdiffusion.errors import UsageError
from syncdiffusion.files import place_of
from syncdiffusion.prompts import checked_prompt

JSON_LINES = (".jsonl", ".ndjson")
KEYS = {"prompt": str, "seed": int, "id": str}


@dataclass(frozen=True)
class Line:
    """One prompt. seed: the first of its seeds, None for the run's. name: what the file calls it, "" for nothing."""

    prompt: str
    seed: int | None = None
    name: str = ""


def read_prompts(name: str) -> list[Line]:
    """The prompts of a file; empty lines do not count.

    It is read as JSON lines where its name ends so, or its first line opens a JSON object.

    Raises:
        UsageError: it cannot be read, has no prompt, or a line of it is not as it must be.
    """
    try:
        # Not splitlines, which also parts at marks that stand within a prompt, as U+2028.
        lines = place_of(name).read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError:
        raise UsageError(f"prompt_file={name}: not UTF-8 text; save it as UTF-8") from None
    except OSError as error:
        raise UsageError(f"prompt_file={name}: cannot be read ({error.strerror}); give a text file") from None
    numbered = [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]
    if not numbered:
        raise UsageError(f"prompt_file={name}: no prompt in it; write one a line")
    if name.lower().endswith(JSON_LINES) or numbered[0][1].startswith("{"):
        return [json_line(line, f"prompt_file={name}, line {number}") for number, line in numbered]
    return [Line(line) for _, line in numbered]


def json_line(text: str, where: str) -> Line:
    """A line of a file of JSON lines; `where` names it in errors."""
    try:
        found: Any = json.loads(text)
    except ValueError as error:
        raise UsageError(f'{where}: not JSON ({error}); write {{"prompt": "a lake"}}') from None
    if not isinstance(found, dict) or "prompt" not in found:
        raise UsageError(f'{where}: no prompt; write {{"prompt": "a lake"}}')
    for key, value in found.items():
        if key not in KEYS:
            raise UsageError(f"{where}: {key} is not known; a line has {', '.join(KEYS)}")
        if not isinstance(value, KEYS[key]) or isinstance(value, bool):
            raise UsageError(f"{where}: {key}={value}: must be {'text' if KEYS[key] is str else 'a whole number'}")
    return Line(checked_prompt(found["prompt"], f"{where}: prompt"), found.get("seed"), found.get("id", ""))
