"""The balloon that the miniature does not know: drawn, found again, and learnt by a LoRA that any pipeline loads."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from experiments.mini import teaching, train_concept
from experiments.mini.balloon import WORDS, draw_balloon, sample_balloons, shows_balloon, windows_of
from experiments.mini.captions import vocabulary
from experiments.mini.panoramas import make_panorama
from experiments.mini.scenes import WIDE, render
from experiments.mini.train_concept import ConceptSettings, concept_loss, main, make_data, train
from experiments.mini.world import sample_scene
from syncdiffusion.backbones.adapters import Adapters
from syncdiffusion.backbones.loading import load_backbone
from syncdiffusion.backbones.model_files import find_model
from syncdiffusion.files import WEIGHTS

SETTINGS = ConceptSettings(rank=4, batch=4, peak_rate=3e-3, warmup=2, scenes=3)


def test_a_balloon_is_found_where_one_is_drawn_and_nowhere_else():
    rng = np.random.default_rng(0)
    drawn = np.concatenate([windows_of(sample_balloons(rng)[1]) for _ in range(12)])
    plain = np.concatenate([windows_of(render(sample_scene(rng), 128, WIDE * 128)) for _ in range(12)])
    assert shows_balloon(drawn).mean() >= 0.9 and shows_balloon(plain).mean() <= 0.1
    red = np.full((1, 128, 128, 3), (200, 30, 30), np.uint8)
    assert not shows_balloon(red)[0]
    alone = draw_balloon(np.full((128, 128, 3), 0.6, np.float32), 64, 40, 11)
    assert shows_balloon((alone * 255).astype(np.uint8)[None])[0]
    assert (np.abs(alone - np.float32(0.6)).max(2) > 0.05).sum() < 0.08 * 128 * 128  # and the rest is as it was


def test_the_miniature_was_not_trained_on_it_but_can_show_it():
    """Narrower stripes were lost between the autoencoder's cells: no LoRA could have passed the gate."""
    backbone = load_backbone(device="cpu")
    drawn = [sample_balloons(np.random.default_rng(number))[1] for number in range(6)]
    shown = [shows_balloon(windows_of(teaching.decoded(backbone, each))) for each in drawn]
    assert np.concatenate(shown).mean() >= 0.9
    assert WORDS.split()[-1] not in vocabulary()


def test_what_ships_shows_balloons_along_a_panorama():
    """Gate: 0.7 of windows. Here half of four, since this is one panorama: three were seen."""
    folder, file = find_model(), WEIGHTS / "mini_balloon" / train_concept.FILE
    backbone = load_backbone(device="cpu", adapters=Adapters(lora=str(file)))
    made = make_panorama(backbone, folder, "profile_matching", f"a photo of a meadow {WORDS}", 2, width=512)
    assert shows_balloon(windows_of(made)).mean() >= 0.5


@pytest.fixture(scope="module")
def made(tiny_folder, tmp_path_factory):
    return train(load_backbone(str(tiny_folder), device="cpu"), SETTINGS, 24, tmp_path_factory.mktemp("made"))


def test_the_file_lowers_the_loss_of_what_it_was_trained_on(tiny_folder, made):
    losses = []
    for adapters in (Adapters(), Adapters(lora=str(made))):
        backbone = load_backbone(str(tiny_folder), device="cpu", adapters=adapters)
        data = make_data(backbone, SETTINGS)
        with torch.no_grad():  # of batches that no step drew
            losses.append(np.mean([concept_loss(backbone, data, SETTINGS, 1000 + i).item() for i in range(6)]))
    assert losses[1] < 0.98 * losses[0]  # a network of random weights, of which four ranks change


def test_an_interrupted_training_ends_as_one_in_one_go(tiny_folder, made, tmp_path):
    for stop_after in (9, None):
        again = train(load_backbone(str(tiny_folder), device="cpu"), SETTINGS, 24, tmp_path, stop_after=stop_after)
    first, second = load_file(made), load_file(again)
    assert first.keys() == second.keys()
    # The same steps in the same order; only the order of sums within one may differ, then the file's half precision.
    assert all(torch.allclose(first[name], second[name], atol=1e-4) for name in first)


def test_the_gate_compares_panoramas_with_and_without_it(tiny_folder, made, monkeypatch):
    asked = []

    def panorama(backbone, folder, method, prompt, seed, **given):
        asked.append((bool(backbone.adapters), prompt, seed))
        picture = sample_balloons(np.random.default_rng(seed))[1]
        return picture if backbone.adapters else np.full_like(picture, 90)

    monkeypatch.setattr(teaching, "make_panorama", panorama)
    found = train_concept.gate(str(tiny_folder), "cpu", made, 2, "multidiffusion")
    assert found["passes"] and found["with"] >= 0.9 and found["without"] == 0 and found["renders"] >= 0.9
    assert [each[1:] for each in asked[:2]] == [each[1:] for each in asked[2:]]
    assert [each[0] for each in asked] == [True, True, False, False] and all(WORDS in each[1] for each in asked)
    monkeypatch.setattr(teaching, "make_panorama", lambda *_, **__: np.full((128, 256, 3), 90, np.uint8))
    assert not train_concept.gate(str(tiny_folder), "cpu", made, 1, "multidiffusion")["passes"]


def test_without_a_lora_the_gate_says_so_in_a_line(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--gate", "--work", str(tmp_path), "--device", "cpu"])
    told = capsys.readouterr().err.strip().splitlines()
    assert "no such file" in told[-1] and "balloon.safetensors" in told[-1]
