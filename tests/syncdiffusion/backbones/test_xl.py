"""Stable Diffusion XL's kind of model, tiny and random, against diffusers' own pipeline."""

import json
import shutil

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionXLPipeline

from baselines import METHODS
from syncdiffusion.backbones.loading import load_backbone
from syncdiffusion.conditioning.text import encode
from syncdiffusion.errors import UsageError
from syncdiffusion.joint.noise import initial_noise
from syncdiffusion.sync import METHOD as SYNC
from syncdiffusion.sync import SyncDiffusionSettings

PROMPT = "a photo of a lake"
STEPS, SCALE = 4, 5.0


@pytest.fixture(scope="module")
def pipe(tiny_xl_folder):
    made = StableDiffusionXLPipeline.from_pretrained(tiny_xl_folder, add_watermarker=False)
    made.set_progress_bar_config(disable=True)
    return made


def theirs(pipe, noise, side=(64, 64), **options):
    """Latents that diffusers' pipeline makes of `noise` with DDIM."""
    # A latent is no pixel; Euler's configuration says nothing of clipping.
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)
    return pipe(
        PROMPT, height=side[0], width=side[1], num_inference_steps=STEPS, guidance_scale=SCALE, latents=noise.clone(),
        output_type="latent", **options,
    ).images  # fmt: skip


@pytest.mark.parametrize("negative", ["", "blurry"])
def test_one_window_is_what_diffusers_makes(tiny_xl, pipe, negative):
    chosen = METHODS["stable_diffusion"].settings(
        height=64, width=64, steps=STEPS, guidance_scale=SCALE, negative_prompt=negative
    )
    ours = METHODS["stable_diffusion"].sample_latents(tiny_xl, [PROMPT], [3], chosen)
    expected = theirs(pipe, initial_noise([PROMPT], [3], (4, 8, 8)), negative_prompt=negative or None)
    # float32; both take the guidance pair in one batch
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)
    with torch.no_grad():
        picture = pipe.vae.decode(expected / 0.13025).sample / 2 + 0.5
    torch.testing.assert_close(tiny_xl.decode(ours), picture.clamp(0, 1), atol=1e-4, rtol=0)


def test_a_size_other_than_the_windows_can_be_told(tiny_xl, tiny, pipe):
    """TwinDiffusion's way: each window is told the canvas's size. diffusers' pipeline takes any two sizes."""
    method = METHODS["stable_diffusion"]
    chosen = method.settings(height=64, width=64, steps=STEPS, guidance_scale=SCALE, size_conditioning="canvas")
    noise = initial_noise([PROMPT], [3], (4, 8, 8))
    expected = theirs(pipe, noise)
    torch.testing.assert_close(method.sample_latents(tiny_xl, [PROMPT], [3], chosen), expected, atol=1e-4, rtol=0)
    told = encode(tiny_xl, [PROMPT], "", SCALE, size=(64, 160))
    other = theirs(pipe, noise, original_size=(64, 160), target_size=(64, 160))
    assert (other - expected).abs().max() > 1e-3
    x, ddim = noise, tiny_xl.steps(STEPS)
    with torch.no_grad():
        for t in ddim.timesteps:
            x = ddim.step(tiny_xl.predict_noise(x, t, told), t, x).prev_sample
    torch.testing.assert_close(x, other, atol=1e-4, rtol=0)
    with pytest.raises(UsageError, match=r"^size_conditioning=canvas: this model is told no size[^\n]*use window$"):
        method.generate(tiny, [PROMPT], [3], chosen)


def test_every_window_of_a_canvas_is_told_the_canvas(tiny_xl):
    seen = []

    def look(unet, arguments, named):
        seen.append(named["added_cond_kwargs"]["time_ids"])

    method = METHODS["multidiffusion"]
    for size, numbers in (("window", [64, 64]), ("canvas", [64, 96])):
        chosen = method.settings(height=64, width=96, steps=1, stride=4, window_batch=2, size_conditioning=size)
        hook = tiny_xl.unet.register_forward_pre_hook(look, with_kwargs=True)
        try:
            method.sample_latents(tiny_xl, [PROMPT], [0], chosen)
        finally:
            hook.remove()
        rows = torch.cat(seen)
        assert len(rows) == 2 * 2  # two windows, each with the prompt and without
        assert rows.tolist() == [[*numbers, 0, 0, *numbers]] * len(rows)
        seen.clear()


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_runs(tiny_xl, name):
    method = METHODS[name]
    width = {"stable_diffusion": 64, "safa": 144}.get(name, 128)
    known = method.settings.__dataclass_fields__
    chosen = {"height": 64, "width": width, "steps": 2, "guidance_scale": 2.0}
    chosen |= {key: value for key, value in {"stride": 4, "first_n": 1, "loss": "colour"}.items() if key in known}
    images = method.generate(tiny_xl, [PROMPT], [0], method.settings(**chosen))
    assert images.shape == (1, 3, 64, width) and images.isfinite().all() and images.std() > 0


