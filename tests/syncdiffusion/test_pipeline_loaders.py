"""What a pipeline of diffusers takes: LoRA, textual inversion, offloading, tiling, safety checker, schedulers."""

import warnings

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
)

from syncdiffusion.backbones.loading import load_backbone
from syncdiffusion.backbones.model_files import EMBEDDED_FOLDER
from syncdiffusion.errors import UsageError
from syncdiffusion.pipeline import SyncDiffusionPipeline
from tests.syncdiffusion.pipelines import of_diffusers, opened, seeded

ONE = {"height": 64, "width": 64, "num_inference_steps": 3, "guidance_scale": 3.0, "output_type": "latent"}
OURS = {"method": "multidiffusion"}


@pytest.fixture
def pipe(tiny_folder):
    return opened(tiny_folder)


def lora_weights(pipe, folder):
    """Random ones, of the UNet's and of the text encoder's attention; the networks stay as they were."""
    from peft import LoraConfig, get_peft_model_state_dict

    layers = {}
    for name, targets in (("unet", ["to_q", "to_v"]), ("text_encoder", ["q_proj", "v_proj"])):
        network = getattr(pipe, name)
        network.add_adapter(LoraConfig(r=2, lora_alpha=4, target_modules=targets), "new")
        for key, weight in network.named_parameters():
            if "lora_" in key:
                weight.data.copy_(torch.randn(weight.shape, generator=seeded(len(key))))
        layers[name] = get_peft_model_state_dict(network, adapter_name="new")
    StableDiffusionPipeline.save_lora_weights(
        folder, unet_lora_layers=layers["unet"], text_encoder_lora_layers=layers["text_encoder"]
    )


def test_lora_weights_do_what_they_do_in_diffusers(pipe, tiny_folder, tmp_path):
    """One window is a plain picture of Stable Diffusion. Tolerance: float32 over three steps."""
    lora_weights(opened(tiny_folder), tmp_path)
    plain = pipe("a", generator=seeded(1), **ONE, **OURS).images
    pipe.load_lora_weights(tmp_path)
    theirs = of_diffusers(StableDiffusionPipeline, pipe)
    for scale in (1.0, 0.5):
        options = {"generator": seeded(1), "cross_attention_kwargs": {"scale": scale}, **ONE}
        ours = pipe("a", **options, **OURS).images
        options["generator"] = seeded(1)
        assert (ours - theirs("a", **options).images).abs().max() < 1e-4
        assert (ours - plain).abs().max() > 1e-3
    for wrong in ({"scale": "half"}, {"other": 1}):
        with pytest.raises(UsageError, match=r"^cross_attention_kwargs=.*: use \{'scale'"):
            pipe("a", cross_attention_kwargs=wrong, **ONE)
    pipe.unload_lora_weights()
    assert torch.equal(pipe("a", generator=seeded(1), **ONE, **OURS).images, plain)
    with pytest.raises(UsageError, match="no LoRA is loaded"):
        pipe("a", cross_attention_kwargs={"scale": 0.5}, **ONE)


def test_a_word_of_textual_inversion_is_its_vectors(tmp_path):
    """A word taught the vectors of "lake" and "mountain" says what these two say, in the prompt and to a method."""
    pipe = opened(EMBEDDED_FOLDER)
    words = pipe.tokenizer(["lake mountain"], add_special_tokens=False).input_ids[0]
    assert len(words) == 2
    vectors = pipe.text_encoder.get_input_embeddings().weight[words].detach().clone()
    pipe.load_textual_inversion({"<both>": vectors}, token="<both>")
    told = [pipe.encode_prompt([text], "cpu", 1, False)[0] for text in ("a lake mountain", "a <both>")]
    assert torch.equal(*told)
    assert torch.equal(pipe.backbone().encode_prompts(["a <both>"]), told[0])
    pipe.save_pretrained(tmp_path)  # a folder that was taught it already
    assert torch.equal(load_backbone(str(tmp_path), device="cpu").encode_prompts(["a <both>"]), told[0])


@pytest.mark.parametrize("clip_skip", [None, 1])
def test_what_the_text_encoder_does_not_read_is_told_once(pipe, caplog, clip_skip):
    """Sixteen tokens of the tiny model, two of which mark the ends: of twenty letters six are left out."""
    text = f"a b c d e f g h i j k l m n {'o p q r s t' if clip_skip is None else 'u v w x y z'}"
    backbone = pipe.backbone()
    with caplog.at_level("WARNING", logger="syncdiffusion"):
        for _ in range(2):
            if clip_skip is None:
                backbone.encode_prompts([text, "a b"])
            else:
                pipe(text, clip_skip=clip_skip, **ONE, **OURS)
    told = [each.message for each in caplog.records if each.name.startswith("syncdiffusion")]
    assert told == [f"prompt: 22 tokens, of which the model reads 16; left out: '{text[-11:]}'"]


