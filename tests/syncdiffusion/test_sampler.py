"""Samplers against diffusers' own pipeline, and what must hold when windows share a canvas."""

import warnings

import pytest
import torch

from baselines import METHODS
from baselines.multidiffusion import MultiDiffusionSettings
from baselines.stable_diffusion import StableDiffusionSettings
from syncdiffusion.errors import UsageError
from syncdiffusion.geometry.windows import place_windows
from syncdiffusion.joint.noise import draw_normal, initial_noise, noise_generator
from syncdiffusion.joint.sampler import new_sampler
from syncdiffusion.joint.task import new_task
from syncdiffusion.method_settings import SAMPLERS

PROMPT, SQUARE = "a photo of a forest", {"height": 64, "width": 64, "guidance_scale": 4.0}


@pytest.fixture(scope="module")
def pipe(tiny_folder):
    from diffusers import StableDiffusionPipeline

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = StableDiffusionPipeline.from_pretrained(tiny_folder, safety_checker=None, torch_dtype=torch.float32)
    found.set_progress_bar_config(disable=True)
    return found


def scheduler_of(name, config):
    import diffusers

    names = {
        "ddim": "DDIMScheduler",
        "ddpm": "DDPMScheduler",
        "euler": "EulerDiscreteScheduler",
        "dpmpp": "DPMSolverMultistepScheduler",
    }
    return getattr(diffusers, names[name]).from_config(config)


CASES = [(name, "leading", kind) for name in SAMPLERS for kind in ("epsilon", "v_prediction")]
CASES += [(name, spacing, "epsilon") for name in ("euler", "dpmpp") for spacing in ("linspace", "trailing")]
CASES += [("euler", "linspace", "v_prediction"), ("ddim", "leading", "sample")]


@pytest.mark.parametrize(("name", "spacing", "kind"), CASES)
def test_one_window_equals_diffusers_pipeline(tiny, pipe, monkeypatch, name, spacing, kind):
    """Whatever the model predicts: noise, v (Stable Diffusion 2.1) or clean latents."""
    config = {**tiny.scheduler.config, "timestep_spacing": spacing, "prediction_type": kind}
    monkeypatch.setattr(pipe, "scheduler", scheduler_of(name, config))
    noise = initial_noise([PROMPT], [6], (4, 8, 8))
    theirs = pipe(
        PROMPT, height=64, width=64, num_inference_steps=5, guidance_scale=4.0, latents=noise.clone(),
        generator=noise_generator(PROMPT, 6, "sampler"), output_type="latent",
    ).images  # fmt: skip
    monkeypatch.setattr(tiny.scheduler, "_internal_dict", type(tiny.scheduler.config)(config))
    chosen = MultiDiffusionSettings(**SQUARE, stride=4, steps=5, sampler=name)
    joint = METHODS["multidiffusion"].sample_latents(tiny, [PROMPT], [6], chosen)
    alone = METHODS["stable_diffusion"].sample_latents(
        tiny, [PROMPT], [6], StableDiffusionSettings(**SQUARE, steps=5, sampler=name)
    )
    # float32 on both sides, latents up to 5; the same operations in another order, as of Euler's scaled latents.
    torch.testing.assert_close(joint, theirs, rtol=0, atol=1e-4)
    torch.testing.assert_close(alone, theirs, rtol=0, atol=1e-4)


def linear(x, t):
    """A noise prediction that is linear, differs from place to place, and belongs to no window."""
    ramp = torch.linspace(0.2, 0.8, x.shape[-1])
    return ramp * x + t / 4000


@pytest.mark.parametrize("name", SAMPLERS)
def test_windows_that_move_come_to_what_the_whole_canvas_does(tiny, name):
    """A prediction that each cell makes of itself alone: whatever the windows, the canvas is as if taken whole."""
    whole = new_sampler(tiny, name, 6, [noise_generator(PROMPT, s) for s in (1, 2)])
    parted = new_sampler(tiny, name, 6, [noise_generator(PROMPT, s) for s in (1, 2)])
    x = draw_normal([noise_generator(PROMPT, s, "x") for s in (1, 2)], (4, 8, 24))
    y, windows = x.clone(), place_windows(8, 24, 8, 4)
    for i, t in enumerate(whole.timesteps):
        x = whole.advance(t, x, linear(x, t))
        placed = windows.shifted([5 * i, 3 * i])
        parted.place(placed)
        y = placed.fuse(parted.advance(t, placed.crop(y), placed.crop(linear(y, t))))
    torch.testing.assert_close(y, x, rtol=0, atol=1e-5)  # float32; means of up to two equal numbers


def test_fresh_noise_keeps_its_variance_on_a_canvas_of_windows(tiny):
    sampler = new_sampler(tiny, "ddpm", 10, [noise_generator(PROMPT, 1)])
    windows = place_windows(8, 256, 8, 2)
    sampler.place(windows)
    t = sampler.timesteps[3]
    zero = torch.zeros(1, len(windows), 4, 8, 8)
    drawn = windows.fuse(sampler.advance(t, zero, zero))
    now, then = sampler.signal(t), sampler.signal_after(t)
    expected = (1 - then) / (1 - now) * (1 - now / then)
    assert drawn.var() == pytest.approx(float(expected), rel=0.06)  # of 8192 numbers; averaged noise would have 1/3


