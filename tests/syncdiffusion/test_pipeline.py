"""The diffusers pipeline makes the very images of the function behind it."""

import warnings

import numpy as np
import pytest
import torch

from syncdiffusion.errors import UsageError
from syncdiffusion.sync import SyncDiffusionSettings, generate
from tests.metric_networks import load_or_skip


def test_the_pipeline_equals_the_function(tiny, tiny_folder):
    load_or_skip("lpips_alex")
    from syncdiffusion.pipeline import SyncDiffusionPipeline

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipe = SyncDiffusionPipeline.from_pretrained(tiny_folder, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    common = {"steps": 2, "loss": "lpips_alex", "guidance_scale": 3.0, "width": 128}
    ours = generate(tiny, ["a", "b"], [1, 2], SyncDiffusionSettings(height=64, stride=2, **common))
    assert torch.equal(pipe(["a", "b"], seed=[1, 2], output_type="pt", **common).images, ours)
    picture = pipe(["a", "b"], seed=[1, 2], **common).images[1]
    assert picture.size == (128, 64)
    assert np.array_equal(np.asarray(picture), (ours[1] * 255).round().byte().permute(1, 2, 0).numpy())
    with pytest.raises(UsageError, match="width=100"):
        pipe("a", width=100)
