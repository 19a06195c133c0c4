"""Loading models: the embedded miniature, a local folder, and what cannot be loaded."""

import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from baselines.multidiffusion import METHOD as MULTIDIFFUSION
from baselines.released.literal import Ddim, literal_sample
from syncdiffusion.backbones import kind, loading
from syncdiffusion.backbones.backbone import Backbone
from syncdiffusion.backbones.loading import choose_precision, load_backbone
from syncdiffusion.backbones.model_files import EMBEDDED_FOLDER, fingerprint_folder
from syncdiffusion.errors import UsageError
from syncdiffusion.joint.noise import initial_noise
from syncdiffusion.joint.sampler import new_sampler
from syncdiffusion.sync import METHOD, SyncDiffusionSettings
from tests.metric_networks import library_lpips, load_or_skip

REPOSITORY = Path(__file__).parents[3]
PROMPT = "a photo of a mountain range at twilight"


@pytest.fixture(scope="module")
def mini() -> Backbone:
    return load_backbone(device="cpu")


def test_the_miniature_has_the_papers_geometry_divided_by_four(mini):
    assert (mini.window, mini.factor) == (16, 8)
    images = mini.decode(torch.randn(2, mini.channels, 16, 96, generator=torch.Generator().manual_seed(0)))
    assert images.shape == (2, 3, 128, 768)
    assert 0 <= images.min() and images.max() <= 1


def test_all_embedded_weights_weigh_at_most_45_megabytes():
    weights = EMBEDDED_FOLDER.parent
    assert sum(p.stat().st_size for p in weights.rglob("*") if p.is_file()) <= 45e6
    suffixes = {p.suffix for p in weights.rglob("*") if p.is_file()}
    assert suffixes <= {".json", ".txt", ".safetensors", ".md", ".png"}  # no pickles


def test_diffusers_opens_the_miniature_and_draws_the_same(mini):
    from diffusers import StableDiffusionPipeline

    from baselines.stable_diffusion import METHOD as STABLE_DIFFUSION
    from baselines.stable_diffusion import StableDiffusionSettings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipe = StableDiffusionPipeline.from_pretrained(EMBEDDED_FOLDER)
    pipe.set_progress_bar_config(disable=True)
    noise = initial_noise([PROMPT], [0], (mini.channels, 16, 16))
    options = {"height": 128, "width": 128, "guidance_scale": 3.0}
    theirs = pipe(PROMPT, latents=noise, num_inference_steps=4, output_type="pt", **options).images
    ours = STABLE_DIFFUSION.generate(mini, [PROMPT], [0], StableDiffusionSettings(steps=4, **options))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)  # float32, four steps of the same networks


def test_any_prompt_can_be_encoded(mini):
    prompts = ["", "Ein Schloß, 夜の城 🏰", "a " * 500, "\x00\n\t", "zxqj" * 40]
    embeddings = mini.encode_prompts(prompts)
    assert embeddings.shape[0] == len(prompts) and torch.isfinite(embeddings).all()
    assert not torch.equal(embeddings[0], embeddings[1])


