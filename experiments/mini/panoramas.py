"""Panoramas of the miniature by several methods, on one contact sheet.

    python -m experiments.mini.panoramas --out panoramas.png

A row a prompt and method, in the paper's order of prompts, the methods of a prompt one under the other, all from the
same noise. The geometry is GEOMETRY, steps and guidance are those of the model's sampling.json, the rest the
methods' own defaults, unless given.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.common.command_line import one_line_errors
from experiments.common.progress import say_step
from experiments.mini.captions import PAPER_PROMPTS
from experiments.mini.files import contact_sheet
from experiments.mini.training import to_bytes
from syncdiffusion.backbones.model_files import EMBEDDED_FOLDER
from syncdiffusion.backbones.sampling import sampling_defaults
from syncdiffusion.errors import UsageError

if TYPE_CHECKING:
    from syncdiffusion.backbones.backbone import Backbone

SHOWN = ("multidiffusion", "syncdiffusion", "profile_matching")
# The paper's geometry divided by four, of windows of 128 pixels: conf/backbone/mini.yaml.
GEOMETRY = {"height": 128, "width": 768, "stride": 4}


def method_settings(folder: Path, method: str, **given: Any) -> Any:
    """The settings of a method of `baselines.METHODS`: those that suit the model in `folder`, then what is given.

    Raises:
        UsageError: no such method.
    """
    from baselines import METHODS

    if method not in METHODS:
        raise UsageError(f"methods={method}: use some of {', '.join(METHODS)}")
    kind = METHODS[method].settings
    chosen = {**GEOMETRY, **sampling_defaults(folder, method, kind), **given}
    return kind(**{item.name: chosen[item.name] for item in fields(kind) if item.name in chosen})


def make_panorama(backbone: Backbone, folder: Path, method: str, prompt: str, seed: int, **given: Any) -> np.ndarray:
    """One panorama of the model in `folder`, uint8 [height, width, 3]; `given` are settings of the method."""
    from baselines import METHODS

    images = METHODS[method].generate(backbone, [prompt], [seed], method_settings(folder, method, **given))
    return to_bytes(images * 2 - 1)[0]


def make_panoramas(
    backbone: Backbone, folder: Path, methods: Sequence[str], prompts: Sequence[str], seed: int, **given: Any
) -> list[list[np.ndarray]]:
    """Rows of one panorama each: for every prompt one by every method, all from the prompt's noise of this seed."""
    rows = []
    for prompt in prompts:
        for method in methods:
            began = time.monotonic()
            rows.append([make_panorama(backbone, folder, method, prompt, seed, **given)])
            say_step("panoramas", f"{method}, {prompt!r}: {time.monotonic() - began:.1f} s")
    return rows


@one_line_errors(exits=True)
def main(arguments: list[str] | None = None) -> None:
    from syncdiffusion.backbones.loading import load_backbone

    parser = argparse.ArgumentParser(description="Draw panoramas of the miniature by several methods on one sheet.")
    parser.add_argument("--model", type=Path, default=EMBEDDED_FOLDER, help="a folder in diffusers' layout")
    parser.add_argument("--methods", nargs="+", default=SHOWN)
    parser.add_argument("--prompts", nargs="+", default=PAPER_PROMPTS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--guidance", type=float, help="guidance scale")
    parser.add_argument("--weight", type=float, help="weight of SyncDiffusion's pull")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", help="bfloat16: faster where the machine computes in it")
    parser.add_argument("--out", type=Path, default=Path("panoramas.png"))
    options = parser.parse_args(arguments)
    given = {"guidance_scale": options.guidance, "weight": options.weight}
    given = {name: value for name, value in given.items() if value is not None}
    for method in options.methods:
        method_settings(options.model, method, **given)  # mistakes before the work
    backbone = load_backbone(str(options.model), device=options.device, precision=options.precision)
    rows = make_panoramas(backbone, options.model, options.methods, options.prompts, options.seed, **given)
    contact_sheet(rows, options.out)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
