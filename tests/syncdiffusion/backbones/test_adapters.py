"""LoRA, Custom Diffusion and textual inversion on tiny models, against diffusers' pipelines with the same files.

Tolerance 1e-4 on latents of unit size: diffusers has a LoRA's layers beside the weights, here they are added to them.
"""

import warnings
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
from diffusers.models.attention_processor import AttnProcessor2_0, CustomDiffusionAttnProcessor
from diffusers.utils import convert_state_dict_to_diffusers
from huggingface_hub.errors import EntryNotFoundError
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from PIL import Image
from safetensors.torch import load_file, save_file

from baselines import METHODS
from experiments.panoramas.index import named_model
from experiments.stages.model import model_facts
from syncdiffusion.backbones import adapting
from syncdiffusion.backbones.adapters import Adapters, is_hub_id, with_scale
from syncdiffusion.backbones.adapting import adapt
from syncdiffusion.backbones.loading import load_backbone
from syncdiffusion.backbones.model_files import fingerprint
from syncdiffusion.cli import as_options, chosen_adapters, parser
from syncdiffusion.errors import UsageError
from syncdiffusion.joint.noise import initial_noise

PROMPT = "a photo of a lake"
STEPS, SCALE = 3, 5.0
KINDS = {"sd": ("tiny_folder", StableDiffusionPipeline), "xl": ("tiny_xl_folder", StableDiffusionXLPipeline)}


def opened(request, kind):
    """(folder, diffusers' pipeline of it with DDIM)."""
    fixture, pipeline = KINDS[kind]
    folder = request.getfixturevalue(fixture)
    options = {"safety_checker": None} if kind == "sd" else {"add_watermarker": False}
    pipe = pipeline.from_pretrained(folder, **options)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)
    pipe.set_progress_bar_config(disable=True)
    return folder, pipe


def ours(folder, prompt=PROMPT, **adapters):
    backbone = load_backbone(str(folder), device="cpu", adapters=Adapters(**adapters))
    chosen = METHODS["stable_diffusion"].settings(height=64, width=64, steps=STEPS, guidance_scale=SCALE)
    return METHODS["stable_diffusion"].sample_latents(backbone, [prompt], [0], chosen)


def theirs(pipe, prompt=PROMPT, noise_of=PROMPT, **options):
    return pipe(
        prompt, height=64, width=64, num_inference_steps=STEPS, guidance_scale=SCALE, output_type="latent",
        latents=initial_noise([noise_of], [0], (4, 8, 8)), **options,
    ).images  # fmt: skip


def write_lora(pipe, folder, seed=0, rank=2, alpha=6, name="lora.safetensors", metadata=True):
    """A random LoRA of UNet and text encoder, as diffusers' training scripts write one."""
    found = {}
    unet_lora = LoraConfig(r=rank, lora_alpha=alpha, target_modules=["to_k", "to_q", "to_v", "to_out.0"])
    text_lora = LoraConfig(r=rank, lora_alpha=alpha, target_modules=["q_proj", "v_proj"])
    for part, config in (("unet", unet_lora), ("text_encoder", text_lora)):
        network = getattr(pipe, part)
        network.add_adapter(config, adapter_name="made")
        generator = torch.Generator().manual_seed(seed)
        for parameter, value in network.named_parameters():
            if ".lora_" in parameter:
                value.data = 0.3 * torch.randn(value.shape, generator=generator)
        state = get_peft_model_state_dict(network, adapter_name="made")
        found[f"{part}_lora_layers"] = convert_state_dict_to_diffusers(state)
        if metadata:
            found[f"{part}_lora_adapter_metadata"] = config.to_dict()
        network.delete_adapters("made") if hasattr(network, "delete_adapters") else network.delete_adapter("made")
    type(pipe).save_lora_weights(folder, weight_name=name, **found)
    return folder / name