def test_syncdiffusions_gradient_is_the_slope_of_its_loss(tiny_xl_folder):
    """A pull changes the panorama, and by the direction in which the loss falls."""
    exact = load_backbone(str(tiny_xl_folder), device="cpu", precision="float64")
    told = encode(exact, [PROMPT], "", SCALE)
    x = initial_noise([PROMPT], [0], (4, 8, 8)).double().requires_grad_()
    way = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ddim = exact.steps(STEPS)
    t = ddim.timesteps[0]

    def loss(x):
        foreseen = ddim.step(exact.predict_noise(x, t, told), t, x).pred_original_sample
        return exact.decode(foreseen).mean(dim=(2, 3))[0, 0]

    (slope,) = torch.autograd.grad(loss(x), x)
    assert slope.abs().max() > 0
    with torch.no_grad():
        step = 1e-5
        numeric = (loss(x + step * way) - loss(x - step * way)) / (2 * step)
    # float64: the step's own error is of order step², relative to slopes of order 1e-2
    torch.testing.assert_close((slope * way).sum(), numeric, rtol=1e-5, atol=1e-12)


def test_a_pull_changes_the_panorama(tiny_xl):
    made = [
        SYNC.sample_latents(
            tiny_xl, [PROMPT], [0],
            SyncDiffusionSettings(height=64, width=96, steps=2, stride=4, weight=weight, loss="colour"),
        )
        for weight in (0.0, 20.0)
    ]  # fmt: skip
    assert (made[0] - made[1]).abs().max() > 1e-6


def test_samplers_are_built_from_the_models_own_scheduler(tiny_xl, pipe):
    """Its schedule is Euler's; foreseen latents are not clipped, though its configuration says nothing of it."""
    assert not tiny_xl.scheduler.config.clip_sample
    chosen = METHODS["stable_diffusion"].settings(
        height=64, width=64, steps=STEPS, guidance_scale=SCALE, sampler="euler"
    )
    ours = METHODS["stable_diffusion"].sample_latents(tiny_xl, [PROMPT], [3], chosen)
    own = StableDiffusionXLPipeline.from_pretrained(tiny_xl.model_id, add_watermarker=False)
    own.set_progress_bar_config(disable=True)
    expected = own(
        PROMPT, height=64, width=64, num_inference_steps=STEPS, guidance_scale=SCALE, output_type="latent",
        latents=initial_noise([PROMPT], [3], (4, 8, 8)),
    ).images  # fmt: skip
    torch.testing.assert_close(ours, expected, atol=2e-4, rtol=0)


def test_the_autoencoder_runs_in_float32_where_its_configuration_says_so(tiny_xl_folder, tmp_path):
    low = load_backbone(str(tiny_xl_folder), device="cpu", precision="bfloat16")
    assert low.widen_decoder and low.execution["decoder"] == "float32"
    copy = shutil.copytree(tiny_xl_folder, tmp_path / "mended")
    config = copy / "vae" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"force_upcast": False}))
    assert not load_backbone(str(copy), device="cpu", precision="bfloat16").widen_decoder
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    exact = load_backbone(str(tiny_xl_folder), device="cpu")
    assert torch.equal(low.encode(picture), exact.encode(picture))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_index.json": {"text_encoder_2": [None, None]}}, "its UNet wants addition_embed_type=text_time"),
        ({"model_index.json": {"text_encoder": [None, None]}}, "names no text_encoder"),  # as of SDXL's refiner
        ({"model_index.json": {"text_encoder_2": ["transformers", "CLIPTextModel"]}}, "its text_encoder_2"),
        ({"unet/config.json": {"projection_class_embeddings_input_dim": 70}}, "could not be loaded"),
    ],
)
def test_other_kinds_are_refused_in_a_line(tiny_xl_folder, tmp_path, changes, words):
    copy = shutil.copytree(tiny_xl_folder, tmp_path / "other")
    for name, change in changes.items():
        (copy / name).write_text(json.dumps(json.loads((copy / name).read_text()) | change))
    with pytest.raises(UsageError) as told:
        load_backbone(str(copy), device="cpu")
    assert words in str(told.value) and "\n" not in str(told.value)


def test_regions_have_their_own_pooled_text(tiny_xl, tmp_path):
    """A region of the canvas's own prompt changes nothing; one of another prompt does, through its pooled text too."""
    method = METHODS["multidiffusion"]

    def made(backbone, region):
        layout = None
        if region is not None:
            layout = tmp_path / f"{len(region)}.json"
            regions = [{"prompt": region, "box": [0, 0, 0.5, 1]}]
            layout.write_text(json.dumps({"background": PROMPT, "regions": regions}))
        others = {} if layout is None else {"layout": str(layout), "bootstrapping": 0.0}
        chosen = method.settings(height=64, width=96, steps=2, stride=4, guidance_scale=SCALE, **others)
        return method.sample_latents(backbone, [PROMPT], [0], chosen)

    class Unpooled(type(tiny_xl)):
        def encode_prompts(self, prompts):
            found = super().encode_prompts(prompts)
            found[:, -1] = 0
            return found

    torch.testing.assert_close(made(tiny_xl, PROMPT), made(tiny_xl, None), atol=1e-4, rtol=0)
    city = made(tiny_xl, "a city")
    assert (city - made(tiny_xl, PROMPT)).abs().max() > 1e-3
    fields = {name: getattr(tiny_xl, name) for name in tiny_xl.__dataclass_fields__}
    assert (city - made(Unpooled(**fields), "a city")).abs().max() > 1e-3
