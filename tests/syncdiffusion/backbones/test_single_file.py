"""A checkpoint in one file: the tiny model, written in Stable Diffusion's own layout, is the same model again."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from syncdiffusion.backbones.loading import load_backbone
from syncdiffusion.backbones.model_files import fingerprint
from syncdiffusion.cli import main
from syncdiffusion.errors import UsageError

# Of the tiny model's parts by diffusers' names: the names that CompVis' code gives them.
UNET = {
    "conv_in": "input_blocks.0.0", "down_blocks.0.resnets.0": "input_blocks.1.0",
    "down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op", "down_blocks.1.resnets.0": "input_blocks.3.0",
    "down_blocks.1.attentions.0": "input_blocks.3.1", "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1", "mid_block.resnets.1": "middle_block.2",
    "up_blocks.0.resnets.0": "output_blocks.0.0", "up_blocks.0.attentions.0": "output_blocks.0.1",
    "up_blocks.0.resnets.1": "output_blocks.1.0", "up_blocks.0.attentions.1": "output_blocks.1.1",
    "up_blocks.0.upsamplers.0.conv": "output_blocks.1.2.conv", "up_blocks.1.resnets.0": "output_blocks.2.0",
    "up_blocks.1.resnets.1": "output_blocks.3.0", "conv_norm_out": "out.0", "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
}  # fmt: skip
RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
ATTENTION = {"to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out", "group_norm": "norm"}


def unet_name(name: str) -> str:
    ours = max((each for each in UNET if name.startswith(each + ".")), key=len)
    rest = name.removeprefix(ours + ".")
    if ".resnets." in ours or "resnets" in ours:
        layer, _, kind = rest.rpartition(".")
        rest = f"{RESNET[layer]}.{kind}"
    return f"model.diffusion_model.{UNET[ours]}.{rest}"


def vae_name(name: str) -> str:
    name = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets", lambda found: f"up.{3 - int(found[1])}.block", name)
    name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda found: f"up.{3 - int(found[1])}.upsample", name)
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda found: f"mid.block_{int(found[1]) + 1}", name)
    name = name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
    if "mid_block.attentions.0." in name:
        head, _, rest = name.partition("mid_block.attentions.0.")
        layer, _, kind = rest.rpartition(".")
        name = f"{head}mid.attn_1.{ATTENTION[layer]}.{kind}"
    return f"first_stage_model.{name}"


@pytest.fixture
def single(tiny_folder, tmp_path) -> Path:
    """tiny.safetensors beside tiny/ with its configurations and no weights."""
    content = {}
    for name, value in load_file(tiny_folder / "unet" / "diffusion_pytorch_model.safetensors").items():
        content[unet_name(name)] = value
    for name, value in load_file(tiny_folder / "vae" / "diffusion_pytorch_model.safetensors").items():
        attention = "mid_block.attentions" in name and name.endswith("weight") and "group_norm" not in name
        content[vae_name(name)] = value[..., None, None] if attention else value  # 1x1 convolutions there
    for name, value in load_file(tiny_folder / "text_encoder" / "model.safetensors").items():
        content[f"cond_stage_model.transformer.{'' if name.startswith('text_model.') else 'text_model.'}{name}"] = value
    file = tmp_path / "tiny.safetensors"
    save_file({name: value.contiguous() for name, value in content.items()}, file)
    shutil.copytree(tiny_folder, tmp_path / "tiny", ignore=shutil.ignore_patterns("*.safetensors"))
    return file


def test_it_is_the_same_model_as_the_folder(single, tiny):
    loaded = load_backbone(str(single), device="cpu")
    for part in ("text_encoder", "unet", "vae"):
        expected = getattr(tiny, part).state_dict()
        found = getattr(loaded, part).state_dict()
        assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert (loaded.window, loaded.factor) == (tiny.window, tiny.factor)
    assert torch.equal(loaded.encode_prompts(["a city"]), tiny.encode_prompts(["a city"]))
    assert loaded.steps(5).timesteps.tolist() == tiny.steps(5).timesteps.tolist()


def test_the_command_takes_it_and_finds_the_words_that_it_knows(single, tmp_path, monkeypatch, capsys):
    (single.with_suffix("") / "words.txt").write_text("lake\n")
    monkeypatch.chdir(tmp_path)
    words = ["--model", str(single), "--method", "multidiffusion", "--steps", "1", "--width", "64", "--device", "cpu"]
    assert main(["lake city", *words, "--out", "one.png"]) == 0
    out, err = capsys.readouterr()
    assert out == "one.png\n" and err.startswith("prompt: this model was not trained on: city;")
    assert f"{single.with_suffix('') / 'words.txt'}" in err.splitlines()[0]


def test_its_fingerprint_follows_weights_and_configurations(single):
    before = fingerprint(str(single))
    weights = load_file(single)
    name = sorted(weights)[0]
    save_file(weights | {name: weights[name] + 1}, single)
    changed = fingerprint(str(single))
    config = single.with_suffix("") / "unet" / "config.json"
    config.write_text(config.read_text() + "\n")
    assert len({before, changed, fingerprint(str(single))}) == 3


def test_what_is_missing_is_told_in_a_line(single):
    weights = load_file(single)
    save_file({name: value for name, value in weights.items() if "input_blocks.0.0" not in name}, single)
    with pytest.raises(UsageError) as told:
        load_backbone(str(single), device="cpu")
    assert str(told.value).startswith(f"backbone.model_id={single}: ") and "\n" not in str(told.value)
    (single.with_suffix("") / "model_index.json").unlink()
    with pytest.raises(UsageError, match="a file of weights alone; put model_index.json") as told:
        load_backbone(str(single), device="cpu")
    assert str(single.with_suffix("")) in str(told.value)
    checkpoint = single.rename(single.with_suffix(".ckpt"))
    with pytest.raises(UsageError, match="is no .safetensors file; convert it"):
        load_backbone(str(checkpoint), device="cpu")
