"""The prompts of a plan with their seeds and names. Nothing here imports torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig

from syncdiffusion.errors import UsageError

MOST_SEEDS = 10**5  # per prompt in one run: a list of more would take minutes and the memory
LARGEST_SEED = 2**62


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
    for setting, value, least, most in (
        ("seeds.count", cfg.seeds.count, 1, MOST_SEEDS),
        ("seeds.first", cfg.seeds.first, 0, LARGEST_SEED),
        ("reference.count", cfg.reference.count, 0, MOST_SEEDS),
        ("reference.first_seed", cfg.reference.first_seed, 0, LARGEST_SEED),
    ):
        if not least <= value <= most:
            raise UsageError(f"{setting}={value}: must be {least} {'or more' if value < least else f'to {most}'}")


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
