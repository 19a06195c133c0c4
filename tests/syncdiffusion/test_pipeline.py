"""The diffusers pipeline makes the very images of the function behind it."""

import warnings

import numpy as np
import pytest
import torch

from syncdiffusion.errors import UsageError
from syncdiffusion.sync import METHOD, SyncDiffusionSettings
from tests.metric_networks import load_or_skip


def test_the_pipeline_equals_the_function(tiny, tiny_folder):
    load_or_skip("lpips_alex")
    from syncdiffusion.pipeline import SyncDiffusionPipeline

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipe = SyncDiffusionPipeline.from_pretrained(tiny_folder, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    common = {"steps": 2, "loss": "lpips_alex", "guidance_scale": 3.0, "width": 128}
    ours = METHOD.generate(tiny, ["a", "b"], [1, 2], SyncDiffusionSettings(height=64, stride=2, **common))
    assert torch.equal(pipe(["a", "b"], seed=[1, 2], output_type="pt", **common).images, ours)
    picture = pipe(["a", "b"], seed=[1, 2], **common).images[1]
    assert picture.size == (128, 64)
    assert np.array_equal(np.asarray(picture), (ours[1] * 255).round().byte().permute(1, 2, 0).numpy())
    with pytest.raises(UsageError, match="width=100"):
        pipe("a", width=100)


def test_what_the_pipeline_is_asked_for_is_what_it_makes(tiny_folder):
    from syncdiffusion.pipeline import SyncDiffusionPipeline

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipe = SyncDiffusionPipeline.from_pretrained(tiny_folder)
    pipe.set_progress_bar_config(disable=True)
    quick = {"width": 96, "steps": 1, "weight": 0.0, "output_type": "pt"}
    assert torch.equal(pipe("a", seed=np.int64(1), **quick).images, pipe("a", seed=1, **quick).images)
    for changes, message in (
        ({"width": 0}, "^width=0: use 1 to"),
        ({"height": 0}, "^height=0: use 1 to"),
        ({"output_type": "nonsense"}, "^output_type=nonsense: use one of pil, np, pt, latent$"),
    ):
        with pytest.raises(UsageError, match=message):
            pipe("a", **(quick | changes))


def test_a_pipeline_loaded_and_used_in_inference_mode_makes_the_same_picture(tiny_folder):
    """A perceptual gradient cannot be taken in that mode, nor through weights that were made in it."""
    from syncdiffusion.pipeline import SyncDiffusionPipeline

    load_or_skip("lpips_alex")
    images = []
    for mode in (False, True):
        with torch.inference_mode(mode), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pipe = SyncDiffusionPipeline.from_pretrained(tiny_folder)
            pipe.set_progress_bar_config(disable=True)
            common = {"width": 96, "steps": 1, "loss": "lpips_alex", "weight": 5.0}
            images.append(pipe("a", seed=1, output_type="pt", **common).images)
            looked = pipe("a", seed=1, output_type="pt", callback_on_step_end=lambda *seen: {}, **common).images
            assert torch.equal(looked, images[-1])
            assert torch.is_inference_mode_enabled() == mode
    assert torch.equal(*images)


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_networks_loaded_in_half_precision_make_nearly_the_same_picture(tiny, tiny_folder, name):
    """Of MultiDiffusion's kind (weight 0): a gradient's direction is a matter of its own. Tolerance: eight bits of
    mantissa in bfloat16, eleven in float16, through two steps at guidance 3; 0.03 and 0.004 were measured."""
    from syncdiffusion.pipeline import SyncDiffusionPipeline

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipe = SyncDiffusionPipeline.from_pretrained(tiny_folder, torch_dtype=getattr(torch, name))
    pipe.set_progress_bar_config(disable=True)
    common = {"steps": 2, "loss": "lpips_alex", "guidance_scale": 3.0, "width": 128, "stride": 4}
    half = pipe("a", seed=1, output_type="pt", weight=0.0, **common).images
    exact = METHOD.generate(tiny, ["a"], [1], SyncDiffusionSettings(height=64, weight=0.0, **common))
    assert half.dtype == torch.float32
    assert 0 < (half - exact).abs().max() < {"float16": 0.02, "bfloat16": 0.1}[name]
    load_or_skip("lpips_alex")
    pulled = pipe("a", seed=1, output_type="pt", weight=5.0, **common).images
    assert torch.isfinite(pulled).all() and (pulled - half).abs().max() > 1e-3


def test_networks_of_two_dtypes_are_refused(tiny_folder):
    from syncdiffusion.pipeline import SyncDiffusionPipeline

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipe = SyncDiffusionPipeline.from_pretrained(tiny_folder)
    pipe.vae.half()
    with pytest.raises(UsageError, match="torch_dtype: UNet and autoencoder in float16, float32"):
        pipe("a", width=128)
