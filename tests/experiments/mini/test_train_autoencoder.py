"""The autoencoder's training can be interrupted, moves nothing but the decoder, and each loss moves its own network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny
from torch import Tensor

from experiments.mini import autoencoder_model
from experiments.mini import train_autoencoder as autoencoder
from experiments.mini.diffusion_data import encoder_hash, load_vae
from experiments.mini.training import to_unit
from syncdiffusion.errors import UsageError

SMALL = autoencoder.AutoencoderSettings(
    latent_channels=8,
    decoder_width=16,
    decoder_blocks=(1, 1, 1, 0),
    linear_steps=3,
    batch=2,
    crop=32,
    warmup=2,
    critic_width=8,
)
SCHEDULE = autoencoder.Schedule(steps=6, cooldown=2, critic_from=3)
CPU = torch.device("cpu")


def pictures(count: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)


def mean_square(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square().mean((1, 2, 3))


def train(work: Path, schedule: autoencoder.Schedule = SCHEDULE, settings=SMALL, stop_after: int | None = None):
    return autoencoder.train(settings, schedule, work, CPU, pictures(5), pictures(2), mean_square, 4.0, stop_after)


def test_resumed_training_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole")
    train(tmp_path / "parts", stop_after=4)
    resumed = train(tmp_path / "parts")
    before = autoencoder_model.start_autoencoder(SMALL, pictures(5), CPU)
    moved = 0.0
    for a, b, c in zip(whole.parameters(), resumed.parameters(), before.parameters(), strict=True):
        # The same operations on the same numbers: no tolerance.
        assert torch.equal(a, b)
        moved = max(moved, (a - c).abs().max().item())
    assert moved > 1e-4
    assert (tmp_path / "whole" / "autoencoder" / "reconstructions.png").exists()
    # The encoder stands from the beginning, and what is kept is what was trained.
    kept = load_vae(tmp_path / "whole" / "vae", CPU)
    assert encoder_hash(kept) == encoder_hash(whole) == encoder_hash(before)
    for a, b in zip(kept.decoder.parameters(), whole.decoder.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)  # half precision keeps 11 bits


def stop(*_, **__) -> None:
    raise KeyboardInterrupt


def test_a_stop_between_the_last_checkpoint_and_its_folder_is_made_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path, stop_after=1)
    with monkeypatch.context() as patch:
        patch.setattr(autoencoder, "save_autoencoder", stop)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path)
    made = train(tmp_path)
    kept = load_vae(tmp_path / "vae", CPU)
    for a, b in zip(kept.decoder.parameters(), made.decoder.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)  # half precision keeps 11 bits


@pytest.mark.parametrize("stopped", ["writing", "moving"])
def test_a_stop_while_the_folder_is_written_leaves_none_or_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped: str
) -> None:
    def only_config(model: AutoencoderTiny, folder: Path) -> None:
        model.save_config(folder)  # which diffusers writes before the weights
        raise KeyboardInterrupt

    replace_file = Path.replace

    def weights_only(file: Path, target: Path) -> Path:
        if target.name == "config.json":
            raise KeyboardInterrupt
        return replace_file(file, target)

    with monkeypatch.context() as patch:
        if stopped == "writing":
            patch.setattr(AutoencoderTiny, "save_pretrained", only_config)
        else:
            patch.setattr(Path, "replace", weights_only)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path)
    with pytest.raises(UsageError, match="no autoencoder there"):
        load_vae(tmp_path / "vae", CPU)
    train(tmp_path, stop_after=1)
    assert {file.name for file in tmp_path.iterdir()} == {"autoencoder", "vae"}


def test_checkpoint_of_other_settings_is_refused_and_a_longer_schedule_is_not(tmp_path: Path) -> None:
    train(tmp_path, stop_after=1)
    with pytest.raises(UsageError, match=f"critic_width={SMALL.critic_width}"):
        train(tmp_path, settings=replace(SMALL, critic_width=12))
    with pytest.raises(UsageError, match="latent_channels=8"):
        train(tmp_path, settings=replace(SMALL, latent_channels=4))
    train(tmp_path, autoencoder.Schedule(9, 1, 0), replace(SMALL, batch=3, critic_weight=0.1), stop_after=1)


def test_scaled_latents_have_the_deviation_that_colours_need(tmp_path: Path) -> None:
    images = pictures(4)
    vae = autoencoder_model.start_autoencoder(SMALL, images, CPU)
    autoencoder_model.save_autoencoder(vae, tmp_path / "vae")
    loaded = AutoencoderTiny.from_pretrained(tmp_path / "vae")
    latents = loaded.encode(to_unit(images, CPU)).latents
    # The factor has five decimals.
    assert (latents * loaded.config.scaling_factor).std().item() == pytest.approx(
        autoencoder_model.LATENT_DEVIATION, abs=1e-3
    )


def test_the_linear_decoder_learns() -> None:
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    images = np.kron(coarse, np.ones((1, 8, 8, 1), np.uint8))
    settings = replace(SMALL, linear_steps=60, warmup=5, latent_noise=0.0)
    losses = [autoencoder_model.start_autoencoder(replace(settings, linear_steps=n), images, CPU) for n in (1, 200)]
    errors = [
        ((autoencoder_model.reconstruct(vae, images, CPU)[0] - images.astype(float)) ** 2).mean() for vae in losses
    ]
    assert errors[1] < errors[0] / 4


@pytest.mark.parametrize("part, other", [("decoder", "critic"), ("critic", "decoder")])
def test_each_network_has_the_gradient_of_its_own_loss(part: str, other: str) -> None:
    """The gradient of the sum in one network's weights is that of its own loss, written out anew."""
    vae = autoencoder_model.start_autoencoder(SMALL, pictures(3), CPU)
    models = autoencoder.build_models(vae, SMALL)
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    latents = vae.encoder(images)
    autoencoder.losses(models, latents, images, mean_square, SMALL, judged=True)[0].backward()
    found = [p.grad.clone() for p in models[part].parameters()]
    models.zero_grad()
    models[other].requires_grad_(False)
    decoded = models["decoder"](latents)
    (fake, seen), (true, wanted) = models["critic"](decoded), models["critic"](images)
    if part == "critic":
        own = (1 - true).clamp(min=0).mean() + (1 + fake).clamp(min=0).mean()
    else:
        alike = sum((a - b).abs().mean() for a, b in zip(seen, wanted, strict=True))
        own = (decoded - images).abs().mean() + SMALL.perceptual_weight * (decoded - images).square().mean()
        own = own + SMALL.critic_weight * (alike - fake.mean())
    own.backward()
    for a, p in zip(found, models[part].parameters(), strict=True):
        torch.testing.assert_close(a, p.grad, rtol=1e-4, atol=1e-6)  # float32 sums in another order
    assert max(a.abs().max().item() for a in found) > 1e-5


def test_critic_judges_every_eighth_pixel() -> None:
    verdict, features = autoencoder.Critic(8)(torch.zeros(2, 3, 64, 48))
    assert verdict.shape == (2, 1, 8, 6) and len(features) == 3
