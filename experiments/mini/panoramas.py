"""Panoramas of the miniature by several methods, on one contact sheet.

    python -m experiments.mini.panoramas --out panoramas.png

A row a prompt and method, in the paper's order of prompts, the methods of a prompt one under the other, all from the
same noise. Geometry, steps, guidance and the pull's weight are those of conf/backbone/mini.yaml unless given.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import OmegaConf

from experiments.common.command_line import one_line_errors
from experiments.mini.captions import PAPER_PROMPTS
from experiments.mini.files import contact_sheet
from experiments.mini.training import say, to_bytes
from syncdiffusion.errors import UsageError

if TYPE_CHECKING:
    from syncdiffusion.backbones.backbone import Backbone

CONFIGURATION = Path(__file__).parents[2] / "conf" / "backbone" / "mini.yaml"
SHOWN = ("multidiffusion", "syncdiffusion", "profile_matching")


def method_settings(method: str, **given: Any) -> Any:
    """The settings of a method of `baselines.METHODS`: those of the miniature's configuration, then what is given.

    Raises:
        UsageError: no such method.
    """
    from baselines import METHODS

    if method not in METHODS:
        raise UsageError(f"methods={method}: use some of {', '.join(METHODS)}")
    kind = METHODS[method].settings
    chosen = {**OmegaConf.to_container(OmegaConf.load(CONFIGURATION)), **given}
    return kind(**{item.name: chosen[item.name] for item in fields(kind) if chosen.get(item.name) is not None})


def make_panorama(backbone: Backbone, method: str, prompt: str, seed: int, **given: Any) -> np.ndarray:
    """One panorama, uint8 [height, width, 3]; `given` are settings of the method."""
    from baselines import METHODS

    images = METHODS[method].generate(backbone, [prompt], [seed], method_settings(method, **given))
    return to_bytes(images * 2 - 1)[0]


def make_panoramas(
    backbone: Backbone, methods: Sequence[str], prompts: Sequence[str], seed: int, **given: Any
) -> list[list[np.ndarray]]:
    """Rows of one panorama each: for every prompt one by every method, all from the prompt's noise of this seed."""
    rows = []
    for prompt in prompts:
        for method in methods:
            began = time.monotonic()
            rows.append([make_panorama(backbone, method, prompt, seed, **given)])
            say("panoramas", f"{method}, {prompt!r}: {time.monotonic() - began:.1f} s")
    return rows


@one_line_errors(exits=True)
def main(arguments: list[str] | None = None) -> None:
    from syncdiffusion.backbones.backbone import load_backbone

    parser = argparse.ArgumentParser(description="Draw panoramas of the miniature by several methods on one sheet.")
    parser.add_argument("--model", default="embedded", help="a folder in diffusers' layout (default: the embedded one)")
    parser.add_argument("--methods", nargs="+", default=SHOWN)
    parser.add_argument("--prompts", nargs="+", default=PAPER_PROMPTS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--guidance", type=float, help="guidance scale")
    parser.add_argument("--weight", type=float, help="weight of SyncDiffusion's pull")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path("panoramas.png"))
    options = parser.parse_args(arguments)
    given = {"guidance_scale": options.guidance, "weight": options.weight}
    given = {name: value for name, value in given.items() if value is not None}
    for method in options.methods:
        method_settings(method, **given)  # mistakes before the work
    backbone = load_backbone(options.model, device=options.device)
    contact_sheet(make_panoramas(backbone, options.methods, options.prompts, options.seed, **given), options.out)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
