"""The trainings can be interrupted, and the pictures do not depend on who renders them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics.image import PeakSignalNoiseRatio

from experiments.mini import train_autoencoder as autoencoder
from experiments.mini import train_diffusion as diffusion
from experiments.mini.autoencoder_model import AutoencoderSettings, psnr_values
from experiments.mini.dataset import SHARD, load_pictures, make_item
from experiments.mini.scenes import render, sample_scene
from experiments.mini.training import MovingAverage, Training, learning_rate, take_options, train_steps
from syncdiffusion.errors import UsageError

CPU = torch.device("cpu")


def test_psnr_is_torchmetrics() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 256, (3, 16, 16, 3), dtype=np.uint8) for _ in range(2))
    expected = [
        PeakSignalNoiseRatio(data_range=255.0)(torch.from_numpy(y).float(), torch.from_numpy(x).float()).item()
        for x, y in zip(a, b, strict=True)
    ]
    # float32 there, float64 here.
    np.testing.assert_allclose(psnr_values(a, b), expected, rtol=1e-5)


def same(a, b) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_pictures_do_not_depend_on_workers_count_or_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = load_pictures(tmp_path / "one", "train", 3, seed=5, workers=1)
    two = load_pictures(tmp_path / "two", "train", SHARD + 2, seed=5, workers=2, first=SHARD - 4)
    image, captions, edges = one.images, one.captions, one.edges
    assert len(two.images) == SHARD + 2 and image[0].shape == (128, 256, 3)
    for place, pictures_, number in ((2, one, 2), (0, two, SHARD - 4), (5, two, SHARD + 1), (-1, two, 2 * SHARD - 3)):
        item, at = make_item(5, 0, number), range(len(pictures_.images))[place]
        assert np.array_equal(pictures_.images[at], item.picture)
        assert pictures_.captions[at] == item.captions and pictures_.edges[at] == item.edges
    assert same(image, load_pictures(tmp_path / "one", "train", 3, seed=5).images)
    assert captions == load_pictures(tmp_path / "one", "train", 3, seed=5).captions and len(edges) == 3


def test_pictures_are_read_again_and_splits_differ(tmp_path: Path) -> None:
    first = load_pictures(tmp_path, "train", 2, workers=1)
    stamp = (tmp_path / "pictures" / "train" / "0000.npy").stat().st_mtime_ns
    again = load_pictures(tmp_path, "train", 1, workers=1)
    assert (tmp_path / "pictures" / "train" / "0000.npy").stat().st_mtime_ns == stamp
    assert np.array_equal(first.images[0], again.images[0])
    heldout = load_pictures(tmp_path, "heldout", 1, workers=1)
    assert not np.array_equal(heldout.images[0], again.images[0])


def test_a_suns_window_shows_it() -> None:
    """The sun stands in every window of a scene's range; without one, all windows are in range."""
    rng = np.random.default_rng(0)
    scene = sample_scene(rng, kind="desert", time="day", style="photo", mist=0.0)
    scene = replace(scene, clouds=0.0)
    assert replace(scene, sun=None).window_range(128, 256) == (0, 128)
    for sun in (0.04, 0.05, 0.3, 0.5, 0.95, 0.96):
        bright = replace(scene, sun=sun)
        x, (first, last) = sun * 256, bright.window_range(128, 256)
        assert 0 <= first <= last <= 128
        # The middle half of the smallest disc, at least, is in every window; where a whole one is, the window counts.
        assert all(left + 4 <= x <= left + 124 for left in range(first, last + 1))
        assert {left for left in range(129) if left + 8 <= x <= left + 120} <= set(range(first, last + 1))
        # The sun's own light is the palette's, which the plain sky is far from.
        picture = render(bright, 128, 256)
        light = np.array([int(bright.look.light[i : i + 2], 16) for i in (1, 3, 5)])
        for left in range(first, last + 1):
            near = np.abs(picture[:, left : left + 128].astype(int) - light).max(-1) < 24
            assert near.sum() > 30