def test_the_miniatures_schedule_is_stable_diffusions(mini):
    ours, literal = mini.steps(50), Ddim(50)
    assert ours.timesteps.tolist() == literal.timesteps
    torch.testing.assert_close(ours.alphas_cumprod, literal.alpha_bar, rtol=1e-6, atol=0)
    latents, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    for t in (981, 501, 1):
        step = ours.step(noise, t, latents)
        torch.testing.assert_close(step.pred_original_sample, literal.foreseen(latents, noise, t), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(step.prev_sample, literal.previous(latents, noise, t), rtol=1e-5, atol=1e-5)


def test_syncdiffusion_on_the_miniature_equals_the_literal_loop():
    """In float64: at the paper's weight the gradient steps amplify float32's rounding a hundred thousand times."""
    exact = load_backbone(device="cpu", precision="float64")
    distance = library_lpips("alex", "lpips_alex").double()
    chosen = SyncDiffusionSettings(
        height=128, width=224, steps=4, stride=4, loss="lpips_alex", weight=20.0, first_n=3, window_batch=4
    )
    ours = METHOD.sample_latents(exact, [PROMPT], [3], chosen)
    noise = initial_noise([PROMPT], [3], ours.shape[1:]).double()
    options = {"stride": 4, "steps": 4, "guidance_scale": 7.5}
    literal = literal_sample(exact, PROMPT, noise, distance=distance, weight=20.0, first_n=3, **options)
    difference = (ours - literal).abs().max()
    print(f"largest difference {difference:.1e} of latents up to {literal.abs().max():.1f}")
    assert ours.dtype == torch.float64
    assert difference <= 1e-9  # rounding of 1e-16, amplified; 6e-13 measured
    assert (ours - literal_sample(exact, PROMPT, noise, **options)).abs().max() > 1e-2


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler for torch.compile")
def test_compiled_equals_eager(tiny_folder):
    """In float64, where compiled kernels differ from the others by rounding alone: 1e-16, amplified."""
    load_or_skip("lpips_alex")
    chosen = SyncDiffusionSettings(
        height=64, width=96, steps=3, stride=4, weight=5.0, first_n=2, loss="lpips_alex", gradient_batch=1
    )
    eager, compiled = (
        METHOD.sample_latents(
            load_backbone(str(tiny_folder), device="cpu", precision="float64", compiled=each), [PROMPT], [0], chosen
        )
        for each in (False, True)
    )
    assert not torch.equal(eager, compiled)  # else nothing was compiled
    assert (eager - compiled).abs().max() <= 1e-9


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("no working C++ compiler\nmore of it"), "no working C++ compiler"),
        (RuntimeError("backend raised:\nAssertionError: core.py\n\nmore"), "backend raised: AssertionError: core.py"),
        (AssertionError(), "AssertionError"),
    ],
)
def test_where_nothing_can_compile_its_reason_is_told_in_a_line(tiny_folder, monkeypatch, error, reason):
    def fail(function):
        raise error

    monkeypatch.setattr(torch, "compile", fail)
    with pytest.raises(UsageError) as told:
        load_backbone(str(tiny_folder), device="cpu", compiled=True)
    expected = f"compiled=true: torch.compile does not work here ({reason}); use false, or mend that"
    assert str(told.value) == expected


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler for torch.compile")
def test_a_missing_compiler_is_named(tiny_folder, tmp_path):
    """In a process whose compiler is not there; torch looks for it once and remembers."""
    program = (
        "from syncdiffusion.backbones.loading import load_backbone\n"
        "from syncdiffusion.errors import UsageError\n"
        f"try:\n    load_backbone({str(tiny_folder)!r}, device='cpu', compiled=True)\n"
        "except UsageError as error:\n    print(error)"
    )
    nowhere = {"CXX": str(tmp_path / "no-compiler"), "PATH": str(tmp_path), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, env=os.environ | nowhere, capture_output=True, text=True
    )
    assert "No working C++ compiler found" in done.stdout and done.stdout.count("\n") == 1, done.stderr


def test_auto_precision_is_float32_on_a_cpu_and_float16_on_a_gpu(tiny_folder):
    assert load_backbone(str(tiny_folder), device="cpu").precision == "float32"
    assert choose_precision("auto", torch.device("cuda")) == "float16"
    assert choose_precision("bfloat16", torch.device("cpu")) == "bfloat16"  # what is asked for is not changed
    assert choose_precision("tf32", torch.device("cuda")) == "tf32"


def test_tf32_is_on_for_its_precision_alone_and_outlives_no_call(tiny, monkeypatch):
    """PyTorch's own names of it; on this machine only they can be looked at."""
    products, convolutions, seen = torch.backends.cuda.matmul, torch.backends.cudnn.conv, []
    before = products.fp32_precision, convolutions.fp32_precision
    inside = MULTIDIFFUSION.settings(height=64, width=96, steps=1, stride=4)

    def look(step):
        seen.append((products.fp32_precision, convolutions.fp32_precision))

    for precision in ("float32", "tf32", "bfloat16"):
        MULTIDIFFUSION.generate(replace(tiny, precision=precision), [PROMPT], [0], inside, look)
    assert seen == [("ieee", "ieee"), ("tf32", "tf32"), ("ieee", "ieee")]
    assert (products.fp32_precision, convolutions.fp32_precision) == before
    with pytest.raises(ZeroDivisionError), replace(tiny, precision="tf32").running():
        raise ZeroDivisionError
    assert (products.fp32_precision, convolutions.fp32_precision) == before
    assert replace(tiny, precision="tf32").execution == {
        "memory_format": "channels_last", "tf32": True, "decoder": "tf32",
    }  # fmt: skip


def test_a_decoder_that_needs_float32_has_it(tiny):
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    low = replace(tiny, precision="bfloat16")
    assert not torch.equal(low.decode(latents), tiny.decode(latents))
    wide = replace(low, widen_decoder=True)
    assert torch.equal(wide.decode(latents), tiny.decode(latents))
    assert (low.execution["decoder"], wide.execution["decoder"]) == ("bfloat16", "float32")


@pytest.mark.parametrize("part", ["text_encoder", "unet", "vae"])
def test_weights_that_are_not_there_are_not_drawn_at_random(tiny_folder, tmp_path, part):
    copy = shutil.copytree(tiny_folder, tmp_path / "copy")
    (file,) = (copy / part).glob("*.safetensors")
    weights = load_file(file)
    name = sorted(weights)[0]
    save_file({f"other.{key}" if key == name else key: value for key, value in weights.items()}, file, {"format": "pt"})
    with pytest.raises(UsageError) as told:
        load_backbone(str(copy), device="cpu")
    assert re.match(rf"backbone.model_id={copy}: 1 weights of its {part} were not found \(.*{name}", str(told.value))
    assert "\n" not in str(told.value)


