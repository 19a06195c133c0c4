"""The UNet's training can be interrupted, and what it writes opens as Stable Diffusion does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline

from experiments.mini import diffusion_data, diffusion_model
from experiments.mini import train_diffusion as diffusion
from experiments.mini.captions import PAPER_PROMPTS
from experiments.mini.tokenizer import load_tokenizer, train_tokenizer, write_tokenizer
from syncdiffusion.backbones.model_files import fingerprint_folder
from syncdiffusion.errors import UsageError

SMALL = diffusion.DiffusionSettings(
    latent_channels=8,
    channels=(16, 16, 32),
    text_width=32,
    text_layers=1,
    batch=4,
    warmup=2,
    averages=(0.2, 0.01, 0.99),
)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def vae_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random autoencoder; its scaling factor is far from 1, so that leaving it out would show."""
    folder = tmp_path_factory.mktemp("vae")
    torch.manual_seed(0)
    blocks = {"encoder_block_out_channels": (8,) * 4, "decoder_block_out_channels": (8,) * 4}
    depths = {"num_encoder_blocks": (0, 1, 1, 1), "num_decoder_blocks": (1, 1, 1, 0)}
    AutoencoderTiny(**blocks, **depths, latent_channels=8, scaling_factor=1.7).half().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder, *train_tokenizer(PAPER_PROMPTS * 3))
    return load_tokenizer(folder)


@pytest.fixture(scope="module")
def data(tokenizer, vae_folder: Path) -> diffusion_data.DiffusionData:
    rng = np.random.default_rng(0)
    tokens = diffusion_data.tokenize(tokenizer, [*PAPER_PROMPTS, *PAPER_PROMPTS[::-1]][:9]).unflatten(0, (3, 3))
    latents = rng.standard_normal((3, 8, 8, 16)).astype(np.float16)
    return diffusion_data.DiffusionData(
        latents=[latents[:1], latents[1:]],
        tokens=tokens,
        edges=torch.tensor([[0, 8], [3, 5], [0, 0]]),
        empty=diffusion_data.tokenize(tokenizer, [""])[0].long(),
        encoder=diffusion_data.encoder_hash(diffusion_data.load_vae(vae_folder, CPU)),
    )


def test_resumed_training_equals_an_uninterrupted_one(tmp_path: Path, data, vae_folder: Path, tokenizer) -> None:
    places = {name: diffusion.Places(tmp_path / name, vae_folder) for name in ("whole", "parts")}
    whole = diffusion.train(SMALL, 4, 2, places["whole"], CPU, data, tokenizer)
    for _ in range(2):
        resumed = diffusion.train(SMALL, 4, 2, places["parts"], CPU, data, tokenizer, stop_after=3)
    untrained = diffusion_model.build_models(SMALL, len(tokenizer), 8)
    # The same operations on the same numbers: no tolerance.
    for (name, a), b in zip(whole.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b), name
    for part in ("unet", "text_encoder"):
        pairs = zip(whole[part].parameters(), untrained[part].parameters(), strict=True)
        assert max((a - b).abs().max().item() for a, b in pairs) > 1e-4
    for place in places.values():
        assert (place.folder / "samples-000004.png").exists()
    # --export takes the average that does best, and refuses a checkpoint of other settings or another autoencoder.
    best = diffusion.best_average(SMALL, places["whole"], len(tokenizer), data)
    state = torch.load(places["whole"].folder / "checkpoint.pt", weights_only=True)
    losses = []
    for values in state["average"]["values"]:
        with torch.no_grad():
            for name, parameter in untrained.named_parameters():
                parameter.copy_(values[name])
        losses.append(diffusion.heldout_loss(untrained.eval(), data, SMALL))
    assert len(set(losses)) == 3
    assert diffusion.heldout_loss(best, data, SMALL) == min(losses)
    with pytest.raises(UsageError, match="caption_dropout=0.1"):
        diffusion.best_average(replace(SMALL, caption_dropout=0.0), places["whole"], len(tokenizer), data)
    with pytest.raises(UsageError, match="encoder="):
        diffusion.best_average(SMALL, places["whole"], len(tokenizer), replace(data, encoder="another"))


