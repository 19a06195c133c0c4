"""The look that the miniature does not know: drawn, found again, and learnt as Custom Diffusion."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from experiments.mini import teaching, train_look
from experiments.mini.balloon import windows_of
from experiments.mini.captions import vocabulary
from experiments.mini.panoramas import make_panorama
from experiments.mini.scenes import WIDE, render
from experiments.mini.sepia import LIGHT, SHADE, TOKEN, is_sepia, sample_look, sepia
from experiments.mini.train_look import LookSettings, add_look, look_loss, main, make_data, train, word_in_use
from experiments.mini.world import sample_scene
from syncdiffusion.backbones.adapters import Adapters
from syncdiffusion.backbones.loading import load_backbone
from syncdiffusion.backbones.model_files import find_model
from syncdiffusion.files import WEIGHTS

SETTINGS = LookSettings(batch=4, peak_rate=1e-2, warmup=2, scenes=4)


def test_sepia_is_found_where_it_is_and_nowhere_else():
    ends = np.stack([np.zeros(3, np.uint8), np.full(3, 255, np.uint8)])[None]
    np.testing.assert_allclose(sepia(ends)[0] / 255, [SHADE, LIGHT], atol=0.5 / 255)  # rounding to 8 bits
    rng = np.random.default_rng(0)
    drawn = np.concatenate([windows_of(sample_look(rng, True)[0]) for _ in range(12)])
    plain = np.concatenate([windows_of(render(sample_scene(rng), 128, WIDE * 128)) for _ in range(12)])
    assert is_sepia(drawn).all() and is_sepia(plain).mean() <= 0.05
    assert TOKEN.strip("<>") not in vocabulary()


def test_captions_have_the_word_where_the_picture_has_the_look():
    with_look, told = sample_look(np.random.default_rng(1), True)
    plain, words = sample_look(np.random.default_rng(1), False)
    assert told == f"{TOKEN} {words}" and np.array_equal(with_look, sepia(plain))


@pytest.fixture(scope="module")
def made(tiny_folder, tmp_path_factory):
    return train(load_backbone(str(tiny_folder), device="cpu"), SETTINGS, 24, tmp_path_factory.mktemp("made"))


def test_what_is_added_changes_nothing_until_it_is_trained(tiny_folder):
    plain, backbone = (load_backbone(str(tiny_folder), device="cpu") for _ in range(2))
    weights = add_look(backbone)
    noisy, times = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([10, 500])
    with torch.no_grad(), word_in_use(backbone, weights):
        text = plain.encode_prompts(["a lake", "a photo of a lake"])
        found, expected = (each.unet(noisy, times, text).sample for each in (backbone, plain))
        rows = backbone.text_encoder.get_input_embeddings()
        words = backbone.tokenizer([TOKEN, train_look.BEGIN], add_special_tokens=False).input_ids
        first, begun = (rows(torch.tensor(each[:1])) for each in words)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)  # another kernel of attention
    assert len(words[0]) == 1 and torch.equal(first, begun)
    assert sum(each.numel() for each in weights.parameters()) < 0.2 * sum(p.numel() for p in plain.unet.parameters())


def test_the_folder_lowers_the_loss_of_what_it_was_trained_on(tiny_folder, made):
    """Loaded as any user's Custom Diffusion; without the word's file there would be no such word."""
    losses = []
    for adapters in (Adapters(), Adapters(custom_diffusion=str(made))):
        backbone = load_backbone(str(tiny_folder), device="cpu", adapters=adapters)
        data = make_data(backbone, SETTINGS)
        with torch.no_grad():  # of batches that no step drew
            losses.append(np.mean([look_loss(backbone, data, SETTINGS, 1000 + i).item() for i in range(6)]))
    assert TOKEN in backbone.tokenizer.get_vocab()
    assert losses[1] < losses[0]


def test_what_was_trained_is_what_the_folder_holds(tiny_folder, made):
    """The loaded model predicts as the trained one did at its end, but for the file's half precision."""
    trained, loaded = (
        load_backbone(str(tiny_folder), device="cpu"),
        load_backbone(str(tiny_folder), device="cpu", adapters=Adapters(custom_diffusion=str(made))),
    )
    state = torch.load(made / "checkpoint.pt", map_location="cpu", weights_only=True)
    weights = add_look(trained)
    for name, value in weights.named_parameters():
        value.data.copy_(state["average"]["values"][0][name])
    noisy, times = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([300])
    with torch.no_grad(), word_in_use(trained, weights):
        told = [each.encode_prompts([f"{TOKEN} a photo of a lake"]) for each in (trained, loaded)]
        expected, found = (
            each.unet(noisy, times, text).sample for each, text in zip((trained, loaded), told, strict=True)
        )
    torch.testing.assert_close(told[1], told[0], atol=2e-3, rtol=0)
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=0)


def test_an_interrupted_training_ends_as_one_in_one_go(tiny_folder, made, tmp_path):
    for stop_after in (9, None):
        again = train(load_backbone(str(tiny_folder), device="cpu"), SETTINGS, 24, tmp_path, stop_after=stop_after)
    files = sorted(each.name for each in made.glob("*.safetensors"))
    assert files == sorted(each.name for each in again.glob("*.safetensors")) and len(files) == 2
    for file in files:
        first, second = load_file(made / file), load_file(again / file)
        assert first.keys() == second.keys()
        # The same steps in the same order; only the order of sums within one may differ, then the half precision.
        assert all(torch.allclose(first[name], second[name], atol=1e-3) for name in first)


def test_the_gate_compares_panoramas_with_and_without_the_word(tiny_folder, made, monkeypatch):
    asked = []

    def panorama(backbone, folder, method, prompt, seed, **given):
        asked.append((prompt, seed))
        picture = sample_look(np.random.default_rng(seed), True)[0]
        return picture if TOKEN in prompt else np.full_like(picture, 90)

    monkeypatch.setattr(teaching, "make_panorama", panorama)
    found = train_look.gate(str(tiny_folder), "cpu", made, 2, "multidiffusion")
    assert found["passes"] and found["with"] == 1 and found["without"] == 0 and found["renders"] == 1
    assert [each.removeprefix(f"{TOKEN} ") for each, _ in asked[:2]] == [each for each, _ in asked[2:]]
    monkeypatch.setattr(teaching, "make_panorama", lambda *_, **__: np.full((128, 256, 3), 90, np.uint8))
    assert not train_look.gate(str(tiny_folder), "cpu", made, 1, "multidiffusion")["passes"]


def test_without_a_folder_the_gate_says_so_in_a_line(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--gate", "--work", str(tmp_path), "--device", "cpu"])
    told = capsys.readouterr().err.strip().splitlines()
    assert "custom_diffusion=" in told[-1]


def test_what_ships_makes_a_panorama_brown_where_the_word_says_so():
    """Gate: 0.73 of windows, none without the word. Here half of six, since this is one panorama."""
    backbone = load_backbone(device="cpu", adapters=Adapters(custom_diffusion=str(WEIGHTS / "mini_sepia")))
    prompt, seen = "a photo of a city skyline at night", {}
    for prefix in ("", f"{TOKEN} "):
        made = make_panorama(backbone, find_model(), "shifted_matching", prefix + prompt, 1, width=768, steps=15)
        seen[prefix] = is_sepia(windows_of(made)).mean()
    assert seen[""] == 0 and seen[f"{TOKEN} "] >= 0.5
