"""CLIP score against open_clip used by hand, and the refusals of its loaders."""

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from experiments.metrics.clip_network import folder_clip, openai_clip
from experiments.metrics.definitions.clip_score import clip_scores
from syncdiffusion.errors import UsageError
from syncdiffusion.perceptual import clip

CPU = torch.device("cpu")


def test_scores_equal_open_clip_by_hand_whatever_the_batch(clip_folder, picture) -> None:
    import open_clip

    crops = [picture(seed, 64, 64) for seed in range(5)]
    prompts = ["a mountain", "a city at night", "a mountain", "a forest", "a city at night"]
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{clip_folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{clip_folder}")
    expected = []
    with torch.no_grad():
        for crop, prompt in zip(crops, prompts, strict=True):
            image = model.eval().encode_image(preprocess(Image.fromarray(crop))[None])[0]
            text = model.encode_text(tokenizer([prompt]))[0]
            expected.append(100 * float(image @ text / (image.norm() * text.norm())))

    clip = folder_clip(clip_folder, CPU)
    for batch in (1, 2, 16):
        # float32 rounding of another batch size, on cosines of order 1
        np.testing.assert_allclose(clip_scores(clip, crops, prompts, batch), expected, atol=1e-3)
    assert np.ptp(expected) > 0.1


def test_a_folder_never_passes_for_openai(clip_folder) -> None:
    clip = folder_clip(clip_folder, CPU)
    assert clip.metric == "mini_clip_score"
    assert "openai" not in clip.network and clip_folder.name in clip.network
    assert not any(parameter.requires_grad for parameter in clip.loaded.model.parameters())
    assert not clip.loaded.model.training


def test_other_weights_in_a_folder_of_the_same_name_have_another_fingerprint(clip_folder, tmp_path) -> None:
    copy = Path(shutil.copytree(clip_folder, tmp_path / clip_folder.name))
    first, same = folder_clip(clip_folder, CPU), folder_clip(copy, CPU)
    assert (first.network, first.fingerprint) == (same.network, same.fingerprint)
    weights = copy / "open_clip_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    changed = folder_clip(copy, CPU)
    assert changed.network == first.network and changed.fingerprint != first.fingerprint


def test_folders_that_cannot_be_opened_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"metrics.clip_folder={tmp_path}: no open_clip_config.json"):
        folder_clip(tmp_path, CPU)
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": {}}))
    with pytest.raises(UsageError, match="open_clip cannot open it") as caught:
        folder_clip(tmp_path, CPU).embed_texts(["a mountain"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", [0, 100])
def test_damaged_weights_are_told_in_a_line(clip_folder, tmp_path, part) -> None:
    copy = Path(shutil.copytree(clip_folder, tmp_path / "copy"))
    weights = copy / "open_clip_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:part])
    with pytest.raises(UsageError, match="open_clip cannot open it") as caught:
        folder_clip(copy, CPU).embed_texts(["a mountain"])
    assert "\n" not in str(caught.value)


class Harm:
    """Makes a folder if it is unpickled."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_a_pickle_in_a_folder_is_not_opened(clip_folder, tmp_path) -> None:
    copy = Path(shutil.copytree(clip_folder, tmp_path / "clip"))
    (copy / "open_clip_model.safetensors").unlink()
    with (copy / "open_clip_pytorch_model.bin").open("wb") as file:
        pickle.dump({"weight": Harm(tmp_path / "harm")}, file)
    with pytest.raises(UsageError, match=f"^metrics.clip_folder={copy}: its weights file holds more than") as caught:
        folder_clip(copy, CPU).embed_texts(["a mountain"])
    assert "\n" not in str(caught.value) and not (tmp_path / "harm").exists()


def test_code_beside_a_tokenizer_is_neither_run_nor_asked_about(clip_folder, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("builtins.input", lambda *words: pytest.fail("asked"))
    copy = Path(shutil.copytree(clip_folder, tmp_path / "clip"))
    path = copy / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = "own"
    path.write_text(json.dumps(config))
    (copy / "own.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'harm')!r})\nclass Own:\n    pass\n")
    (copy / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}})
    )
    with pytest.raises(UsageError, match="open_clip cannot open it") as caught:
        folder_clip(copy, CPU).embed_texts(["a mountain"])
    assert "\n" not in str(caught.value) and not (tmp_path / "harm").exists()


def test_openai_clip_out_of_reach_is_one_line(monkeypatch, tmp_path) -> None:
    import huggingface_hub

    monkeypatch.setattr(clip, "reachable", lambda url: False)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *names: None)
    with pytest.raises(UsageError, match="ViT-B/16 .*cannot be had.*not answer.*metrics.clip_folder") as caught:
        openai_clip(CPU).embed_texts(["a mountain"])
    assert "\n" not in str(caught.value)


@pytest.mark.network
def test_openai_clip_prefers_the_right_caption(picture) -> None:
    try:
        clip = openai_clip(CPU)
        clip.loaded  # noqa: B018
    except UsageError as error:
        pytest.skip(str(error))
    red = np.zeros((224, 224, 3), np.uint8)
    red[..., 0] = 255
    right, wrong = clip_scores(clip, [red, red], ["a plain red image", "a photo of a dog"], 2)
    assert right > wrong
    assert clip.metric == "clip_score"
