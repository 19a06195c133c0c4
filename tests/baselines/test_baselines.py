"""Blended latent diffusion against a literal loop; Stable Diffusion against diffusers' own pipeline."""

import warnings

import pytest
import torch

from baselines import METHODS, PRESETS, method_named
from baselines.blended_latent import BlendedLatentSettings
from baselines.released.literal import Ddim, guided_noise
from baselines.stable_diffusion import StableDiffusionSettings
from experiments.common.shipped import shipped
from syncdiffusion.errors import UsageError
from syncdiffusion.joint.noise import initial_noise, noise_generator

PROMPT = "a photo of a forest"


@pytest.mark.parametrize(
    ("overlap", "start", "height", "width"),
    [(0.5, 0.25, 64, 160), (0.75, 0.5, 64, 112), (0.25, 0.0, 64, 112), (0.5, 0.25, 96, 96)],
)
def test_blended_latent_equals_a_literal_loop(tiny, overlap, start, height, width):
    """Row by row from the left; of a window in a lower row what is known has the shape of an L."""
    steps, size, scale = 4, 8, 5.0
    chosen = BlendedLatentSettings(
        height=height, width=width, steps=steps, guidance_scale=scale, overlap=overlap, start=start
    )
    ours = METHODS["blended_latent"].sample_latents(tiny, [PROMPT], [4], chosen)

    noise = initial_noise([PROMPT], [4], (4, height // 8, width // 8))
    generator = noise_generator(PROMPT, 4, stream="blend")
    text, empty = tiny.encode_prompts([PROMPT]), tiny.encode_prompts([""])
    ddim, result = Ddim(steps), noise.clone()
    hop = size - int(overlap * size)
    made = torch.zeros(height // 8, width // 8, dtype=torch.bool)
    with torch.no_grad():
        for top in range(0, height // 8 - size + 1, hop):
            for left in range(0, width // 8 - size + 1, hop):
                place = (..., slice(top, top + size), slice(left, left + size))
                known, there = result[place].clone(), made[place].clone()
                x, first = noise[place].clone(), top == left == 0
                times = ddim.timesteps if first else ddim.timesteps[int(start * steps) :]
                for i, t in enumerate(times):
                    x = ddim.previous(x, guided_noise(tiny, x, t, text, empty, scale), t)
                    if not first and i + 1 < len(times):
                        fresh = torch.randn(4, size, size, generator=generator)[None]
                        a = ddim.alpha_bar[times[i + 1]]
                        x[..., there] = (a.sqrt() * known + (1 - a).sqrt() * fresh)[..., there]
                x[..., there] = known[..., there]
                result[place], made[place] = x, True
    # float32, batches of one on both sides; see test_guidance
    assert (ours - result).abs().max() <= 1e-4


def test_blended_latent_never_changes_what_is_known(tiny):
    narrow = BlendedLatentSettings(height=64, width=96, steps=3, guidance_scale=2.0)
    latents = METHODS["blended_latent"].sample_latents(tiny, [PROMPT], [0], narrow)
    noise = initial_noise([PROMPT], [0], (4, 8, 12))
    square = METHODS["stable_diffusion"].sample_latents(
        tiny, [PROMPT], [0], StableDiffusionSettings(height=64, width=64, steps=3, guidance_scale=2.0)
    )
    assert latents.shape == noise.shape
    # The first window is an ordinary sample, from the canvas's own noise and so not of `square`'s.
    assert not torch.equal(latents[..., :8], square)
    wide = METHODS["blended_latent"].sample_latents(
        tiny, [PROMPT], [0], BlendedLatentSettings(height=64, width=96, steps=3, guidance_scale=2.0, start=0.9)
    )
    assert torch.equal(latents[..., :8], wide[..., :8])  # a later window's settings leave it alone
    assert not torch.equal(latents[..., 8:], wide[..., 8:])


def test_stable_diffusion_equals_diffusers_pipeline(tiny, tiny_folder):
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipe = StableDiffusionPipeline.from_pretrained(tiny_folder, safety_checker=None, torch_dtype=torch.float32)
    assert isinstance(pipe.scheduler, DDIMScheduler)
    pipe.set_progress_bar_config(disable=True)
    noise = initial_noise([PROMPT], [6], (4, 8, 8))
    theirs = pipe(
        PROMPT, height=64, width=64, num_inference_steps=5, guidance_scale=4.0, latents=noise.clone(), output_type="pt"
    ).images
    ours = METHODS["stable_diffusion"].generate(
        tiny, [PROMPT], [6], StableDiffusionSettings(height=64, width=64, steps=5, guidance_scale=4.0)
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)  # the same networks in float32


def test_every_method_has_the_same_signature_and_refuses_what_it_cannot_cover(tiny):
    for name, method in METHODS.items():
        assert method.name == name
        with pytest.raises(UsageError, match="width=100: "):
            size = {"height": 64, "width": 100, "steps": 1}
            stride = {"stride": 4} if hasattr(method.settings, "stride") else {}
            method.generate(tiny, ["x"], [0], method.settings(**size, **stride))


def test_every_method_has_a_mark_of_its_own():
    marks = [method.mark for method in METHODS.values() if method.mark is not None]
    assert len(set(marks)) == len(marks) and len({colour for colour, _ in marks}) == len(marks)


@pytest.mark.parametrize("changes", [{"overlap": 0.0}, {"overlap": 1.0}, {"start": 1.0}, {"start": -0.1}, {"steps": 0}])
def test_bad_settings_are_refused_by_name(changes):
    with pytest.raises(UsageError, match=next(iter(changes))):
        BlendedLatentSettings(**changes)


def test_presets_are_those_of_the_configuration():
    folder = shipped("conf") / "method"
    for name, method in PRESETS.items():
        assert f"- {method}@_here_" in (folder / f"{name}.yaml").read_text() and name not in METHODS
        assert method_named(name) is METHODS[method]
    others = {path.stem for path in folder.glob("*.yaml")} - METHODS.keys()
    assert others == PRESETS.keys()
    with pytest.raises(UsageError, match="method=quick: use one of .*fastest"):
        method_named("quick")
