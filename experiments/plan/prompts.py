"""The prompts of a plan with their seeds and names. Nothing here imports torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig

from experiments.plan.schema import LARGEST_SEED, ReferenceSchema, SeedsSchema
from syncdiffusion.errors import UsageError
from syncdiffusion.settings import facts_of


def check_prompts(prompts: tuple[str, ...]) -> None:
    if not prompts:
        raise UsageError("prompts.texts=[]: give at least one prompt")
    for prompt in prompts:
        if not isinstance(prompt, str):
            raise UsageError(f"prompts.texts: {prompt} is no text; put a prompt in quotes, or give prompt=TEXT")
        if prompts.count(prompt) > 1:
            raise UsageError(f"prompts.texts: '{prompt}' is there twice; name each prompt once")
        if not prompt.strip() or prompt == "all":
            raise UsageError(f"prompts.texts: '{prompt}' cannot be a prompt (empty, or the tables' word for all)")


def check_seeds(cfg: DictConfig) -> None:
    for section, schema, name in (
        ("seeds", SeedsSchema, "count"),
        ("seeds", SeedsSchema, "first"),
        ("reference", ReferenceSchema, "count"),
        ("reference", ReferenceSchema, "first_seed"),
    ):
        value, known = cfg[section][name], facts_of(schema)[name]
        assert known.least is not None and known.most is not None
        if not known.least <= value <= known.most:
            bound = f"{known.least} {'or more' if value < known.least else f'to {known.most}'}"
            raise UsageError(f"{section}.{name}={value}: must be {bound}")


def first_seeds_of(prompts: Mapping[str, Any], first: int) -> dict[str, list[int]]:
    """Prompt -> the seeds from which its panoramas are counted: its own where a file of prompts has some, else `first`.

    Raises:
        UsageError: not as many lists as prompts, or a seed that none can have.
    """
    texts, own = prompts["texts"], prompts["seeds"] or [[] for _ in prompts["texts"]]
    if len(own) != len(texts):
        raise UsageError(f"prompts.seeds: {len(own)} lists for {len(texts)} prompts; give one for each")
    for seed in (seed for seeds in own for seed in seeds):
        if not 0 <= seed <= LARGEST_SEED:
            raise UsageError(f"prompts.seeds: {seed} is there; must be 0 to {LARGEST_SEED}")
    return {prompt: seeds or [first] for prompt, seeds in zip(texts, own, strict=True)}


def seeds_from(prompt: str, firsts: Sequence[int], count: int) -> list[int]:
    """`count` seeds from each of `firsts` on; UsageError where two come to the same."""
    seeds = [first + index for first in firsts for index in range(count)]
    if len(set(seeds)) < len(seeds):
        twice = next(seed for seed in seeds if seeds.count(seed) > 1)
        raise UsageError(f"prompts.seeds: '{prompt}' has seed {twice} twice at seeds.count={count}; give others")
    return seeds


def ids_of(prompts: Mapping[str, Any]) -> dict[str, str]:
    """Prompt -> its name, of those that have one. UsageError where two have the same, or there are too few."""
    ids = prompts["ids"] or [""] * len(prompts["texts"])
    if len(ids) != len(prompts["texts"]):
        raise UsageError(f"prompts.ids: {len(ids)} of them for {len(prompts['texts'])} prompts; give one for each")
    named = {prompt: name for prompt, name in zip(prompts["texts"], ids, strict=True) if name}
    twice = [name for name, count in Counter(named.values()).items() if count > 1]
    if twice:
        raise UsageError(f"prompts.ids: '{twice[0]}' names two prompts; give each its own")
    return named
