"""Methods, metrics and losses from files outside the repository: `plugins=[my_method.py]`.

A plugin is a Python file with a `METHOD` (`syncdiffusion.method.Method`), a `METRIC`, a `LOSS`
(`syncdiffusion.perceptual.catalogue.ImageLoss`), or several of them. It is run: give files that you trust. Its method
gets a schema, help, a dry run, a title and a mark in figures as the built-in ones do.
"""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import baselines
from syncdiffusion.errors import UsageError
from syncdiffusion.files import content_of, place_of
from syncdiffusion.method import Method
from syncdiffusion.perceptual.catalogue import ImageLoss, register_loss
from syncdiffusion.settings import each_of

if TYPE_CHECKING:
    from experiments.metrics.metric import AnyMetric

_loaded: dict[Path, ModuleType] = {}
_code: dict[tuple[str, str], str] = {}  # ("method" or "loss", its name) -> SHA-256 of the file that it came from


def code_of(method: str, settings: Mapping[str, Any]) -> dict[str, str]:
    """Digests of the plugins that a method with these settings comes from, by what each gives; empty of built-in ones.

    They decide the picture: an edited plugin makes its panoramas anew. What a plugin imports is not looked at.
    """
    losses = settings.get("loss")
    named = [("method", method), *(("loss", str(each)) for each in each_of(losses))]
    return {" ".join(each): _code[each] for each in named if each in _code}


def plugins_of(words: Sequence[str]) -> list[str]:
    """The files that a command line's `plugins=[...]` names; needed before the configuration can be composed.

    >>> plugins_of(["steps=3", "plugins=[a.py,b.py]"]), plugins_of(["plugins=a.py"]), plugins_of(["seeds.count=2"])
    (['a.py', 'b.py'], ['a.py'], [])
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import OverrideParseException

    found: list[str] = []
    for word in words:
        if word.lstrip("+").partition("=")[0] != "plugins":
            continue
        try:
            value = OverridesParser.create().parse_overrides([word])[0].value()
        except OverrideParseException:
            continue  # Hydra will say so
        found = [str(each) for each in value] if isinstance(value, list) else [str(value)]
    return found


def load_plugins(files: Sequence[str]) -> None:
    """Run each file once and register what it holds.

    Raises:
        UsageError: no such file, one that fails, one without METHOD, METRIC or LOSS, or with a name that is taken.
    """
    for name in files:
        path = place_of(name).resolve()
        if path not in _loaded:
            digest = content_of(path) if path.is_file() else ""  # before it runs: of the code that does
            _loaded[path] = _run(name, path)
            _register(name, _loaded[path], digest)


def _run(name: str, path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError(f"plugins={name}: no such file; give a Python file")
    # A name of its own: two plugins may have the same file name, and dataclasses look their module up.
    module_name = f"plugin_{path.stem}_{sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"plugins={name}: not a Python file; its name must end in .py")
    module = sys.modules[module_name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[module_name]
        frames = [each for each in traceback.extract_tb(error.__traceback__) if each.filename == str(path)]
        line = f", line {frames[-1].lineno}" if frames else ""
        raise UsageError(f"plugins={name}{line}: {type(error).__name__}: {error}") from error
    return module


def of_code(metric: AnyMetric, digest: str) -> AnyMetric:
    """A plugin's metric whose values are kept under the digest of its file, unless it takes those of another."""
    from experiments.metrics.catalogue import DEFINED
    from experiments.metrics.metric import PairMetric

    if isinstance(metric, PairMetric):
        return replace(metric, code=digest)
    known = [each.measurement for each in DEFINED.values() if not isinstance(each, PairMetric)]
    return (
        metric if metric.measurement in known else replace(metric, measurement=replace(metric.measurement, code=digest))
    )


def _register(name: str, module: ModuleType, digest: str) -> None:
    from experiments.metrics import catalogue
    from experiments.metrics.metric import PairMetric, PanoramaMetric, SetMetric
    from experiments.plan.schema import register_method

    method = getattr(module, "METHOD", None)
    metric = getattr(module, "METRIC", None)
    loss = getattr(module, "LOSS", None)
    if method is None and metric is None and loss is None:
        raise UsageError(f"plugins={name}: neither METHOD nor METRIC nor LOSS in it; see CONTRIBUTING.md")
    kinds = (
        ("METHOD", method, (Method,)),
        ("METRIC", metric, (PanoramaMetric, SetMetric, PairMetric)),
        ("LOSS", loss, (ImageLoss,)),
    )
    for what, found, kind in kinds:
        if found is not None and not isinstance(found, kind):
            wanted = " or ".join(each.__name__ for each in kind)
            raise UsageError(f"plugins={name}: {what} is {found!r}, no {wanted}; see CONTRIBUTING.md")
    if method is not None:
        register_method(baselines.register(method), choice=True)
        _code["method", method.name] = digest
    if metric is not None:
        catalogue.register(of_code(metric, digest))
    if loss is not None:
        register_loss(loss)
        _code["loss", loss.name] = digest