@pytest.mark.parametrize(
    ("split", "count", "workers", "named"),
    [("test", 1, 1, "split=test"), ("train", 0, 1, "count=0"), ("train", 1, 0, "workers=0: use 1 or more")],
)
def test_bad_requests_name_the_setting(tmp_path: Path, split: str, count: int, workers: int, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        load_pictures(tmp_path, split, count, workers=workers)


@pytest.mark.parametrize("threads", ["-1", "0"])
def test_threads_below_one_are_refused(threads: str) -> None:
    with pytest.raises(UsageError, match=f"threads={threads}: use 1 or more"):
        take_options(diffusion.parse(["--device", "cpu", "--threads", threads]), diffusion.DiffusionSettings)


def test_a_second_writer_of_a_checkpoint_is_refused(tmp_path: Path) -> None:
    layer = torch.nn.Linear(1, 1)
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.1)
    training = Training("test", tmp_path / "a" / "checkpoint.pt", {}, layer, optimiser, MovingAverage(layer))
    steps = partial(train_steps, training, lambda step: {}, 3, 60.0)
    code = "import sys; from filelock import FileLock\nwith FileLock(sys.argv[1]): print(1, flush=True); input()"
    lock = training.checkpoint.with_suffix(".lock")
    lock.parent.mkdir()
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code, str(lock)], **pipes) as other:
        assert other.stdout.readline()
        with pytest.raises(UsageError, match="another training writes it"):
            list(steps())
        other.communicate(b"\n")
    assert [step for step, _ in steps()] == [1, 2, 3]


def test_learning_rate_warms_up_and_ends_low() -> None:
    rates = [learning_rate(step, 100, 1.0, 10, 30) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[10:70] == [1.0] * 60
    assert rates[-1] < 0.04
    # A longer training has gone the same way up to where the shorter one cooled down.
    assert [learning_rate(step, 200, 1.0, 10, 30) for step in range(70)] == rates[:70]


def test_averages_of_several_lengths() -> None:
    """Against the closed form: weights 0, 1, 2, … averaged with decay min(d, (1 + n) / (10 + n))."""
    layer = torch.nn.Linear(1, 1, bias=False)
    layer.weight.data.zero_()
    average, expected = MovingAverage(layer, 0.5, 0.9), [0.0, 0.0]
    for n in range(30):
        layer.weight.data.fill_(float(n))
        average.update(layer)
        for i, limit in enumerate((0.5, 0.9)):
            decay = min(limit, (1 + n) / (10 + n))
            expected[i] = decay * expected[i] + (1 - decay) * n
    found = [average.copy_to(layer, which).weight.item() for which in range(2)]
    assert found == pytest.approx(expected, rel=1e-5) and found[1] < found[0] - 1


def test_flags_are_the_settings() -> None:
    assert take_options(diffusion.parse([]), diffusion.DiffusionSettings)[1] == diffusion.DiffusionSettings()
    given = ["--decoder-blocks", "3", "1", "1", "0", "--peak-rate", "0.5", "--steps", "7", "--device", "cpu"]
    device, settings = take_options(autoencoder.parse(given), AutoencoderSettings)
    assert device == CPU
    assert settings == AutoencoderSettings(decoder_blocks=(3, 1, 1, 0), peak_rate=0.5)
    assert take_options(autoencoder.parse(given), autoencoder.Schedule)[1] == autoencoder.Schedule(steps=7)
    given = ["--bfloat16", "--batch", "3"]
    chosen = take_options(diffusion.parse(given), diffusion.DiffusionSettings)[1]
    assert chosen == diffusion.DiffusionSettings(bfloat16=True, batch=3)


def test_mistakes_end_the_program_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        diffusion.main(["--work", str(tmp_path), "--device", "cpu", "--steps", "0"])
    error = capsys.readouterr().err
    assert error.startswith("error: steps=0") and error.count("\n") == 1
