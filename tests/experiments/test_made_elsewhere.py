"""Panoramas of diffusers' own pipeline, which knows nothing of this repository, scored by the command."""

import os
import subprocess
import sys

import pandas as pd
import pytest
import torch

from experiments.benchmarks.panorama import quiet
from experiments.results.study import read_results
from syncdiffusion.backbones.model_files import EMBEDDED_FOLDER
from tests.experiments.composing import REPOSITORY

PROMPTS = ("a photo of a mountain range at twilight", "a photo of a forest with a misty fog")


def diffusers_pipeline():
    from diffusers import StableDiffusionPanoramaPipeline

    with quiet():
        pipeline = StableDiffusionPanoramaPipeline.from_pretrained(EMBEDDED_FOLDER, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.slow
def test_panoramas_of_diffusers_are_scored_beside_each_other(tmp_path):
    """Two guidance scales as two methods, from the same generators: what diffusers writes is all that is known."""
    pipeline = diffusers_pipeline()
    for method, scale in (("guided", 5.0), ("unguided", 1.0)):
        for prompt in PROMPTS:
            for seed in range(2):
                made = pipeline(
                    prompt, height=128, width=512, num_inference_steps=2, guidance_scale=scale,
                    generator=torch.Generator().manual_seed(seed),
                )  # fmt: skip
                path = tmp_path / "given" / method / prompt / f"{seed}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                made.images[0].save(path)
    words = ["experiment=score", f"pictures={tmp_path / 'given'}", f"run_dir={tmp_path / 'run'}", "shared_dir=null"]
    words += ["metrics.metrics=[kid,clip_score,seam_score]", "shared_noise=true", "compare_with=unguided"]
    clean = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "experiments.run", *words]
    done = subprocess.run(command, cwd=REPOSITORY, env=clean, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "no reference pictures: kid are left out" in done.stderr
    results = read_results(tmp_path / "run")
    assert (results.study.canvas["height"], results.study.canvas["width"]) == (128, 512)
    assert set(results.study.prompts) == set(PROMPTS) and len(results.panoramas) == 8
    assert set(results.scores["metric"]) == {"mini_clip_score"}
    compared = pd.read_csv(tmp_path / "run" / "comparisons.csv")
    assert list(compared["n"]) == [4, 2, 2] and set(compared["against"]) == {"unguided"}
    assert (tmp_path / "run" / "report" / "index.html").is_file()