def test_offloaded_networks_make_the_same_picture(pipe):
    """The CPU as the device: which network is where is seen, and no more. UNet and autoencoder move once a call."""
    options = {"seed": 1, **(ONE | OURS | {"output_type": "pt", "width": 96, "stride": 4})}
    before = pipe("a", **options).images
    pipe.enable_model_cpu_offload(device="cpu")
    hooked = []

    def look(pipe, index, timestep, tensors):
        hooked.append([hasattr(getattr(pipe, name), "_hf_hook") for name in ("unet", "vae", "text_encoder")])
        return {}

    assert torch.equal(pipe("a", callback_on_step_end=look, **options).images, before)
    assert hooked == 3 * [[False, False, True]]
    assert all(hasattr(getattr(pipe, name), "_hf_hook") for name in ("unet", "vae", "text_encoder"))
    with pytest.raises(UsageError, match="^width=100"):
        pipe("a", **(options | {"width": 100}))
    for name in ("enable_sequential_cpu_offload", "enable_group_offload"):
        with pytest.raises(ValueError, match=f"^{name}: .* use enable_model_cpu_offload"):
            getattr(pipe, name)()


def test_the_autoencoders_own_tiles_and_slices_are_used(pipe):
    options = {"seed": 1, **(ONE | OURS | {"output_type": "pt", "width": 128, "stride": 4})}
    whole = pipe("a", **options).images
    pipe.enable_vae_slicing()
    assert torch.equal(pipe("a", **options).images, whole)
    pipe.enable_vae_tiling()
    tiled = pipe("a", **options).images
    latents = pipe("a", **(options | {"output_type": "latent"})).images
    theirs = pipe.vae.tiled_decode(latents / pipe.vae.config.scaling_factor).sample
    assert (tiled - (theirs / 2 + 0.5).clamp(0, 1)).abs().max() < 1e-5 < (tiled - whole).abs().max()


def test_what_a_safety_checker_finds_is_black(tiny_folder):
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessor

    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = small | {"image_size": 32, "patch_size": 16}
    checker = StableDiffusionSafetyChecker(CLIPConfig(text_config=small, vision_config=vision, projection_dim=8)).eval()
    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    pipe = opened(tiny_folder, safety_checker=checker, feature_extractor=processor)
    options = {"seed": 1, **(ONE | OURS | {"output_type": "np"})}
    for least, unsafe in ((2.0, False), (-2.0, True)):  # of a cosine
        checker.concept_embeds_weights.data.fill_(least)
        checker.special_care_embeds_weights.data.fill_(2.0)
        images, found = pipe("a", return_dict=False, **options)
        assert found == [unsafe] and (images.max() == 0) == unsafe
    with pytest.raises(ValueError, match="^feature_extractor=None: "):
        SyncDiffusionPipeline(**(pipe.components | {"feature_extractor": None}))


@pytest.mark.parametrize("scheduler", [EulerDiscreteScheduler, DPMSolverMultistepScheduler])
@pytest.mark.parametrize("changes", [{}, {"use_karras_sigmas": True}], ids=["plain", "karras"])
def test_another_scheduler_is_followed(pipe, scheduler, changes):
    """Of one window: the same latents as StableDiffusionPipeline's. Tolerance: float32, and latents of size 10."""
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config, **changes)
    theirs = of_diffusers(StableDiffusionPipeline, pipe)("a", generator=seeded(1), **ONE).images
    ours = pipe("a", generator=seeded(1), **ONE, **OURS).images
    assert (ours - theirs).abs().max() < 1e-3
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    assert (ours - pipe("a", generator=seeded(1), **ONE, **OURS).images).abs().max() > 1e-3


def test_a_unet_of_another_kind_is_refused(pipe):
    for changes, words in (
        ({"in_channels": 9}, "^unet: its UNet takes 9 channels, its autoencoder has 4; give"),
        ({"addition_embed_type": "text_time"}, "^unet: wants addition_embed_type=text_time; give"),
    ):
        before = dict(pipe.unet.config)
        pipe.unet.register_to_config(**changes)
        with pytest.raises(ValueError, match=words):
            pipe("a", **ONE)
        pipe.unet.register_to_config(**before)