def test_the_encoders_hash_is_the_encoders(vae_folder: Path) -> None:
    """The decoder may change under a checkpoint, the encoder may not."""
    vae = diffusion_data.load_vae(vae_folder, CPU)
    before = diffusion_data.encoder_hash(vae)
    vae.decoder.layers[0].weight.mul_(2)
    assert diffusion_data.encoder_hash(vae) == before
    vae.encoder.layers[0].weight.mul_(2)
    assert diffusion_data.encoder_hash(vae) != before


def test_training_may_be_extended_with_other_scenes(tmp_path: Path, data, vae_folder: Path, tokenizer) -> None:
    places = diffusion.Places(tmp_path, vae_folder)
    fresh = replace(data, latents=[-part for part in data.latents])
    for steps, scenes in ((3, data), (6, fresh)):
        diffusion.train(SMALL, steps, 1, places, CPU, scenes, tokenizer, stop_after=2)
    state = torch.load(tmp_path / "diffusion" / "checkpoint.pt", weights_only=True)
    assert state["step"] == 4


def test_training_may_begin_with_an_exported_model(tmp_path: Path, exported: Path, data, vae_folder, tokenizer) -> None:
    models = diffusion_model.build_models(replace(SMALL, seed=7), len(tokenizer), 8)
    diffusion.load_weights(models, exported)
    expected = diffusion_model.build_models(SMALL, len(tokenizer), 8)
    for a, b in zip(models.parameters(), expected.parameters(), strict=True):
        # Half precision keeps 11 bits.
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    wider = diffusion_model.build_models(replace(SMALL, channels=(16, 32, 32)), len(tokenizer), 8)
    with pytest.raises(UsageError, match="init_from=.*unet"):
        diffusion.load_weights(wider, exported)
    with pytest.raises(UsageError, match="init_from="):
        diffusion.load_weights(models, tmp_path)


def test_windows_are_cut_where_the_captions_are_true(data) -> None:
    whole = np.concatenate(data.latents)
    settings = replace(SMALL, batch=300)
    latents, tokens, _, noise = diffusion.draw_batch(data, settings, torch.Generator().manual_seed(0))
    assert latents.shape == noise.shape == (300, 8, 8, 8)
    seen: dict[int, set[int]] = {0: set(), 1: set(), 2: set()}
    for window, words in zip(latents.numpy(), tokens, strict=True):
        places = [(i, x) for i in range(3) for x in range(9) if np.array_equal(window, whole[i, :, :, x : x + 8])]
        ((row, left),) = places
        seen[row].add(left)
        assert torch.equal(words, data.empty) or (words == data.tokens[row]).all(1).any()
    assert seen == {0: set(range(9)), 1: {3, 4, 5}, 2: {0}}


def test_loss_of_the_true_noise_is_zero_and_weights_follow_the_paper(data) -> None:
    class Oracle(torch.nn.Module):
        """Solves x_t = sqrt(a) x_0 + sqrt(1 - a) e for e, knowing x_0."""

        def forward(self, noisy, timesteps, text):
            a = alphas[timesteps][:, None, None, None]
            return type("Output", (), {"sample": (noisy - a.sqrt() * batch[0]) / (1 - a).sqrt()})

    alphas = diffusion_model.build_scheduler().alphas_cumprod
    batch = diffusion.draw_batch(data, SMALL, torch.Generator().manual_seed(0))
    models = diffusion_model.build_models(SMALL, 700, 8)
    models["unet"] = Oracle()
    loss, plain = diffusion.diffusion_loss(models, batch, alphas, 5.0)
    # float32 rounding, divided by sqrt(1 - a) of the faintest noise (0.03): about 1e-6, squared.
    assert plain < 1e-10 and loss < 1e-10
    weights = diffusion.loss_weights(alphas, 5.0)
    snr = alphas.double() / (1 - alphas.double())
    expected = torch.tensor([min(s, 5.0) / s for s in snr.tolist()])
    # float32 of 1 - a near a = 1 loses three of seven digits.
    torch.testing.assert_close(weights, expected, rtol=2e-3, atol=0)
    assert torch.equal(diffusion.loss_weights(alphas, 0.0), torch.ones(1000))


