"""The model of a run: which it is, told without loading it, and the loading."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from experiments.common.progress import say_step
from experiments.common.signals import importing
from experiments.panoramas.index import named_model
from experiments.panoramas.records import ModelFacts
from experiments.plan.plan import naming_path
from syncdiffusion.backbones.adapters import adapters_of
from syncdiffusion.backbones.model_files import find_model, fingerprint
from syncdiffusion.errors import UsageError
from syncdiffusion.files import place_of
from syncdiffusion.prompts import unknown_words_line

if TYPE_CHECKING:
    from syncdiffusion.backbones.backbone import Backbone


def load_libraries(stage: str) -> None:
    """Import what takes seconds, where it is not there already, and say so."""
    if "torch" in sys.modules and "diffusers" in sys.modules:
        return
    say_step(stage, "loading libraries")
    with importing():
        import diffusers  # noqa: F401

        import baselines  # noqa: F401
        import syncdiffusion.backbones.loading  # noqa: F401


def open_backbone(config: Mapping[str, Any]) -> Backbone:
    """Load the model that a `backbone` section names; UsageError where it cannot be, or has another window."""
    import diffusers
    import transformers

    from syncdiffusion.backbones.loading import load_backbone

    # They report on loading at length; what matters raises. A hub download keeps its own progress bar.
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    chosen = (config[name] for name in ("revision", "device", "precision", "compiled", "offload"))
    with naming_path(config):
        backbone = load_backbone(source_of(config), *chosen, adapters=adapters_of(config))
    window = backbone.window * backbone.factor
    for name, own in (("window", window), ("factor", backbone.factor)):
        if own != config[name]:
            raise UsageError(f"backbone.{name}={config[name]}: this model's {name} is {own} px; give that")
    return backbone


def model_facts(config: Mapping[str, Any]) -> ModelFacts:
    """What identifies the model of a `backbone` section in a record, told without loading it."""
    named = named_model(config)
    with naming_path(config):
        found = fingerprint(source_of(config), config["revision"], adapters_of(config))
    facts: ModelFacts = {
        "name": config["name"],
        "id": named["id"],
        "revision": named["revision"],
        "fingerprint": found,
        "precision": named["precision"],
        "compiled": config["compiled"],
    }
    if named["adapters"] is not None:
        facts["adapters"] = named["adapters"]
    return facts


def source_of(config: Mapping[str, Any]) -> str:
    """The folder, hub id or "embedded" that a `backbone` section names."""
    return config["model_id"] if config["path"] is None else str(place_of(config["path"]))


def unknown_words(config: Mapping[str, Any], prompts: Sequence[str]) -> str | None:
    """One line on the words that the model of a `backbone` section was not trained on; None where there are none.

    Of a model with adapters nothing is said: what they taught it, its own list does not know.
    """
    return None if adapters_of(config) else unknown_words_line(find_model(source_of(config)), prompts)


def device_name(backbone: Backbone) -> str:
    if backbone.device.type != "cuda":
        return str(backbone.device)
    import torch

    return torch.cuda.get_device_name(backbone.device)