@pytest.mark.parametrize("kind", KINDS)
def test_a_lora_does_what_it_does_in_diffusers(request, tmp_path, kind):
    folder, pipe = opened(request, kind)
    file = write_lora(pipe, tmp_path)
    _, pipe = opened(request, kind)
    plain = theirs(pipe)
    pipe.load_lora_weights(tmp_path, weight_name=file.name)
    expected = theirs(pipe, cross_attention_kwargs={"scale": 0.7})
    assert (expected - plain).abs().max() > 0.01
    torch.testing.assert_close(ours(folder, lora=str(file), lora_scale=0.7), expected, atol=1e-4, rtol=0)


def test_several_loras_add_up_and_leave_nothing_but_weights(request, tmp_path):
    folder, pipe = opened(request, "sd")
    files = [write_lora(pipe, tmp_path, seed, name=f"{seed}.safetensors") for seed in (1, 2)]
    _, pipe = opened(request, "sd")
    for name, file in zip("ab", files, strict=True):
        pipe.load_lora_weights(tmp_path, weight_name=file.name, adapter_name=name)
    pipe.set_adapters(["a", "b"], [0.5, -0.4])
    adapters = Adapters(lora=[str(each) for each in files], lora_scale=[0.5, -0.4])
    torch.testing.assert_close(
        ours(folder, lora=adapters.lora, lora_scale=adapters.lora_scale), theirs(pipe), atol=1e-4, rtol=0
    )
    made, plain = load_backbone(str(folder), device="cpu", adapters=adapters), load_backbone(str(folder), device="cpu")
    for part in ("unet", "text_encoder", "vae"):
        found, expected = dict(getattr(made, part).named_parameters()), dict(getattr(plain, part).named_parameters())
        assert found.keys() == expected.keys() and not any(each.requires_grad for each in found.values())
    assert {type(each) for each in made.unet.attn_processors.values()} == {AttnProcessor2_0}
    twice = load_backbone(str(folder), device="cpu", adapters=Adapters(lora=adapters.lora[:1], lora_scale=0.0))
    same = zip(twice.unet.parameters(), plain.unet.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in same)


@pytest.mark.parametrize("name", ["mad", "sync_tweedies", "syncdiffusion"])
def test_methods_and_attention_across_windows_work_with_all_of_them(request, tmp_path, name):
    folder, pipe = opened(request, "sd")
    lora, custom = write_lora(pipe, tmp_path), write_custom_diffusion(pipe, tmp_path / "custom")
    method = METHODS[name]
    known = method.settings.__dataclass_fields__
    chosen = {"height": 64, "width": 128, "steps": 2, "guidance_scale": 2.0, "stride": 4, "loss": "colour"}
    settings = method.settings(**{key: value for key, value in chosen.items() if key in known})
    made = [
        method.sample_latents(load_backbone(str(folder), device="cpu", adapters=each), [PROMPT], [0], settings)
        for each in (Adapters(), Adapters(custom_diffusion=str(custom)), Adapters(str(lora), 1.0, str(custom)))
    ]
    assert all(each.isfinite().all() for each in made)
    assert (made[0] - made[1]).abs().max() > 1e-3 and (made[1] - made[2]).abs().max() > 1e-3


def write_custom_diffusion(pipe, folder, safe=False, output=True):
    """Random weights and one new token, as diffusers' train_custom_diffusion.py writes them."""
    generator, processors = torch.Generator().manual_seed(5), {}
    for name in pipe.unet.attn_processors:
        cross = name.endswith("attn2.processor")
        width = pipe.unet.get_submodule(name.removesuffix(".processor")).to_q.out_features
        processors[name] = CustomDiffusionAttnProcessor(
            train_kv=cross, train_q_out=cross and output, hidden_size=width,
            cross_attention_dim=pipe.unet.config.cross_attention_dim if cross else None,
        )  # fmt: skip
        for value in processors[name].parameters():
            value.data = 0.3 * torch.randn(value.shape, generator=generator)
    before = pipe.unet.attn_processors
    pipe.unet.set_attn_processor(processors)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipe.unet.save_attn_procs(folder, safe_serialization=safe)
    pipe.unet.set_attn_processor(before)
    torch.save({"<new1>": torch.randn(16, generator=generator)}, folder / "<new1>.bin")
    return folder


