"""Against diffusers' deprecated StableDiffusionPanoramaPipeline.

In float64, with the schedule in float64 on both sides, nothing but the order of sums differs, and over two steps of a
random network that is 1e-14 at most; the tolerance is 1e-11. In float32 it is 1e-4, as for whole samplers elsewhere.
Its `get_views` has windows of 64 cells every 8 as defaults; once as they are, elsewhere as the tiny model has them.
"""

import functools
import re
import warnings
from pathlib import Path

import pytest
import torch
from diffusers.pipelines.deprecated.stable_diffusion_panorama import StableDiffusionPanoramaPipeline

from syncdiffusion import pipeline as module
from tests.syncdiffusion.pipelines import of_diffusers, opened, seeded
from tests.tiny_model import build_tiny_model

COMMON = {"height": 64, "width": 128, "num_inference_steps": 2, "guidance_scale": 5.0, "output_type": "latent"}
OURS = {"method": "multidiffusion", "stride": 2}


@pytest.fixture(scope="module")
def exact(tiny_folder):
    """Ours in float64."""
    pipe = opened(tiny_folder, torch_dtype=torch.float64)
    for name in ("alphas_cumprod", "final_alpha_cumprod"):
        setattr(pipe.scheduler, name, getattr(pipe.scheduler, name).double())
    return pipe


@pytest.fixture(scope="module")
def theirs(exact):
    made = of_diffusers(StableDiffusionPanoramaPipeline, exact)
    made.get_views = functools.partial(made.get_views, window_size=8, stride=2)
    return made


@pytest.mark.parametrize(("circular_padding", "view_batch_size"), [(False, 2), (True, 3)])
def test_the_latents_are_those_of_the_deprecated_pipeline(exact, theirs, circular_padding, view_batch_size):
    same = COMMON | {"circular_padding": circular_padding, "view_batch_size": view_batch_size}
    ours = exact("a lake", generator=seeded(3), negative_prompt="fog", **same, **OURS).images
    other = theirs("a lake", generator=seeded(3), negative_prompt="fog", **same).images
    assert ours.dtype == other.dtype == torch.float64 and ours.shape == (1, 4, 8, 16)
    assert (ours - other).abs().max() < 1e-11
    plain = exact("a lake", generator=seeded(3), negative_prompt="fog", **COMMON, **OURS).images
    assert ((ours - plain).abs().max() > 1e-2) == circular_padding


def test_two_rows_of_windows_too(exact, theirs):
    same = COMMON | {"height": 80}
    ours = exact("a lake", generator=seeded(3), **same, **OURS).images
    assert (ours - theirs("a lake", generator=seeded(3), **same).images).abs().max() < 1e-11


def test_so_they_are_in_float32_with_its_own_windows(tmp_path):
    pipe = opened(build_tiny_model(tmp_path / "full", window=64))
    same = COMMON | {"height": 512, "width": 576, "num_inference_steps": 1}
    ours = pipe("a lake", generator=seeded(3), method="multidiffusion", stride=8, **same).images
    other = of_diffusers(StableDiffusionPanoramaPipeline, pipe)("a lake", generator=seeded(3), **same).images
    assert ours.dtype == torch.float32 and ours.shape == (1, 4, 64, 72) and (ours - other).abs().max() < 1e-4


def test_a_ring_is_decoded_as_a_ring_by_both(exact, theirs):
    """Theirs with 8 cells of the other end, ours with as many as the decoder sees. The group norms see those too, so
    that pixels differ a little everywhere: by 0.005 of 1 on average here, by 0.07 at most. Other pictures are equal,
    up to float32, which pictures are handed over in."""
    for circular_padding, most in ((False, 1e-6), (True, 0.02)):
        same = COMMON | {"circular_padding": circular_padding, "output_type": "np"}
        ours = exact("a lake", generator=seeded(3), **same, **OURS).images
        other = theirs("a lake", generator=seeded(3), view_batch_size=10, **same).images
        assert ours.shape == other.shape == (1, 64, 128, 3)
        assert abs(ours - other).mean() < most


def test_of_several_pictures_ours_are_those_made_alone_and_theirs_are_not(exact, theirs):
    """The deprecated pipeline repeats latents one by one and texts as a whole, so that they meet the wrong ones."""
    same = COMMON | {"width": 64, "num_inference_steps": 1}
    noise = torch.randn(2, 4, 8, 8, generator=seeded(0), dtype=torch.float64)
    ours, ours_alone = together_and_alone(exact, noise, same | OURS)
    other, other_alone = together_and_alone(theirs, noise, same)
    assert (ours - ours_alone).abs().max() < 1e-11 and (ours - other_alone).abs().max() < 1e-11
    assert (other - other_alone).abs().max() > 1e-4


def together_and_alone(pipe, noise, options):
    alone = [pipe(text, latents=noise[i : i + 1], **options).images for i, text in enumerate(("a", "b"))]
    return pipe(["a", "b"], latents=noise, **options).images, torch.cat(alone)


def examples() -> list[str]:
    page = (Path(module.__file__).parent / "pipeline.md").read_text()
    text = page + "\n" + module.SyncDiffusionPipeline.__doc__.replace("\n    ", "\n").replace("\n    ", "\n")
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", range(len(examples())))
def test_the_examples_run(tiny_folder, number, tmp_path, monkeypatch):
    """As they stand, but of an eighth of the size, as the model's windows are; one step, without a gradient."""
    call = module.SyncDiffusionPipeline.__call__

    def quickly(pipe, *args, **options):
        pipe.set_progress_bar_config(disable=True)
        pulls = options.get("method", "syncdiffusion") == "syncdiffusion"
        small = {name: options[name] // 8 for name in ("height", "width") if name in options}
        return call(pipe, *args, **{**options, **small, "num_inference_steps": 1, **({"first_n": 0} if pulls else {})})

    monkeypatch.setattr(module.SyncDiffusionPipeline, "__call__", quickly)
    monkeypatch.chdir(tmp_path)
    names = {"model": str(tiny_folder)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(examples()[number], names)
    pictures = [value for name, value in names.items() if name in ("image", "ring")]
    assert pictures and all(picture.height == 64 for picture in pictures)
