"""Folders as they are found: half precision alone, .bin files, foreign classes, code, a hub that does not answer."""

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from experiments.stages.generate import open_backbone
from syncdiffusion.backbones import loading
from syncdiffusion.backbones.loading import load_backbone
from syncdiffusion.errors import UsageError

NETWORKS = {"text_encoder": "model", "unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model"}


@pytest.fixture
def folder(tiny_folder, tmp_path) -> Path:
    """A copy to change."""
    return shutil.copytree(tiny_folder, tmp_path / "model")


def weights(backbone, part: str) -> dict[str, torch.Tensor]:
    return getattr(backbone, part).state_dict()


def refusal(model: Path | str) -> str:
    with pytest.raises(UsageError) as told:
        load_backbone(str(model), device="cpu")
    assert "\n" not in str(told.value)
    return str(told.value)


def test_half_precision_is_taken_where_there_is_no_other(folder, tiny):
    for part, name in NETWORKS.items():
        whole = folder / part / f"{name}.safetensors"
        half = {key: value.half() if value.is_floating_point() else value for key, value in load_file(whole).items()}
        save_file(half, folder / part / f"{name}.fp16.safetensors", {"format": "pt"})
    both = load_backbone(str(folder), device="cpu")
    for part, name in NETWORKS.items():
        (folder / part / f"{name}.safetensors").unlink()
    alone = load_backbone(str(folder), device="cpu")
    for part in NETWORKS:
        for key, value in weights(tiny, part).items():
            assert torch.equal(weights(both, part)[key], value)  # full precision comes first
            assert torch.equal(weights(alone, part)[key], value.half().float() if value.is_floating_point() else value)


def test_bin_files_are_opened_and_nothing_but_tensors_is(folder, tiny, tmp_path):
    for part, name in NETWORKS.items():
        whole = folder / part / f"{name}.safetensors"
        torch.save(load_file(whole), folder / part / f"{name.replace('model', 'pytorch_model', 1)}.bin"
                   if part == "text_encoder" else whole.with_suffix(".bin"))  # fmt: skip
        whole.unlink()
    loaded = load_backbone(str(folder), device="cpu")
    for part in NETWORKS:
        assert all(torch.equal(weights(loaded, part)[key], value) for key, value in weights(tiny, part).items())

    class Harm:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    for part in ("vae", "text_encoder"):
        (file,) = (folder / part).glob("*.bin")
        good = file.read_bytes()
        with file.open("wb") as stream:
            pickle.dump({"weight": Harm()}, stream)
        assert f"backbone.model_id={folder}: could not be loaded" in refusal(folder)
        assert not (tmp_path / "harm").exists()
        for junk in (b"hello", b"toto", b"GIF89a", b""):  # which the unpickler fails at in as many ways
            file.write_bytes(junk)
            assert f"backbone.model_id={folder}: could not be loaded" in refusal(folder)
        file.write_bytes(good)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"unet": ["diffusers", "FluxTransformer2DModel"]}, "is a FluxTransformer2DModel, its unet; give a model"),
        ({"vae": ["diffusers", "VQModel"]}, "is a VQModel, its vae; .* with a AutoencoderKL or AutoencoderTiny"),
        ({"vae": [None, None]}, "names no vae"),
        ({"text_encoder": 3}, "names no text_encoder"),
    ],
)
def test_a_part_of_another_class_is_refused_in_one_line(folder, changes, words):
    import re

    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    assert re.search(words, refusal(folder))
    path.write_text("[1]")
    assert "names no tokenizer" in refusal(folder)
    path.write_text("{")
    assert "could not be loaded" in refusal(folder)


@pytest.mark.parametrize("part", ["text_encoder", "scheduler"])
def test_a_configuration_that_is_a_list(folder, part):
    name = "scheduler_config.json" if part == "scheduler" else "config.json"
    (folder / part / name).write_text("[]")
    assert f"backbone.model_id={folder}: could not be loaded" in refusal(folder)


def test_code_beside_a_tokenizer_is_neither_run_nor_asked_about(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *words: pytest.fail("asked"))
    config = folder / "tokenizer" / "tokenizer_config.json"
    (folder / "tokenizer" / "own.py").write_text(
        f"import os\nos.mkdir({str(tmp_path / 'harm')!r})\nclass Own:\n    pass\n"
    )
    changed = json.loads(config.read_text()) | {
        "tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]},
    }  # fmt: skip
    config.write_text(json.dumps(changed))
    assert "could not be loaded" in refusal(folder)
    assert not (tmp_path / "harm").exists()


def test_the_runner_names_the_path_that_was_given(folder):
    shutil.rmtree(folder / "unet")
    given = {"path": str(folder), "model_id": "folder", "revision": None, "device": "cpu", "precision": "float32"}
    with pytest.raises(UsageError, match=f"^backbone.path={folder}: could not be loaded"):
        open_backbone(given | {"compiled": False, "offload": False, "window": 64, "factor": 8})


def test_a_hub_that_does_not_answer_is_asked_once(monkeypatch, tmp_path):
    """The libraries look into the hub's cache alone then."""
    asked, options = [], []

    def download(source, name, **where):
        options.append(where)
        raise OSError("Cannot find an appropriate cached snapshot folder\nand more")

    monkeypatch.setattr(loading.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(loading, "reachable", lambda url: asked.append(url))
    monkeypatch.setattr(loading, "hf_hub_download", download)
    message = refusal("owner/name")
    assert asked == [loading.constants.ENDPOINT] and options == [{"local_files_only": True}]
    assert message.startswith("backbone.model_id=owner/name: could not be loaded (https://")
    assert "does not answer, and the hub's cache does not hold it" in message
