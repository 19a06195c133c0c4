"""What ``python -m experiments.run --help`` prints: every choice and every setting in a line, by what one looks for.

Meanings, bounds and choices come from the settings dataclasses, values from the configuration as the command line has
it (`--help experiment=table1 method=fast` shows those), and what a choice is from the first sentence of its file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields, replace
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from baselines import METHODS
from experiments.common.shipped import shipped
from experiments.metrics.config import MetricsConfig, metric_names
from experiments.plan.schema import (
    BackboneSchema,
    PromptsSchema,
    ReferenceSchema,
    RunSchema,
    SeedsSchema,
    TrackingSchema,
)
from experiments.plan.words import choices
from syncdiffusion.settings import Facts, allowed, facts_of, written

INTRODUCTION = """\
Make panoramas, score them, report: python -m experiments.run [experiment=NAME] [setting=value ...]

  python -m experiments.run experiment=panorama prompt="a lake at dawn"    one panorama
  python -m experiments.run experiment=demo                 three methods, all metrics, the embedded model
  python -m experiments.run experiment=table1 dry_run=true  what it would take: panoramas, network calls, disk, hours
  python -m experiments.run experiment=demo stage=score     one stage on what is on disk
  python -m experiments.run experiment=demo seeds.count=4 method.weight=10 tracking=disabled

A run folder that already holds panoramas is gone on with: only what is missing, damaged or changed is made.
Values below are those of this command line: `method=fast --help` shows another method's settings."""

ENDING = """\
--cfg job prints the whole configuration; -m runs a sweep, a job for each of several values (seeds.first=0,100);
--hydra-help is for what launches jobs; HYDRA_FULL_ERROR=1 shows where an error comes from."""

LONGEST, WIDEST = 40, 36  # characters of a list as a value, of the column of settings
BEYOND = 10**9  # a bound that nobody comes near is not told

# Heading, group of conf/
CHOICES = (
    ("Experiments", "experiment"),
    ("Methods", "method"),
    ("Models", "backbone"),
    ("Prompts", "prompts"),
    ("Metrics", "metrics"),
    ("Tracking", "tracking"),
)
WORDS = (
    ("prompt=TEXT", "any text, in any script; any number of times", ""),
    ("prompt_file=FILE", "a prompt a line", ""),
)
GIVEN = ("pictures", "shared_noise")
RUNNING = ("name", "run_dir", "shared_dir", "stage", "dry_run", "strict", "shard", "panoramas_at_once", "plugins")
COMPARING = ("baselines", "variants", "ablations", "compare_with")
SCALE = ("height", "width", "stride", "steps", "guidance_scale", "window_batch", "gradient_batch")  # of a model

Line = tuple[str, str, str]  # setting=value, its meaning, what it may be


def help_text(cfg: DictConfig) -> str:
    """The whole help; cfg: the configuration that the command line composes."""
    parts = [(heading, choice_lines(group)) for heading, group in CHOICES]
    prompts, seeds = lines_of(PromptsSchema, cfg.prompts, "prompts."), lines_of(SeedsSchema, cfg.seeds, "seeds.")
    parts.append(("What is made", [*WORDS, *prompts, *seeds]))
    method = METHODS.get(str(cfg.method.get("name")))
    if method is not None:
        facts = facts_of(method.settings)
        shared, own = ([name for name in facts if facts[name].shared is wanted] for wanted in (True, False))
        parts.append(("Canvas and sampling, of all methods alike", lines_of(method.settings, cfg, "", shared)))
        parts.append((f"The method, here {method.title}", lines_of(method.settings, cfg.method, "method.", own)))
    parts.append(("Beside it, and compared with it", lines_of(RunSchema, cfg, "", COMPARING)))
    model = [each.name for each in fields(BackboneSchema) if each.name not in SCALE]
    parts.append(("The model", lines_of(BackboneSchema, cfg.backbone, "backbone.", model)))
    references = lines_of(ReferenceSchema, cfg.reference, "reference.", ("count", "first_seed", "pictures", "features"))
    given = lines_of(RunSchema, cfg, "", GIVEN)
    parts.append(("Scoring", [*given, *references, *metric_lines(cfg.metrics)]))
    parts.append(("The run", lines_of(RunSchema, cfg, "", RUNNING)))
    parts.append(("Weights & Biases", lines_of(TrackingSchema, cfg.tracking, "tracking.")))
    return "\n\n".join([INTRODUCTION, *(section(*part) for part in parts if part[1]), ENDING])


def choice_lines(group: str) -> list[Line]:
    """A line for each file of a group of ``conf/``, and for each method of a plugin."""
    names = sorted(choices(group), key=lambda name: name.startswith("ablation"))  # what most want first
    lines = [(f"{group}={name}", first_sentence(shipped("conf") / group / f"{name}.yaml"), "") for name in names]
    if group == "method":
        known = {name for name, _, _ in lines}
        lines += [
            (f"method={each.name}", each.source, "") for each in METHODS.values() if f"method={each.name}" not in known
        ]
    return lines


def metric_lines(node: DictConfig) -> list[Line]:
    """The metrics' settings; which metrics there are depends on the plugins too."""
    may = {"metrics.metrics": ", ".join(metric_names())}
    lines = lines_of(MetricsConfig, node, "metrics.")
    return [(name, means, may.get(name.partition("=")[0], values)) for name, means, values in lines]


def first_sentence(path: Path) -> str:
    """Of the comment that a configuration file begins with; "" where it begins with none."""
    words: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            words += line.lstrip("# ").split()
    return re.split(r"(?<=[^.]\w[.?!])\s", " ".join(words))[0].rstrip(".")


def lines_of(schema: type, node: DictConfig, prefix: str, names: Sequence[str] | None = None) -> list[Line]:
    """Settings of a dataclass with their values in `node`; all of them where no names are given."""
    facts, types = facts_of(schema), get_type_hints(schema)
    chosen = [each.name for each in fields(schema)] if names is None else names
    return [(f"{prefix}{name}={value_of(node, name)}", *told(facts[name], types[name])) for name in chosen]


def value_of(node: DictConfig, name: str) -> str:
    """As it is typed; ? where it has no value yet."""
    try:
        value = node[name]
    except OmegaConfBaseException:
        return "?"
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value, resolve=False)
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, (list, dict)):
        return shortened(value)
    return written(value)


def shortened(value: list[Any] | dict[Any, Any]) -> str:
    """A list or a dictionary, by its number of entries where it is long."""
    text = ",".join(str(each) for each in value)
    text = text if len(text) <= LONGEST else f"{len(value)} of them"
    return f"[{text}]" if isinstance(value, list) else f"{{{text}}}"


def told(facts: Facts, kind: Any) -> tuple[str, str]:
    """What a setting means, and what it may be where that says more than its type."""
    types = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    if isinstance(kind, type) and issubclass(kind, Enum):
        facts = replace(facts, choices=tuple(each.value for each in kind))
        types = (str,)
    known = tuple(each for each in types if each in (int, float, bool, str, NoneType))
    if facts.most is not None and facts.most > BEYOND:
        facts = replace(facts, most=None)
    words = allowed(facts, known)
    return facts.means, "" if words == "text" else words.removeprefix("text, or ").removeprefix("one of ")


def section(heading: str, lines: Sequence[Line]) -> str:
    """A heading and its lines, what they mean below each other."""
    width = min(WIDEST, max(len(name) for name, _, _ in lines))
    rows = [f"  {name:{width}}  {means}{f' ({may})' if may else ''}" for name, means, may in lines]
    return "\n".join([f"{heading}:", *rows])