def test_batches_cover_the_schedule_and_drop_captions(data) -> None:
    settings = replace(SMALL, batch=200, caption_dropout=0.25)
    _, tokens, timesteps, _ = diffusion.draw_batch(data, settings, torch.Generator().manual_seed(0))
    assert torch.equal(timesteps // 5, torch.arange(200))
    dropped = (tokens == data.empty).all(1).float().mean().item()
    # Binomial, n = 200, p = 0.25: four standard deviations are 0.12.
    assert abs(dropped - 0.25) < 0.12


def test_latents_are_what_the_pipeline_decodes(vae_folder: Path) -> None:
    images = np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    vae = diffusion_data.load_vae(vae_folder, CPU)
    latents = diffusion_data.encode_pictures(vae, images, CPU, bfloat16=False, batch=2)
    assert latents.shape == (3, 8, 4, 4) and latents.dtype == np.float16
    pixels = torch.from_numpy(images[2].copy()).permute(2, 0, 1)[None] / 127.5 - 1
    expected = vae.encoder(pixels)[0] * 1.7
    # Half precision keeps 11 bits.
    torch.testing.assert_close(torch.from_numpy(latents[2]).float(), expected, rtol=1e-3, atol=1e-3)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, vae_folder: Path, tokenizer) -> Path:
    folder = tmp_path_factory.mktemp("mini")
    (folder / "gate.json").write_text("{}")
    models = diffusion_model.build_models(SMALL, len(tokenizer), 8)
    pipeline = diffusion_model.build_pipeline(models, diffusion_data.load_vae(vae_folder, CPU), tokenizer)
    diffusion_model.export(pipeline, Path(tokenizer.name_or_path), folder)
    return folder


@pytest.mark.parametrize("options", [{"torch_dtype": torch.float32}, {}], ids=["float32", "plain"])
def test_folder_opens_with_diffusers(exported: Path, options: dict) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(exported, **options)
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline.scheduler.config.prediction_type == "epsilon" and not pipeline.scheduler.config.set_alpha_to_one
    prompts = ["a photo of a city skyline at night", "zebras 🦓 in the ĳssel"]
    images = diffusion_model.sample(pipeline, prompts, seed=0, steps=2)
    assert images.shape == (2, 64, 64, 3) and images.dtype == np.uint8
    assert not np.array_equal(images[0], images[1])


def test_folder_is_whole_and_small(exported: Path) -> None:
    index = json.loads((exported / "model_index.json").read_text())
    assert index["safety_checker"] == index["feature_extractor"] == [None, None]
    assert (exported / "gate.json").exists() and not list(exported.glob(".export-*"))
    assert {p.name for p in (exported / "tokenizer").iterdir()} >= {"vocab.json", "merges.txt", "tokenizer_config.json"}
    assert not any("_name_or_path" in p.read_text(encoding="utf-8") for p in exported.rglob("*.json"))
    assert not list(exported.rglob("*.bin")) and len(list(exported.rglob("*.safetensors"))) == 3


def test_an_export_that_is_killed_leaves_the_models_fingerprint(
    tmp_path: Path, vae_folder: Path, tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model_index.json").write_text("{}")
    before, amid = fingerprint_folder(tmp_path / "model"), []
    copy = diffusion_model.shutil.copytree

    def look(source: Path, target: Path) -> None:
        copy(source, target)
        amid.append(fingerprint_folder(tmp_path / "model"))

    monkeypatch.setattr(diffusion_model.shutil, "copytree", look)
    models = diffusion_model.build_models(SMALL, len(tokenizer), 8)
    pipeline = diffusion_model.build_pipeline(models, diffusion_data.load_vae(vae_folder, CPU), tokenizer)
    diffusion_model.export(pipeline, Path(tokenizer.name_or_path), tmp_path / "model")
    assert amid == [before] and fingerprint_folder(tmp_path / "model") != before
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


def test_default_architecture_fits() -> None:
    models = diffusion_model.build_models(diffusion_model.DiffusionSettings(), 1026)
    # Half-precision UNet and single-precision text encoder, in megabytes; autoencoder and mini-CLIP are 13 more.
    size = {name: sum(p.numel() for p in models[name].parameters()) / 1e6 for name in models}
    assert 2 * size["unet"] + 4 * size["text_encoder"] < 30