@pytest.mark.parametrize("name", SAMPLERS)
def test_what_is_foreseen_and_the_levels_belong_to_the_same_latents(tiny, name):
    """Clean latents with exact noise are foreseen exactly, and a deterministic step ends at its level, on one noise."""
    sampler = new_sampler(tiny, name, 7, [noise_generator(PROMPT, 1)])
    clean, noise = draw_normal([noise_generator(PROMPT, s, "c") for s in (1, 2)], (1, 4, 8, 8))
    for i, t in enumerate(sampler.timesteps):
        signal = sampler.signal(t)
        x = signal.sqrt() * clean + (1 - signal).sqrt() * noise
        torch.testing.assert_close(sampler.foresee(t, x, noise), clean, rtol=0, atol=1e-4)  # divided by sqrt(signal)
        if i + 1 < len(sampler.timesteps):
            assert sampler.signal_after(t) == pytest.approx(float(sampler.signal(sampler.timesteps[i + 1])))
        if name != "ddpm":
            after = sampler.signal_after(t)
            moved = sampler.advance(t, x, noise)
            torch.testing.assert_close(moved, after.sqrt() * clean + (1 - after).sqrt() * noise, rtol=0, atol=1e-4)


def test_windows_that_stay_remember_each_for_itself(tiny):
    """As latents of no canvas do; the mean of two windows' memories would be another's."""
    placed, alone = (new_sampler(tiny, "dpmpp", 6, [noise_generator(PROMPT, 1)]) for _ in range(2))
    windows = place_windows(8, 16, 8, 4)
    placed.place(windows)
    x = draw_normal([noise_generator(PROMPT, 1, "w")], (len(windows), 4, 8, 8))
    y = x.flatten(0, 1)
    for t in placed.timesteps[:3]:
        x, y = placed.advance(t, x, linear(x, t)), alone.advance(t, y, linear(y, t))
    assert torch.equal(x.flatten(0, 1), y)


def test_memory_follows_canvases_that_take_each_others_places(tiny):
    sampler, other = (new_sampler(tiny, "dpmpp", 6, [noise_generator(PROMPT, 1)]) for _ in range(2))
    windows, rows = place_windows(8, 16, 8, 4), torch.tensor([2, 0, 2])
    x = draw_normal([noise_generator(PROMPT, s, "p") for s in (1, 2, 3)], (len(windows), 4, 8, 8))
    for each in (sampler, other):
        each.place(windows)
        each.advance(each.timesteps[0], x, linear(x, 1))
    sampler.take(rows)
    y = 0.9 * x
    moved = [each.advance(each.timesteps[1], now, linear(now, 1)) for each, now in ((sampler, y[rows]), (other, y))]
    assert torch.equal(moved[0], moved[1][rows])


def test_each_row_of_a_panorama_has_fresh_noise_of_its_own(tiny):
    """Several canvases of two panoramas: no two rows are alike, and a panorama's do not depend on the other's."""
    windows = place_windows(8, 16, 8, 4)

    def drawn(*seeds: int) -> torch.Tensor:
        sampler = new_sampler(tiny, "ddpm", 6, [noise_generator(PROMPT, s) for s in seeds])
        sampler.place(windows)
        zero = torch.zeros(3 * len(seeds), len(windows), 4, 8, 8)
        return sampler.advance(sampler.timesteps[1], zero, zero)

    both = drawn(1, 2)
    assert torch.equal(both[3:], drawn(2))
    assert min(float((both[i] - both[j]).abs().max()) for i in range(6) for j in range(i)) > 0.1


def test_dpm_solver_forgets_when_a_schedule_jumps(tiny):
    sampler = new_sampler(tiny, "dpmpp", 8, [noise_generator(PROMPT, 1)])
    x, noise, other = draw_normal([noise_generator(PROMPT, s, "j") for s in (1, 2, 3)], (1, 4, 8, 8))
    first = sampler.advance(sampler.timesteps[3], x, noise)  # nothing before: first order
    sampler.advance(sampler.timesteps[2], x, other)
    second = sampler.advance(sampler.timesteps[3], x, noise)
    assert not torch.allclose(first, second)
    sampler.advance(sampler.timesteps[5], x, other)
    assert torch.equal(sampler.advance(sampler.timesteps[3], x, noise), first)


def test_too_many_steps_are_refused(tiny):
    for name in SAMPLERS:
        with pytest.raises(UsageError, match="steps=1000: "):
            new_task(tiny, [PROMPT], [0], MultiDiffusionSettings(**SQUARE, steps=1000, sampler=name))
    with pytest.raises(UsageError, match="^sampler=plms: use one of ddim, ddpm, euler, dpmpp$"):
        MultiDiffusionSettings(sampler="plms")
