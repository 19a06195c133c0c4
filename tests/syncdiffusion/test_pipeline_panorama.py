"""Against diffusers' deprecated StableDiffusionPanoramaPipeline: windows of 64 cells every 8, which that one has fixed.

In float64, with the schedule in float64 on both sides, nothing but the order of sums differs, and over two steps of a
random network that is 1e-12 at most; the tolerance is 1e-9. In float32 it is 1e-4, as for whole samplers elsewhere.
"""

import re
import warnings
from pathlib import Path

import pytest
import torch
from diffusers.pipelines.deprecated.stable_diffusion_panorama import StableDiffusionPanoramaPipeline

from syncdiffusion import pipeline as module
from tests.syncdiffusion.pipelines import of_diffusers, opened, seeded
from tests.tiny_model import build_tiny_model

COMMON = {"height": 512, "width": 640, "num_inference_steps": 2, "guidance_scale": 5.0, "output_type": "latent"}
OURS = {"method": "multidiffusion", "stride": 8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build_tiny_model(tmp_path_factory.mktemp("full"), window=64)


@pytest.fixture(scope="module")
def exact(folder):
    """Ours in float64."""
    pipe = opened(folder, torch_dtype=torch.float64)
    pipe.scheduler.alphas_cumprod = pipe.scheduler.alphas_cumprod.double()
    return pipe


@pytest.fixture(scope="module")
def theirs(exact):
    made = of_diffusers(StableDiffusionPanoramaPipeline, exact)
    made.scheduler.final_alpha_cumprod = made.scheduler.final_alpha_cumprod.double()
    return made


@pytest.mark.parametrize(("circular_padding", "view_batch_size"), [(False, 2), (True, 3)])
def test_the_latents_are_those_of_the_deprecated_pipeline(exact, theirs, circular_padding, view_batch_size):
    same = COMMON | {"circular_padding": circular_padding, "view_batch_size": view_batch_size}
    ours = exact("a lake", generator=seeded(3), negative_prompt="fog", **same, **OURS).images
    other = theirs("a lake", generator=seeded(3), negative_prompt="fog", **same).images
    assert ours.dtype == other.dtype == torch.float64 and ours.shape == (1, 4, 64, 80)
    assert (ours - other).abs().max() < 1e-9
    plain = exact("a lake", generator=seeded(3), negative_prompt="fog", **COMMON, **OURS).images
    assert ((ours - plain).abs().max() > 1e-2) == circular_padding


def test_so_they_are_in_float32(folder):
    pipe = opened(folder)
    ours = pipe("a lake", generator=seeded(3), **COMMON, **OURS).images
    other = of_diffusers(StableDiffusionPanoramaPipeline, pipe)("a lake", generator=seeded(3), **COMMON).images
    assert ours.dtype == torch.float32 and (ours - other).abs().max() < 1e-4


def test_a_ring_is_decoded_as_a_ring_by_both(exact, theirs):
    """Theirs with 8 cells of the other end, ours with as many as the decoder sees. The group norms see those too, so
    that the pictures differ a little everywhere: 0.01 on average here, of 1."""
    same = COMMON | {"circular_padding": True, "output_type": "np", "num_inference_steps": 1}
    ours = exact("a lake", generator=seeded(3), **same, **OURS).images
    other = theirs("a lake", generator=seeded(3), view_batch_size=10, **same).images
    assert ours.shape == other.shape == (1, 512, 640, 3)
    assert abs(ours - other).mean() < 0.02


def test_of_several_pictures_ours_are_those_made_alone_and_theirs_are_not(exact, theirs):
    """The deprecated pipeline repeats latents one by one and texts as a whole, so that they meet the wrong ones."""
    same = COMMON | {"width": 512, "num_inference_steps": 1}
    noise = torch.randn(2, 4, 64, 64, generator=seeded(0), dtype=torch.float64)
    ours, other = (
        pipe(["a", "b"], latents=noise, **same, **more).images for pipe, more in ((exact, OURS), (theirs, {}))
    )
    alone = [
        [pipe(p, latents=noise[i : i + 1], **same, **more).images for i, p in enumerate("ab")]
        for pipe, more in ((exact, OURS), (theirs, {}))
    ]
    assert (ours - torch.cat(alone[0])).abs().max() < 1e-9 and (ours - torch.cat(alone[1])).abs().max() < 1e-9
    assert (other - ours).abs().max() > 1e-4


def examples() -> list[str]:
    page = (Path(module.__file__).parent / "pipeline.md").read_text()
    text = page + "\n" + module.SyncDiffusionPipeline.__doc__.replace("\n    ", "\n").replace("\n    ", "\n")
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", range(len(examples())))
def test_the_examples_run(folder, number, tmp_path, monkeypatch):
    """As they stand, but for one step without a gradient, where they take the defaults of a large model."""
    call = module.SyncDiffusionPipeline.__call__

    def quickly(pipe, *args, **options):
        pipe.set_progress_bar_config(disable=True)
        options["num_inference_steps"] = 1
        pulls = options.get("method", "syncdiffusion") == "syncdiffusion"
        return call(pipe, *args, **options, **({"first_n": 0} if pulls else {}))

    monkeypatch.setattr(module.SyncDiffusionPipeline, "__call__", quickly)
    monkeypatch.chdir(tmp_path)
    names = {"model": str(folder)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(examples()[number], names)  # noqa: S102
    pictures = [value for name, value in names.items() if name in ("image", "ring")]
    assert pictures and all(picture.height == 512 for picture in pictures)
