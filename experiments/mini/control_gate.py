"""Whether a ControlNet's pictures follow the map that they are given."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

from baselines import METHODS
from experiments.mini.captions import PAPER_PROMPTS
from experiments.mini.dataset import SIZE, SPLITS, load_pictures
from experiments.mini.land import as_picture, load_maps, seen_skyline, skyline
from syncdiffusion.backbones.backbone import Backbone

# Of the error against a map that is not its own, both less the error of the estimate itself on renders: what the gate
# asks for at most.
FOLLOWS = 0.5


SCALE = 1.5  # of the ControlNet: at 1 skylines follow the map less closely, at 2 only a little more


def gate(backbone: Backbone, folder: Path, work: Path, count: int = 24, seed: int = 0) -> dict[str, Any]:
    """Whether made windows follow the skyline of held-out maps: mean absolute errors in pixels over columns.

    given: of the made window against its own map. shuffled: against the next one's. renders: of the estimate itself, on
    the renders that the maps are of.
    """
    method = METHODS["multidiffusion"]
    lands = load_maps(work, SPLITS["heldout"], "heldout", range(count), seed)[:, :, :SIZE]
    renders = load_pictures(work, "heldout", count, seed, workers=1).images
    made = []
    with TemporaryDirectory() as place:
        for number, land in enumerate(lands):
            path = Path(place) / f"{number}.png"
            Image.fromarray(as_picture(land)).save(path)
            settings = method.settings(
                height=SIZE, width=SIZE, steps=25, guidance_scale=3.0, stride=4, control_image=str(path),
                controlnet=str(folder), control_scale=SCALE,
            )  # fmt: skip
            prompt = PAPER_PROMPTS[number % len(PAPER_PROMPTS)]
            image = method.generate(backbone, [prompt], [number], settings)[0]
            made.append((image * 255).round().byte().permute(1, 2, 0).numpy())
    given = np.stack([skyline(land) for land in lands])
    seen = np.stack([seen_skyline(picture) for picture in made])
    shown = np.stack([seen_skyline(np.asarray(renders[i])[:, :SIZE]) for i in range(count)])
    errors = {
        "given": float(np.abs(seen - given).mean()),
        "shuffled": float(np.abs(seen - np.roll(given, 1, axis=0)).mean()),
        "renders": float(np.abs(shown - given).mean()),
    }
    apart, shuffled = (errors[name] - errors["renders"] for name in ("given", "shuffled"))
    passes = apart <= FOLLOWS * shuffled
    return {**errors, "count": count, "scale": SCALE, "passes": passes}
