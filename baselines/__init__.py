"""Every method by name. Nothing here imports torch.

    METHODS["multidiffusion"].generate(backbone, prompts, seeds, MultiDiffusionSettings(width=2048))

A method is a file: in this folder, or anywhere else as a plugin. The file holds a frozen dataclass of settings,
`sample`, `calls`, and a `METHOD` that describes it (see `syncdiffusion.method.Method`); CONTRIBUTING.md walks through
one. Files of this folder are found by themselves.
"""

from __future__ import annotations

import importlib
import pkgutil

from syncdiffusion import sync
from syncdiffusion.errors import UsageError
from syncdiffusion.method import Method
from syncdiffusion.settings import Facts, facts_of

METHODS: dict[str, Method] = {}
# Other names of methods, for who does not care which; conf/method has a file of the same name for each.
PRESETS = {"fast": "profile_matching", "fastest": "shifted_matching"}


def register(method: Method) -> Method:
    """Add a method to the catalogue; the same one again changes nothing.

    Raises:
        UsageError: another method has its name.
    """
    if METHODS.setdefault(method.name, method) is not method:
        raise UsageError(f"method {method.name}: there is one of that name ({METHODS[method.name].source}); rename it")
    return method


def method_named(name: str) -> Method:
    """The method of a name, or of a preset's.

    Raises:
        UsageError: there is none.
    """
    found = METHODS.get(PRESETS.get(name, name))
    if found is None:
        raise UsageError(f"method={name}: use one of {', '.join(sorted([*METHODS, *PRESETS]))}")
    return found


def facts(method: str, setting: str) -> Facts:
    """What is known of a method's setting; nothing of an unknown one, as in results of a plugin that is not there."""
    return facts_of(METHODS[method].settings).get(setting, Facts("")) if method in METHODS else Facts("")


def _find() -> None:
    register(sync.METHOD)
    for found in pkgutil.iter_modules(__path__):
        if not found.ispkg:
            register(importlib.import_module(f"{__name__}.{found.name}").METHOD)


_find()
