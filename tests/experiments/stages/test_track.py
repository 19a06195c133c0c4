"""What an offline W&B run really records, read back from the file that it leaves."""

import json
import time
from pathlib import Path

import pandas as pd
import wandb

from experiments.stages.sequence import run
from experiments.stages.track import logged_in, wandb_mode
from tests.experiments.wandb_file import read_back


def test_offline_run_holds_what_the_files_hold(compose, known_scores, capsys):
    plan = compose("name=tiny")
    run(plan)
    found = read_back(plan.folder / "wandb")

    assert (found["run"].project, found["run"].display_name, found["exit"]) == ("syncdiffusion", "tiny", 0)
    assert found["run"].run_group == plan.folder.name
    for name, value in plan.resolved.items():
        assert found["config"][name] == value, name
    assert found["config"]["environment"] == json.loads((plan.folder / "environment.json").read_text())

    history = found["history"]
    assert history["multidiffusion/intra_lpips"] == 0.5625 and history["blended_latent/fid"] == 123.456
    for name in ("panoramas", "scores"):
        frame = pd.read_csv(plan.folder / f"{name}.csv")
        table = json.loads((found["files"] / history[f"{name}.path"]).read_text())
        assert table["columns"] == list(frame.columns)
        kept = pd.DataFrame(table["data"], columns=table["columns"]).astype(frame.dtypes)
        pd.testing.assert_frame_equal(kept, frame)
    for label in plan.labels:
        assert history[f"images/{label}.captions"] == [
            f"{u.prompt}, seed {u.seed}" for u in plan.units if u.label == label
        ]
        for name, unit in zip(
            history[f"images/{label}.filenames"], (u for u in plan.units if u.label == label), strict=True
        ):
            assert same_pixels(found["files"] / name, unit.png(plan.folder))
    assert same_pixels(found["files"] / history["gallery.path"], plan.folder / "gallery.png")
    assert "wandb:" not in "".join(capsys.readouterr())


def same_pixels(one: Path, other: Path) -> bool:
    from PIL import Image, ImageChops

    return ImageChops.difference(Image.open(one).convert("RGB"), Image.open(other).convert("RGB")).getbbox() is None


def test_disabled_leaves_nothing(compose, known_scores):
    plan = compose("tracking=disabled")
    run(plan)
    assert not (plan.folder / "wandb").exists()


def test_everything_stays_inside_the_run_folder(compose, known_scores, tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    plan = compose()
    run(plan)
    assert set(tmp_path.iterdir()) - before == {plan.folder, plan.shared}
    assert not [path for path in home.rglob("*wandb*") if path.is_file()]


def test_auto_follows_the_environment_and_the_login(monkeypatch, tmp_path):
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    netrc = tmp_path / "netrc"
    monkeypatch.setenv("NETRC", str(netrc))
    assert not logged_in() and wandb_mode("auto") == "offline"
    netrc.write_text("machine example.org login a password b\n")
    assert wandb_mode("auto") == "offline"
    netrc.write_text("machine api.wandb.ai login user password 0123456789\n")
    assert wandb_mode("auto") == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_mode("auto") == "disabled" and wandb_mode("offline") == "offline"
    monkeypatch.delenv("WANDB_MODE")
    netrc.unlink()
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert wandb_mode("auto") == "online"


def test_a_server_out_of_reach_costs_seconds_and_the_run_is_kept_offline(compose, known_scores, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setattr("experiments.stages.track.LOGIN_SECONDS", 2)
    wandb.teardown()  # W&B reads its environment once
    plan = compose("tracking=online")
    started = time.monotonic()
    run(plan)
    assert time.monotonic() - started < 60
    assert "kept offline instead" in capsys.readouterr().err
    assert read_back(plan.folder / "wandb")["history"]["multidiffusion/intra_lpips"] == 0.5625
