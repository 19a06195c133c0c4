"""Canvases that start from a picture: SDEdit against diffusers' own pipeline, masks, and what is refused."""

import re
import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from baselines import METHODS
from baselines.multidiffusion import MultiDiffusionSettings
from experiments.plan.words import plain_words
from syncdiffusion.cost import Square
from syncdiffusion.errors import UsageError
from syncdiffusion.joint.noise import initial_noise, noise_generator
from syncdiffusion.joint.task import Task, new_task
from syncdiffusion.method_settings import SAMPLERS, StartSettings
from syncdiffusion.perceptual import distances
from tests.baselines.counting import Flat, check_calls
from tests.baselines.test_repaint import literal_levels
from tests.experiments.composing import compose_plan

PROMPT = "a photo of a forest"
JOINT = sorted(name for name, method in METHODS.items() if issubclass(method.settings, StartSettings))
SIZE = {"height": 64, "width": 128, "steps": 5, "guidance_scale": 2.0}


@pytest.fixture
def sketch(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 128, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "sketch.png")
    return str(tmp_path / "sketch.png")


@pytest.fixture
def mask(tmp_path):
    """White in the right half."""
    pixels = np.zeros((64, 128), dtype=np.uint8)
    pixels[:, 64:] = 255
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    return str(tmp_path / "mask.png")


def settings_of(name, **chosen):
    settings = METHODS[name].settings
    strides = {"stride": 4} if hasattr(settings, "stride") else {}
    return settings(**SIZE, **strides, **chosen)


@pytest.mark.parametrize("sampler", ["ddim", "euler", "dpmpp"])
def test_sdedit_equals_diffusers_image_to_image(tiny, tiny_folder, tmp_path, sampler):
    from diffusers import StableDiffusionImg2ImgPipeline
    from diffusers.utils import torch_utils

    from tests.syncdiffusion.test_sampler import scheduler_of

    Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipe = StableDiffusionImg2ImgPipeline.from_pretrained(
            tiny_folder, safety_checker=None, torch_dtype=torch.float32
        )
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = scheduler_of(sampler, tiny.scheduler.config)
    size = {"height": 64, "width": 64, "steps": 5, "guidance_scale": 4.0}
    chosen = MultiDiffusionSettings(
        **size, stride=4, sampler=sampler, start_image=str(tmp_path / "a.png"), start_strength=0.6
    )
    ours = METHODS["multidiffusion"].sample_latents(tiny, [PROMPT], [6], chosen)
    clean = new_task(tiny, [PROMPT], [6], chosen).start.latents  # four channels: taken for latents by the pipeline
    noise = initial_noise([PROMPT], [6], (4, 8, 8))
    with pytest.MonkeyPatch.context() as patch:
        module = __import__(pipe.__module__, fromlist=["randn_tensor"])
        assert module.randn_tensor is torch_utils.randn_tensor
        patch.setattr(module, "randn_tensor", lambda *arguments, **named: noise)
        theirs = pipe(
            PROMPT, image=clean, strength=0.6, num_inference_steps=5, guidance_scale=4.0, output_type="latent"
        ).images
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)  # float32; see test_sampler