def test_a_fingerprint_follows_the_weights_not_the_place(tiny_folder, tmp_path):
    copy = shutil.copytree(tiny_folder, tmp_path / "copy")
    assert fingerprint_folder(copy) == fingerprint_folder(tiny_folder)
    (copy / "README.md").write_text("a card")
    assert fingerprint_folder(copy) == fingerprint_folder(tiny_folder)
    config = copy / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"steps_offset": 0}))
    assert fingerprint_folder(copy) != fingerprint_folder(tiny_folder)


def test_weights_are_frozen_and_float32(mini):
    for part in (mini.unet, mini.vae, mini.text_encoder):
        assert not part.training
        assert {p.dtype for p in part.parameters()} == {torch.float32}
        assert not any(p.requires_grad for p in part.parameters())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model_id": "./nowhere"}, "model_id=./nowhere: no such folder"),
        ({"model_id": "no-slash"}, "model_id=no-slash: no such folder"),
        ({"precision": "tf32"}, "precision=tf32: a cpu has no TF32; use float32"),
        ({"precision": "int8"}, "precision=int8: use one of auto, float64, float32"),
        ({"device": "abacus"}, "device=abacus: not usable here"),
        ({"model_id": "nobody/no-such-model-at-all"}, "could not be loaded"),  # offline in the tests
    ],
)
def test_what_cannot_be_loaded_is_refused_in_one_line(options, words):
    with pytest.raises(UsageError) as error:
        load_backbone(**{"device": "cpu", **options})
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_folder_without_a_model_or_with_half_of_one_is_refused(tiny_folder, tmp_path):
    with pytest.raises(UsageError, match="no model_index.json there"):
        load_backbone(str(tmp_path), device="cpu")
    half = shutil.copytree(tiny_folder, tmp_path / "half")
    shutil.rmtree(half / "unet")
    with pytest.raises(UsageError, match="could not be loaded"):
        load_backbone(str(half), device="cpu")


@pytest.mark.parametrize(
    ("network", "changes", "words"),
    [
        ("unet", {"in_channels": 9}, "its UNet takes 9 channels, its autoencoder has 4; give a text-to-image model"),
        ("unet", {"time_cond_proj_dim": 256}, "its UNet is told the guidance scale, as of latent consistency models"),
        ("vae", {"latents_mean": [0.0] * 4}, "its autoencoder has latents_mean, by which no latents are scaled"),
    ],
)
def test_networks_of_another_kind_are_refused(tiny_folder, monkeypatch, network, changes, words):
    """Found when all is loaded, whatever file told it."""
    whole = loading._whole

    def changed(*arguments, **options):
        found = whole(*arguments, **options)
        if arguments[4] == network:
            found.register_to_config(**changes)
        return found

    monkeypatch.setattr(loading, "_whole", changed)
    with pytest.raises(UsageError, match=f"^backbone.model_id=.*: {words}"):
        load_backbone(str(tiny_folder), device="cpu")


def test_a_schedule_that_begins_without_signal_is_refused(tiny):
    """Where the first step's latents are noise alone, what they become cannot be told from the noise in them."""
    config = {**tiny.scheduler.config, "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    trailing, leading = (
        replace(tiny, scheduler=kind.ddim({**config, "timestep_spacing": spacing}))
        for spacing in ("trailing", "leading")
    )
    with pytest.raises(UsageError, match="^scheduler: rescale_betas_zero_snr with timestep_spacing=trailing .*use"):
        trailing.steps(5)
    for name in ("ddpm", "euler", "dpmpp"):  # the latter two have schedules of their own
        with pytest.raises(UsageError, match="^scheduler: rescale_betas_zero_snr"):
            new_sampler(trailing, name, 5, [])
    assert float(leading.steps(5).alphas_cumprod[leading.steps(5).timesteps[0]]) > 0


def test_schedules_of_another_kind_are_refused():
    for config, words in (({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "its scheduler is FlowMatch"),
                          ({"prediction_type": "flow_prediction"}, "prediction_type is flow_prediction")):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            kind.ddim(config)


def test_a_model_beyond_the_memory_is_told_in_a_line(tiny_folder, monkeypatch):
    def full(network, device, dtype):
        raise torch.OutOfMemoryError("for the test")

    monkeypatch.setattr(loading, "freeze", full)
    with pytest.raises(UsageError, match="^device=cpu: the model does not fit into its free memory; end what else"):
        load_backbone(str(tiny_folder), device="cpu")