def test_a_scheduler_that_is_none_of_the_samplers_is_refused(pipe):
    config = pipe.scheduler.config
    for scheduler, words in (
        (
            EulerAncestralDiscreteScheduler.from_config(config),
            "^scheduler=EulerAncestralDiscreteScheduler: .*use one of",
        ),
        (DPMSolverMultistepScheduler.from_config(config, algorithm_type="sde-dpmsolver++"), "algorithm_type=sde"),
        (DPMSolverMultistepScheduler.from_config(config, solver_order=3), "solver_order=3"),
    ):
        pipe.scheduler = scheduler
        with pytest.raises(ValueError, match=words):
            pipe("a", **ONE)
    pipe.scheduler = EulerAncestralDiscreteScheduler.from_config(config)
    assert pipe("a", sampler="ddim", **ONE, **OURS).images.shape == (1, 4, 8, 8)


def test_stable_diffusions_stored_scheduler_becomes_ddim(pipe):
    stored = PNDMScheduler.from_config(pipe.scheduler.config)
    made = SyncDiffusionPipeline(**(pipe.components | {"scheduler": stored}))
    assert type(made.scheduler) is DDIMScheduler
    made.set_progress_bar_config(disable=True)
    assert torch.equal(made("a", seed=1, **ONE, **OURS).images, pipe("a", seed=1, **ONE, **OURS).images)


def test_whatever_the_scheduler_is_made_from_nothing_foreseen_is_clipped(pipe):
    """A scheduler of its own configuration says nothing of clipping, which DDIM does to [-1, 1] by default."""
    betas = {name: pipe.scheduler.config[name] for name in ("beta_start", "beta_end", "beta_schedule")}
    for stored in (PNDMScheduler(**betas, steps_offset=1), EulerDiscreteScheduler(**betas, steps_offset=1)):
        made = SyncDiffusionPipeline(**(pipe.components | {"scheduler": stored}))
        made.set_progress_bar_config(disable=True)
        found = made("a", seed=1, sampler="ddim", **ONE, **OURS).images
        for clips in (False, True):  # as of a file that asks for it, which diffusers' own pipeline does not follow
            pipe.scheduler = DDIMScheduler.from_config(stored.config, clip_sample=clips)
            assert torch.equal(pipe("a", seed=1, **ONE, **OURS).images, found)
        assert found.abs().max() > 2  # clipped ones end within 1
    pipe.scheduler = EDMEulerScheduler()
    with pytest.raises(ValueError, match="^scheduler=EDMEulerScheduler: its scheduler is EDM"):
        pipe("a", sampler="ddim", **ONE)


def test_sigmas_that_share_a_timestep_are_steps_of_their_own(pipe):
    """Of Karras' at 50 steps two lie at one timestep. Tolerance: float32 over 50 steps, latents of size 10."""
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config, use_karras_sigmas=True)
    pipe.scheduler.set_timesteps(50)
    assert len(set(pipe.scheduler.timesteps.tolist())) < 50
    options = ONE | {"num_inference_steps": 50}
    theirs = of_diffusers(StableDiffusionPipeline, pipe)("a", generator=seeded(1), **options).images
    told = []

    def look(pipe, index, timestep, tensors):
        told.append(index)
        return {}

    ours = pipe("a", generator=seeded(1), callback_on_step_end=look, **options, **OURS).images
    assert (ours - theirs).abs().max() < 1e-4 and told == list(range(50))


def test_pipelines_are_made_of_each_other_and_saved(pipe, tmp_path):
    first = pipe("a", seed=1, **ONE, **OURS).images
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = StableDiffusionPipeline.from_pipe(pipe)
        back = SyncDiffusionPipeline.from_pipe(plain)
        pipe.save_pretrained(tmp_path)
    assert back.unet is pipe.unet
    for other in (back, opened(tmp_path)):
        other.set_progress_bar_config(disable=True)
        assert torch.equal(other("a", seed=1, **ONE, **OURS).images, first)


def test_a_compiled_unet_predicts_and_its_own_takes_gradients(pipe):
    class Compiled(torch.nn.Module):
        """As torch.compile's: the network inside, and calls of its own."""

        def __init__(self, network):
            super().__init__()
            self._orig_mod, self.calls = network, 0

        def __getattr__(self, name):
            return super().__getattr__(name) if name in ("_orig_mod", "_modules") else getattr(self._orig_mod, name)

        def forward(self, *args, **options):
            self.calls += 1
            return self._orig_mod(*args, **options)

    before, network = pipe("a", seed=1, **ONE, **OURS).images, pipe.unet
    pipe.unet = Compiled(network)
    backbone = pipe.backbone()
    assert backbone.unet is network and backbone.compiled_unet is pipe.unet
    assert torch.equal(pipe("a", seed=1, **ONE, **OURS).images, before) and pipe.unet.calls > 0
