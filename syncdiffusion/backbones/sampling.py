"""The settings that suit a model better than the methods' own defaults, told by the model's folder.

A folder in diffusers' layout may hold ``sampling.json``: settings for "every_method", and more by the name of a method.
The embedded miniature does. Without the file, as in hub repositories, the methods' defaults hold: they are Stable
Diffusion's. What is sampled with does not change what a model is, so the file is no part of its fingerprint. Nothing
here imports torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from syncdiffusion.backbones.model_files import configurations
from syncdiffusion.errors import UsageError

SAMPLING_FILE = "sampling.json"
EVERY_METHOD = "every_method"


def sampling_defaults(source: Path | str, method: str, settings: type) -> dict[str, Any]:
    """Settings of a method that the model asks for.

    Args:
        source: the model's folder or file, or a hub id, for which nothing is known.
        method: the method's name.
        settings: its settings dataclass; what it does not have is left out.

    Raises:
        UsageError: a file that is not JSON of this shape.
    """
    path = configurations(Path(source)) / SAMPLING_FILE
    if isinstance(source, str) or not path.is_file():
        return {}
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read ({error}); mend it or remove it") from None
    if not isinstance(told, Mapping) or not all(isinstance(each, Mapping) for each in told.values()):
        raise UsageError(f"{path}: must hold an object of settings for each method, or for '{EVERY_METHOD}'")
    known = {each.name for each in fields(settings)}
    chosen = {**told.get(EVERY_METHOD, {}), **told.get(method, {})}
    return {name: value for name, value in chosen.items() if name in known}
