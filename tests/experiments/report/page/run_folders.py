"""Small run folders for the page: invented numbers, drawn pictures, prompts of every kind."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from experiments.results.study import Results
from tests.experiments.synthetic import synthetic_results, write_results

PROMPTS = (
    "a photo of a city skyline at night",
    "<script>window.hacked=1</script><!-- <script>",
    '<img src=x onerror="window.hacked=1">',
    "שלום \"quoted\" 'words' {{ braces }} @CONTENT@ &lt; %3Cb%3E",
    "🌄 two\u2028lines\u2029 and \\u003c",
    "very " * 99 + "wide",
)

COMPARISONS = """prompt,method,against,metric,n,difference,low,high,p,p_holm,share_better
all,multidiffusion,syncdiffusion,intra_lpips,12,0.06,0.04,0.08,0.0001,0.0004,0.0833
all,blended_latent,syncdiffusion,kid,3,0.03,-0.01,0.07,,,
"""

PLOT = '<svg xmlns="http://www.w3.org/2000/svg" width="400" height="300"><rect width="400" height="300"/></svg>'


def picture(seed: int, height: int = 128, width: int = 768) -> Image.Image:
    """A smooth ramp, so that a WebP of it differs little."""
    across, down = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    colours = np.stack([across, down, np.full_like(across, seed % 7 / 6)], axis=-1)
    return Image.fromarray((255 * colours).round().astype(np.uint8))


def table_run(folder: Path) -> Results:
    """Three methods, the six prompts above, two seeds; with pictures, a plot and comparisons."""
    results = with_prompts(synthetic_results("experiment=table1", "seeds.count=2"), PROMPTS)
    write_results(folder, results)
    for number, file in enumerate(results.panoramas["file"]):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(folder / file)
    (folder / "comparisons.csv").write_text(COMPARISONS)
    (folder / "figures").mkdir()
    (folder / "figures" / "cost_by-method.svg").write_text(PLOT)
    return results


def ring_picture(height: int = 128, width: int = 768) -> Image.Image:
    """A hue that goes once around and ends where it began, darker from top to bottom."""
    across, down = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    return Image.fromarray((255 * ring_colour(across, down)).round().astype(np.uint8))


def ring_colour(across: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Of places in `ring_picture`, as shares of its width and height: three channels in [0, 1]."""
    hue = 0.5 + 0.45 * np.cos(2 * np.pi * (across[..., None] - np.arange(3) / 3))
    return (1 - 0.6 * down[..., None]) * hue


def ring_run(folder: Path) -> Results:
    """A ring by each of the methods that close, and last a panorama that is open; a picture stands for all."""
    results = synthetic_results("experiment=ring", "prompts=one", "seeds.count=1")
    results.panoramas["file"] = "ring.png"
    write_results(folder, results)
    ring_picture().save(folder / "ring.png")
    return results


def ablation_run(folder: Path) -> Results:
    """Ten methods and sixty rows; one picture stands for all."""
    results = synthetic_results("experiment=ablation_skip", "seeds.count=10")
    results.panoramas["file"] = "one.png"
    write_results(folder, results)
    picture(0).save(folder / "one.png")
    return results


def with_seeds(seeds: tuple[int, ...]) -> Results:
    """Three methods, two prompts, these seeds."""
    results = synthetic_results("experiment=table1", "prompts=demo", f"seeds.count={len(seeds)}")
    return replace(
        results, panoramas=results.panoramas.assign(seed=results.panoramas["seed"].map(list(seeds).__getitem__))
    )


def wide_run(folder: Path) -> Results:
    """A table with every metric that the miniature's runs have, by three methods; its numbers are long."""
    results = synthetic_results("experiment=table1", "prompts=demo", "seeds.count=4")
    panoramas = results.panoramas.assign(seam_score=-results.panoramas["intra_lpips"])
    added = [
        {
            "method": row.label,
            "prompt": "all",
            "metric": name,
            "n": 8,
            "network": "a network",
            "value": -0.45,
            "stderr": 0.01,
        }
        for row in results.study.rows
        for name in ("giqa", "kid_crops", "precision", "recall", "seed_lpips", "seam_score")
    ]
    scores = pd.concat([results.scores, pd.DataFrame(added)], ignore_index=True)
    wide = replace(results, panoramas=panoramas, scores=scores)
    write_results(folder, wide)
    return wide


def with_prompts(results: Results, prompts: tuple[str, ...]) -> Results:
    renamed = dict(zip(results.study.prompts, prompts, strict=True))
    frames = (results.panoramas, results.scores)
    panoramas, scores = (frame.assign(prompt=frame["prompt"].replace(renamed)) for frame in frames)
    return replace(results, study=replace(results.study, prompts=prompts), panoramas=panoramas, scores=scores)
