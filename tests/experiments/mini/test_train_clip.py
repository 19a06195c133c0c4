"""The mini-CLIP's training can be interrupted, its loss spares equal captions, and open_clip opens the folder."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from diffusers import AutoencoderTiny
from PIL import Image
from torch.nn.functional import normalize

from experiments.mini import clip_data, clip_model
from experiments.mini import train_clip as clip
from experiments.mini.captions import PAPER_PROMPTS, sample_pair
from experiments.mini.training import to_unit

CPU = torch.device("cpu")
SMALL = clip.ClipSettings(batch=4, warmup=2, bfloat16=False)


@pytest.fixture(scope="module")
def data() -> clip.ClipData:
    images = np.random.default_rng(0).integers(0, 256, (4, 128, 160, 3), dtype=np.uint8)
    tokens, rows = clip_model.tokenize([*PAPER_PROMPTS, PAPER_PROMPTS[0]])
    assert rows.tolist() == [0, 1, 2, 3, 4, 5, 0]
    pairs = torch.tensor([[0, 1, 0, 2, 3], [1, 1, 1, 1, 1], [2, 3, 4, 5, 0], [3, 3, 3, 3, 4]])
    edges = torch.tensor([[0, 32], [3, 3], [10, 32], [0, 0]])
    captions = torch.tensor([[0, 1], [2, 3], [4, 5], [0, 5]])
    return clip.ClipData(images, images[:2], edges, captions, pairs, tokens, "test")


def test_windows_lie_where_their_captions_are_true(data: clip.ClipData) -> None:
    seen: dict[int, set[int]] = {row: set() for row in range(4)}
    for seed in range(100):
        windows, *_ = clip.draw_batch(data, SMALL, torch.Generator().manual_seed(seed))
        assert windows.shape == (4, 128, 128, 3)
        for window in windows:
            found = [(row, left) for row in range(4) for left in range(33)
                     if np.array_equal(window[0], data.images[row][0, left : left + 128])]  # fmt: skip
            assert len(found) == 1
            seen[found[0][0]].add(found[0][1])
    assert seen[1] == {3} and seen[3] == {0}
    assert min(seen[0]) <= 3 and max(seen[0]) >= 29 and min(seen[2]) >= 10 and max(seen[2]) <= 32


def test_resumed_training_equals_an_uninterrupted_one(tmp_path: Path, data: clip.ClipData) -> None:
    whole = clip.train(SMALL, 4, 2, tmp_path / "whole", CPU, data)
    for _ in range(2):
        resumed = clip.train(SMALL, 4, 2, tmp_path / "parts", CPU, data, stop_after=3)
    # The same operations on the same numbers: no tolerance.
    for (name, a), b in zip(whole.named_parameters(), resumed.named_parameters(), strict=True):
        assert torch.equal(a, b[1]), name
    untrained = clip_model.build_clip(SMALL.seed)
    assert not torch.equal(whole.visual.conv1.weight, untrained.visual.conv1.weight)


def test_loss_is_clips_when_all_captions_differ() -> None:
    generator = torch.Generator().manual_seed(0)
    seen, read = (normalize(torch.randn(8, 16, generator=generator), dim=-1) for _ in range(2))
    expected = open_clip.ClipLoss()(seen, read, torch.tensor(20.0))
    # Two float32 ways to the same sums.
    torch.testing.assert_close(clip.contrastive_loss(seen, read, torch.arange(8), torch.tensor(20.0)), expected)


def test_equal_captions_are_not_negatives() -> None:
    axes = torch.eye(3)
    captions = torch.tensor([0, 0, 1])
    # A perfect model: both pictures of caption 0 lie on its one text vector. The pull between the two equal
    # captions cannot be won, so the loss ends at the entropy of the shared targets, ln 2 for two of three rows.
    loss = clip.contrastive_loss(axes[captions], axes[captions], captions, torch.tensor(100.0))
    torch.testing.assert_close(loss, torch.tensor(2 / 3 * np.log(2)).float())
    # Pushing them apart costs more.
    apart = torch.stack([axes[0], axes[2], axes[1]])
    assert clip.contrastive_loss(apart, apart, captions, torch.tensor(100.0)) > 10 * loss


def test_hard_loss_is_a_cross_entropy_over_what_differs() -> None:
    generator = torch.Generator().manual_seed(1)
    seen = normalize(torch.randn(3, 8, generator=generator), dim=-1)
    read = normalize(torch.randn(3, 4, 8, generator=generator), dim=-1)
    captions = torch.tensor([[0, 1, 0, 2], [3, 3, 3, 3], [4, 5, 6, 7]])
    cosines = 9.0 * (seen[:, None] * read).sum(-1).double()
    expected = [
        -torch.log_softmax(cosines[0, [0, 1, 3]], 0)[0],  # the third caption is the true one again
        -torch.log_softmax(cosines[2], 0)[0],  # the second picture has no false caption
    ]
    found = clip.hard_loss(seen, read, captions, torch.tensor(9.0))
    assert found.item() == pytest.approx(torch.stack(expected).mean().item(), rel=1e-5)
    assert clip.hard_loss(seen, read, captions[:, :1].repeat(1, 4), torch.tensor(9.0)) == 0


SEASON_WORDS = {"spring": "spring", "summer": "summer", "autumn": "autumn|fall", "winter": "winter|snow"}


def test_hard_captions_differ_in_one_thing() -> None:
    changed = {name: 0 for name in ("time", "season", "style", "kind")}
    for index in range(300):
        true, *false = clip_data.hard_captions(0, 0, index)
        assert len(false) == clip_data.FALSE_CAPTIONS
        scene, _ = sample_pair(np.random.default_rng([0, 0, index]))
        for name, text in zip(changed, false, strict=True):
            changed[name] += text != true
        if false[1] != true:
            own = SEASON_WORDS[scene.season]
            assert any(re.search(words, false[1]) for words in SEASON_WORDS.values() if words != own), false[1]
            assert scene.kind != "peak"  # where snow lies in every season
        assert false[3] == true or not re.search("landscape|nature|scenery", false[3])
        # A sentence that names the style is another in another style; one that names no season is the same.
        assert false[2] != true
    # Every kind has its words, an hour is named in half of the sentences, a season in a third where it can be seen.
    assert changed["kind"] > 250 and 75 < changed["time"] < 275 and 15 < changed["season"] < 200


def test_another_decoder_makes_other_pictures(tmp_path: Path) -> None:
    torch.manual_seed(0)
    blocks = {"encoder_block_out_channels": (8,) * 4, "decoder_block_out_channels": (8,) * 4}
    vae = AutoencoderTiny(**blocks, num_encoder_blocks=(0, 0, 0, 0), num_decoder_blocks=(0, 0, 0, 0)).eval()
    first = clip_data.load_data(tmp_path, vae, 1, 1, 0, CPU)
    vae.decoder.layers[-1].bias.data += 0.5
    second = clip_data.load_data(tmp_path, vae, 1, 1, 0, CPU)
    assert first.identity != second.identity
    assert not np.array_equal(first.decoded, second.decoded)


def test_too_few_heldout_scenes_are_refused_before_the_training(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        clip.main(["--device", "cpu", "--heldout", "50"])
    assert capsys.readouterr().err.startswith("error: heldout=50: use 64 or more")


def test_retrieval_accuracy_deals_repeated_captions_into_other_groups() -> None:
    captions = ["a", "a", "b", "b", "c"]
    texts = torch.eye(3)[[0, 0, 1, 1, 2]]
    # Groups of two: rows (a0, b2), (a1, b3); c is left over. Row 3 looks like "a".
    images = torch.eye(3)[[0, 0, 1, 0, 1]]
    assert clip_model.retrieval_accuracy(images, texts, captions, 2) == 0.75
    with pytest.raises(ValueError, match="fewer than 4"):
        clip_model.retrieval_accuracy(images, texts, captions, 4)


def test_augmented_pictures_stay_pictures(data: clip.ClipData) -> None:
    pictures = to_unit(data.images[:, :, :128], CPU)
    changed = clip.augment(pictures, SMALL, torch.Generator().manual_seed(1))
    assert changed.shape == pictures.shape and changed.abs().max() <= 1
    still = clip.ClipSettings(shift=0, jitter=0.0)
    same = clip.augment(pictures, still, torch.Generator().manual_seed(1))
    for a, b in zip(same, pictures, strict=True):
        # Times 1 plus 1 minus 1 in float32.
        assert min((a - b).abs().max(), (a - b.flip(-1)).abs().max()) < 1e-6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mini_clip")
    clip_model.export(clip_model.build_clip(7), path)
    return path


def test_folder_opens_with_open_clip(folder: Path, data: clip.ClipData) -> None:
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    model.eval()
    expected = clip_model.build_clip(7).eval()
    tokens = tokenizer(list(PAPER_PROMPTS))
    assert torch.equal(tokens, data.tokens)
    pixels = torch.stack([preprocess(Image.fromarray(image)) for image in data.images[:, :, :128]])
    # open_clip's preprocessing is what the training fed, up to float32 rounding.
    torch.testing.assert_close(pixels, to_unit(data.images[:, :, :128], CPU), rtol=0, atol=1e-6)
    with torch.no_grad():
        for found, wanted in (
            (model.encode_image(pixels), expected.encode_image(pixels)),
            (model.encode_text(tokens), expected.encode_text(tokens)),
        ):
            # Weights kept in half precision: 11 bits each, through a few layers.
            assert (normalize(found, dim=-1) * normalize(wanted, dim=-1)).sum(1).min() > 0.9999


def test_folder_is_small(folder: Path) -> None:
    assert sum(file.stat().st_size for file in folder.iterdir()) < 7e6