def test_a_picture_is_encoded_as_diffusers_does(tiny, sketch):
    task = new_task(tiny, [PROMPT], [6], settings_of("multidiffusion", start_image=sketch))
    pixels = torch.from_numpy(np.array(Image.open(sketch))).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        expected = tiny.vae.encode(pixels).latent_dist.mean * tiny.vae.config.scaling_factor
    torch.testing.assert_close(task.start.latents, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", JOINT)
def test_every_joint_method_starts_from_a_picture(tiny, monkeypatch, sketch, name):
    """With one step of many left, the canvas is still near the picture; and the calls are counted."""
    monkeypatch.setattr(distances, "load_perceptual", lambda *arguments: Flat())
    method, chosen = METHODS[name], settings_of(name, start_image=sketch, start_strength=0.2)
    assert chosen.steps_taken == 1
    latents = method.sample_latents(tiny, [PROMPT], [0], chosen)
    picture = new_task(tiny, [PROMPT], [0], chosen).start.latents
    freely = method.sample_latents(tiny, [PROMPT], [0], settings_of(name))
    assert (latents - picture).std() < 0.5 < (freely - picture).std()
    given = {**SIZE, "start_image": sketch, "start_strength": 0.6}
    check_calls(tiny, monkeypatch, name, given | ({"stride": 4} if hasattr(method.settings, "stride") else {}))
    square = Square(tiny.window, tiny.factor)
    assert method.calls(chosen, square).unet < method.calls(settings_of(name), square).unet


@pytest.mark.parametrize("name", JOINT)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_the_mask_keeps_stays(tiny, monkeypatch, sketch, mask, name, sampler):
    monkeypatch.setattr(distances, "load_perceptual", lambda *arguments: Flat())
    chosen = settings_of(name, start_image=sketch, mask=mask, sampler=sampler)
    latents = METHODS[name].sample_latents(tiny, [PROMPT], [0], chosen)
    task = new_task(tiny, [PROMPT], [0], chosen)
    assert torch.equal(latents[..., :8], task.start.latents[..., :8])
    assert not torch.allclose(latents[..., 8:], task.start.latents[..., 8:])
    # What is made new starts from noise alone, and what stays is at the first step's level.
    signal, noise = task.signal(task.steps[0]), task.pure_noise
    assert torch.equal(task.noise[..., 8:], noise[..., 8:])
    assert torch.equal(task.noise[..., :8], (signal.sqrt() * task.start.latents + (1 - signal).sqrt() * noise)[..., :8])


def test_known_parts_are_at_the_level_of_every_step(tiny, sketch, mask):
    """Whatever a method did to windows before, as a pull does: the first window lies in the part that stays."""
    from syncdiffusion.joint.loop import denoise

    chosen = settings_of("multidiffusion", start_image=sketch, mask=mask)
    task = new_task(tiny, [PROMPT], [0], chosen)
    levels = []

    def predict(step, placed, views):
        signal = task.signal(step)
        known = (signal.sqrt() * task.start.latents + (1 - signal).sqrt() * task.pure_noise)[..., :8]
        levels.append(torch.equal(views[:, 0], known))
        return torch.zeros_like(views)

    denoise(task, task.windows(4), before=lambda step, views: views + 1, predict=predict)
    assert levels == [True] * 5


def test_with_jumps_a_masked_canvas_goes_back_up_as_repaints_windows_do(tiny, sketch, mask):
    """A literal loop of MultiDiffusion around it: float32, five steps of sums in another order."""
    chosen = settings_of("multidiffusion", start_image=sketch, mask=mask, jump_length=2, jump_n_sample=3)
    told = []
    found = METHODS["multidiffusion"].sample_latents(tiny, [PROMPT], [4], chosen, told.append)
    task = new_task(tiny, [PROMPT], [4], chosen)
    windows, clean, pure, new = task.windows(4), task.start.latents, task.pure_noise, task.start.new
    generator = noise_generator(PROMPT, 4, "resampling")
    alphas = [float(task.signal(step)) for step in task.steps[::-1]] + [float(task.sampler._final)]  # -1: the last
    x, way = torch.where(new, pure, 0), literal_levels(5, 2, 3)
    assert len(way) > 6
    for now, then in pairwise(way):
        a, b = alphas[now], alphas[then]
        if then > now:
            x = (b / a) ** 0.5 * x + (1 - b / a) ** 0.5 * torch.randn(x.shape[1:], generator=generator)[None]
            continue
        x = torch.where(new, x, a**0.5 * clean + (1 - a) ** 0.5 * pure)
        total, count, step = torch.zeros_like(x), torch.zeros_like(x), task.steps[4 - now]
        noise = task.predict_noise(step, windows, windows.crop(x))
        for number, (top, left) in enumerate(windows.corners):
            part = x[..., top : top + 8, left : left + 8]
            x0 = (part - (1 - a) ** 0.5 * noise[:, number]) / a**0.5
            total[..., top : top + 8, left : left + 8] += b**0.5 * x0 + (1 - b) ** 0.5 * noise[:, number]
            count[..., top : top + 8, left : left + 8] += 1
        x = total / count
    torch.testing.assert_close(found, torch.where(new, x, clean), atol=1e-4, rtol=0)
    downs = sum(then < now for now, then in pairwise(way))
    assert [(step.index, step.count) for step in told] == [(i, downs) for i in range(downs)]


@pytest.mark.parametrize("name", [name for name in JOINT if not METHODS[name].own_latents])
def test_every_method_of_one_canvas_goes_back_up_and_its_calls_are_counted(tiny, monkeypatch, sketch, mask, name):
    given = {**SIZE, "start_image": sketch, "mask": mask, "jump_length": 1, "jump_n_sample": 2}
    given |= {"stride": 4} if hasattr(METHODS[name].settings, "stride") else {}
    check_calls(tiny, monkeypatch, name, given)
    chosen, square = METHODS[name].settings(**given), Square(tiny.window, tiny.factor)
    once = METHODS[name].settings(**{**given, "jump_n_sample": 1})
    assert METHODS[name].calls(chosen, square).unet > METHODS[name].calls(once, square).unet
    latents = METHODS[name].sample_latents(tiny, [PROMPT], [0], chosen)
    start = new_task(tiny, [PROMPT], [0], chosen).start.latents
    assert torch.equal(latents[..., :8], start[..., :8]) and latents.isfinite().all()
    monkeypatch.setattr(Task, "climb", lambda task, x, back: x)
    assert (METHODS[name].sample_latents(tiny, [PROMPT], [0], chosen) - latents).abs().max() > 0.1


@pytest.mark.parametrize("name", [name for name in JOINT if METHODS[name].own_latents])
def test_windows_that_keep_latents_of_their_own_do_not_go_back_up(sketch, mask, name):
    with pytest.raises(UsageError, match="^jump_n_sample=2: windows of this method keep latents of their own.*use 1"):
        settings_of(name, start_image=sketch, mask=mask, jump_length=2, jump_n_sample=2)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["start_strength=0.5"], "start_strength=0.5: needs a picture; give start_image=FILE as well"),
        (["mask=SKETCH"], "mask=SKETCH: needs a picture"),
        (["start_image=SKETCH", "method.jump_n_sample=3"], "jump_n_sample=3: is of a mask; give start_image=FILE and"),
        (
            ["start_image=SKETCH", "mask=SKETCH", "method.jump_n_sample=3", "steps=10"],
            "jump_n_sample=3: never goes back: only 10 steps are taken, and a jump is 10 long; use a jump_length below",
        ),
        (["method.jump_length=3"], "jump_length=3: is of a mask"),
        (["start_image=SKETCH", "start_strength=1.2"], "start_strength=1.2: use a number above 0 and up to 1"),
        (["start_image=SKETCH", "start_strength=0"], "start_strength=0.0: use"),
        (["start_image=SKETCH", "start_strength=0.01"], "start_strength=0.01: takes none of 25 steps; use 0.04 or"),
        (["start_image=nowhere.png"], "start_image=nowhere.png: no such file"),
        (["start_image=SKETCH", "mask=nowhere.png"], "mask=nowhere.png: no such file"),
    ],
)
def test_mistakes_are_one_line_of_the_plan(sketch, words, told):
    typed = [word.replace("SKETCH", sketch) for word in words]
    with pytest.raises(UsageError, match=rf"^multidiffusion: {re.escape(told.replace('SKETCH', sketch))}[^\n]*$"):
        compose_plan(plain_words(["method=multidiffusion", "experiment=panorama", *typed]))