@pytest.mark.parametrize("output", [False, True])
@pytest.mark.parametrize("safe", [False, True])
def test_custom_diffusion_does_what_it_does_in_diffusers(request, tmp_path, safe, output):
    folder, pipe = opened(request, "sd")
    custom = write_custom_diffusion(pipe, tmp_path, safe, output)
    prompt = "a <new1> by a lake"
    # diffusers reads its own .bin alone, and takes it up where it is told the pipeline.
    other = write_custom_diffusion(pipe, tmp_path / "other", False, output)
    plain = theirs(pipe, "a by a lake", prompt)
    pipe.unet.load_attn_procs(other, weight_name="pytorch_custom_diffusion_weights.bin", _pipeline=pipe)
    pipe.load_textual_inversion(other, weight_name="<new1>.bin")
    expected = theirs(pipe, prompt, prompt)
    assert (expected - plain).abs().max() > 0.01
    torch.testing.assert_close(ours(folder, prompt, custom_diffusion=str(custom)), expected, atol=1e-4, rtol=0)
    (custom / "<new1>.bin").rename(custom / "learned_embeds.bin")  # for file systems that cannot hold the other name
    torch.testing.assert_close(ours(folder, prompt, custom_diffusion=str(custom)), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("form", ["one", "several", "automatic1111"])
def test_textual_inversion_does_what_it_does_in_diffusers(request, tmp_path, form):
    folder, pipe = opened(request, "sd")
    vectors = torch.randn(3 if form == "several" else 1, 16, generator=torch.Generator().manual_seed(6))
    file = tmp_path / "cat.safetensors"
    if form == "automatic1111":
        save_file({"emb_params": vectors}, file)
    else:
        save_file({"cat": vectors if form == "several" else vectors[0]}, file)
    prompt = "lake cat sky"
    plain = theirs(pipe, prompt, prompt)
    pipe.load_textual_inversion({"cat": vectors})
    expected = theirs(pipe, prompt, prompt)
    assert (expected - plain).abs().max() > 1e-3
    torch.testing.assert_close(ours(folder, prompt, textual_inversion=str(file)), expected, atol=1e-4, rtol=0)


def test_textual_inversion_of_xl_is_of_both_encoders(request, tmp_path):
    folder, pipe = opened(request, "xl")
    generator = torch.Generator().manual_seed(7)
    both = {"clip_l": torch.randn(2, 16, generator=generator), "clip_g": torch.randn(2, 24, generator=generator)}
    save_file(both, tmp_path / "cat.safetensors")
    pipe.load_textual_inversion({"cat": both["clip_l"]}, tokenizer=pipe.tokenizer, text_encoder=pipe.text_encoder)
    pipe.load_textual_inversion({"cat": both["clip_g"]}, tokenizer=pipe.tokenizer_2, text_encoder=pipe.text_encoder_2)
    found = ours(folder, "lake cat", textual_inversion=str(tmp_path / "cat.safetensors"))
    torch.testing.assert_close(found, theirs(pipe, "lake cat", "lake cat"), atol=1e-4, rtol=0)


def test_they_are_part_of_the_fingerprint_by_their_content(request, tmp_path):
    folder, pipe = opened(request, "sd")
    one, two = (write_lora(pipe, tmp_path, seed, name=f"{seed}.safetensors") for seed in (1, 2))
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(one.read_bytes())
    custom = write_custom_diffusion(pipe, tmp_path / "custom")

    def told(**adapters):
        return fingerprint(str(folder), None, Adapters(**adapters))

    assert told() == fingerprint(str(folder)) and told(lora=str(one)) == told(lora=str(moved), lora_scale=[1.0])
    different = [
        told(), told(lora=str(one)), told(lora=str(two)), told(lora=str(one), lora_scale=0.5),
        told(lora=[str(one), str(two)]), told(textual_inversion=str(one)), told(custom_diffusion=str(custom)),
        told(lora="owner/name"), told(lora="owner/name@v2"),
    ]  # fmt: skip
    (custom / "<new1>.bin").write_bytes(b"another")
    different.append(told(custom_diffusion=str(custom)))
    assert len(set(different)) == len(different)
    record = Adapters(lora=str(one), lora_scale=0.5).record()
    assert record["lora_scale"] == [0.5] and record["lora"][0]["name"] == "1.safetensors"
    assert load_backbone(str(folder), device="cpu", adapters=Adapters(lora=str(one))).adapters["lora_scale"] == [1.0]


def test_what_is_a_hub_id(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").touch()
    assert is_hub_id("owner/name") and is_hub_id("owner/name@v1.0")
    others = ("a.safetensors", "folder/a.safetensors", "./a/b", "a/b/c", str(tmp_path / "a" / "b"))
    assert not any(map(is_hub_id, others))


def test_what_is_another_models_or_none_is_refused_in_a_line(request, tmp_path, caplog):
    folder, pipe = opened(request, "sd")
    xl_folder, xl = opened(request, "xl")
    lora, of_xl = write_lora(pipe, tmp_path), write_lora(xl, tmp_path, name="xl.safetensors")
    custom = write_custom_diffusion(xl, tmp_path / "custom")
    empty = tmp_path / "empty"
    empty.mkdir()
    token, wide, code = (tmp_path / name for name in ("token.safetensors", "wide.safetensors", "code.bin"))
    save_file({"a": torch.zeros(16)}, token)  # a letter that the tokenizer has
    save_file({"cat": torch.zeros(17)}, wide)
    torch.save({"cat": Adapters}, code)
    listed = tmp_path / "listed.pt"
    torch.save([torch.zeros(16)], listed)
    words_alone, picture = (
        tmp_path / "words.bin",
        tmp_path / "picture.png",
    )  # unpickled these would be KeyErrors and others
    words_alone.write_text("hello")
    dora = tmp_path / "dora.safetensors"
    save_file({**load_file(lora), "unet.mid_block.attentions.0.to_q.dora_scale": torch.ones(1, 8)}, dora)
    Image.new("RGB", (8, 8)).save(picture)
    for where, given, words in [
        (folder, {"lora": str(of_xl)}, "is another model's"),
        (xl_folder, {"lora": str(lora)}, "is another model's"),
        (folder, {"lora": str(wide)}, "Invalid LoRA"),
        (folder, {"lora": str(dora)}, "is a DoRA, whose magnitudes are not applied here"),
        (folder, {"lora": str(code)}, "holds more than weights"),
        (folder, {"lora": str(words_alone)}, "holds no weights"),
        (folder, {"lora": str(picture)}, "holds more than weights, or none"),
        (folder, {"lora": "owner/no-such"}, "backbone.lora=owner/no-such"),
        (folder, {"custom_diffusion": str(custom)}, "is another model's"),
        (folder, {"textual_inversion": str(listed)}, "holds no weights by name"),
        (folder, {"textual_inversion": str(wide)}, "is another model's: its cat has 17 numbers, not 16"),
        (folder, {"textual_inversion": str(token)}, "already in tokenizer vocabulary"),
        (xl_folder, {"textual_inversion": str(token)}, "holds clip_l and clip_g"),
        (folder, {"textual_inversion": str(words_alone)}, "holds no weights"),
        (folder, {"textual_inversion": str(code)}, "holds more than weights"),
    ]:
        with pytest.raises(UsageError) as told:
            load_backbone(str(where), device="cpu", adapters=Adapters(**given))
        assert words in str(told.value) and "\n" not in str(told.value), (given, str(told.value))
        (name,) = given
        assert not any("unsuccessful" in each.message for each in caplog.records)  # diffusers' own lines
        assert str(told.value).startswith(f"backbone.{name}={given[name]}: ")
    for given, words in [
        ({"lora": str(tmp_path / "none.safetensors")}, "no such file"),
        ({"custom_diffusion": str(empty)}, "holds no pytorch_custom_diffusion_weights.bin"),
        ({"textual_inversion": "./none"}, "no such file"),
    ]:
        with pytest.raises(UsageError, match=f"^backbone.{next(iter(given))}=[^\n]*{words}[^\n]*$"):
            Adapters(**given).record()
    for given, words in [
        ({"lora_scale": 0.5}, "give backbone.lora as well"),
        ({"lora": "a/b", "lora_scale": [1.0, 2.0]}, "one for each of 1"),
    ]:
        with pytest.raises(UsageError, match=words):
            Adapters(**given)


ODD_EMBEDDINGS = [
    ({"string_to_param": {"cat": torch.zeros(1, 16)}}, "holds no embedding of a token by string_to_param"),
    ({"string_to_param": torch.zeros(1, 16)}, "holds no embedding of a token by string_to_param"),
    ({3: torch.zeros(16)}, "holds no weights by name"),
    ({"cat": torch.zeros(0, 16)}, "its cat is no embedding of a token"),
]


@pytest.mark.parametrize(("content", "words"), ODD_EMBEDDINGS, ids=range(len(ODD_EMBEDDINGS)))
def test_odd_files_of_embeddings_are_refused_in_a_line(content, words, tiny_folder, tmp_path):
    file = tmp_path / "odd.pt"
    torch.save(content, file)
    with pytest.raises(UsageError) as told:
        load_backbone(str(tiny_folder), device="cpu", adapters=Adapters(textual_inversion=str(file)))
    assert str(told.value).startswith(f"backbone.textual_inversion={file}: ") and words in str(told.value)


def test_a_hub_repository_without_safetensors_has_bin(monkeypatch):
    asked = []

    def download(repository, file, revision):
        asked.append((repository, file, revision))
        if file.endswith(".safetensors"):
            raise EntryNotFoundError("none")
        return f"/cache/{file}"

    monkeypatch.setattr(adapting, "hf_hub_download", download)
    assert adapting._file_of("textual_inversion", "owner/name@v1") == Path("/cache/learned_embeds.bin")
    files = ["learned_embeds.safetensors", "learned_embeds.bin"]
    assert asked == [("owner/name", file, "v1") for file in files]


def test_without_peft_a_lora_is_refused_in_a_line(tiny_folder, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"^backbone.lora=a/b: needs peft; pip install 'syncdiffusion\[lora\]'$"):
        adapt({}, Adapters(lora="a/b"))


def test_the_command_takes_them():
    words = ["a lake", "--lora", "x/a.safetensors:0.7", "--lora", "owner/name", "--textual-inversion", "t.bin"]
    found = chosen_adapters(parser().parse_args(words))
    assert (found.loras, found.scales, found.inversions) == (["x/a.safetensors", "owner/name"], [0.7, 1.0], ["t.bin"])
    assert not chosen_adapters(parser().parse_args(["a lake"]))
    assert with_scale("C:/a.safetensors") == ("C:/a.safetensors", 1.0)
    with pytest.raises(UsageError, match="its strength must be a number"):
        with_scale("a.safetensors:nan")
    assert as_options("backbone.lora=x: no such file; give one") == "--lora x: no such file; give one"


def test_a_run_is_told_of_them(tiny_folder, tmp_path):
    """They are in the record's model and in its key, which without them is what it was."""
    file = tmp_path / "cat.safetensors"
    save_file({"cat": torch.zeros(16)}, file)
    section = {"name": "x", "model_id": "folder", "path": str(tiny_folder), "revision": None, "precision": "float32"}
    section |= {"compiled": False}
    plain, taught = (model_facts(section | {"textual_inversion": each}) for each in (None, str(file)))
    assert "adapters" not in plain and taught["adapters"]["textual_inversion"][0]["name"] == "cat.safetensors"
    assert plain["fingerprint"] == fingerprint(str(tiny_folder)) != taught["fingerprint"]
    assert named_model(section)["adapters"] is None