@pytest.mark.parametrize(
    ("picture", "told"),
    [
        (Image.new("L", (128, 64), 100), "nothing in it is white"),
        (Image.new("L", (64, 64), 255), "is 64x64 px; give one of 128x64, as its picture is"),
        (Image.new("LA", (128, 64), (255, 0)), r"is transparent \(LA\)"),
    ],
)
def test_a_mask_that_cannot_be_meant_is_refused(tiny, sketch, tmp_path, picture, told):
    picture.save(tmp_path / "mask.png")
    chosen = settings_of("multidiffusion", start_image=sketch, mask=str(tmp_path / "mask.png"))
    with pytest.raises(UsageError, match=rf"^mask=[^\n]*mask\.png: {told}[^\n]*$"):
        new_task(tiny, [PROMPT], [0], chosen)


def test_a_mask_has_the_size_of_the_canvas_or_of_the_picture_that_is_enlarged(tiny, sketch, mask, tmp_path):
    with Image.open(sketch) as picture, Image.open(mask) as cover:
        picture.resize((32, 16)).save(tmp_path / "small.png")
        cover.resize((32, 16), Image.Resampling.NEAREST).save(tmp_path / "small_mask.png")
    small = {"start_image": str(tmp_path / "small.png")}
    new = [
        new_task(tiny, [PROMPT], [0], settings_of("multidiffusion", **small, mask=cover)).start.new
        for cover in (mask, str(tmp_path / "small_mask.png"))
    ]
    assert torch.equal(*new) and new[0].any() and not new[0].all()


def test_strength_times_steps_is_rounded_before_it_is_cut(sketch):
    assert MultiDiffusionSettings(steps=50, start_image=sketch, start_strength=0.58).steps_taken == 29
    assert MultiDiffusionSettings(steps=50, start_image=sketch).steps_taken == 40
    assert MultiDiffusionSettings(steps=50, start_image=sketch, mask=sketch).steps_taken == 50
