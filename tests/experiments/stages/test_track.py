"""What an offline W&B run really records, read back from the file that it leaves."""

import errno
import json
import re
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import wandb
from PIL import Image, ImageChops
from scipy import stats

from experiments.panoramas.claims import LEASE
from experiments.panoramas.index import read_index
from experiments.panoramas.store import unit_key
from experiments.stages import generate, track, track_content
from experiments.stages.generate import model_facts
from experiments.stages.report import summary
from experiments.stages.sequence import run
from experiments.stages.track_settings import logged_in, wandb_mode
from syncdiffusion.errors import UsageError
from tests.experiments.panoramas.test_claims import foreign
from tests.experiments.wandb_file import read_back, rows_of


def test_offline_run_holds_what_the_files_hold(compose, known_scores, capsys):
    plan = compose("name=tiny", "tracking=offline")
    run(plan)
    found = read_back(plan.folder / "wandb")

    assert (found["run"].project, found["run"].display_name, found["exit"]) == ("syncdiffusion", "tiny", 0)
    assert (found["run"].run_group, found["run"].job_type) == ("tiny", "all")
    assert set(found["run"].tags) == {"tiny", "folder", "paper", "multidiffusion", "blended_latent", "mini"}
    for name, value in plan.resolved.items():
        assert found["config"][name] == value, name
    assert found["config"]["precision"] == "float32"
    assert found["config"]["environment"] == json.loads((plan.folder / "environment.json").read_text())

    history = found["history"]
    assert history["multidiffusion/intra_lpips"] == 0.5625 and history["blended_latent/fid"] == 123.456
    for name in ("panoramas", "scores", "comparisons", "replicates"):
        frame = pd.read_csv(plan.folder / f"{name}.csv")
        table = table_of(found, name)
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
    for name in ("gallery", "comparison"):
        assert same_pixels(found["files"] / history[f"{name}.path"], plan.folder / f"{name}.png")

    # The main table: a mean with half of its 95 % interval, and a number of the set that has none.
    table = table_of(found, "table")
    assert table["columns"][:5] == ["method", "n", "FID ↓", "Intra-LPIPS ↓", "Intra-LPIPS ↓ ±"]
    half = stats.t.ppf(0.975, 3) * np.std([0.5, 0.625, 0.5, 0.625], ddof=1) / 2
    for row, title in zip(table["data"], ("MultiDiffusion", "Blended latent diffusion"), strict=True):
        assert row[:4] == [title, 4, 123.456, 0.5625] and row[4] == pytest.approx(half)
    figures = sorted(path.stem for path in (plan.folder / "figures").glob("*.svg"))
    assert (
        figures and sorted(key.split("/")[1][:-5] for key in history if re.match("figures/.*[.]path", key)) == figures
    )
    for name in figures:
        with Image.open(found["files"] / history[f"figures/{name}.path"]) as picture:
            assert picture.width > 600 and len(picture.getcolors(10**6)) > 10

    out, err = capsys.readouterr()
    (folder,) = (plan.folder / "wandb").glob("offline-run-*")
    assert out.splitlines()[-2:] == [
        f"W&B: offline run in {folder}; to upload it: wandb sync {folder}",
        f"run folder: {plan.folder}",
    ]
    assert "wandb:" not in out + err and "tracking:" not in err


def table_of(found, name):
    return json.loads((found["files"] / found["history"][f"{name}.path"]).read_text())


def test_progress_is_logged_while_panoramas_are_made(compose, monkeypatch):
    monkeypatch.setattr(track, "EVERY", 0.0)
    plan = compose("tracking=offline", "stage=generate", "prompts.texts=[hills]", "seeds.count=1")
    run(plan)
    told = list(rows_of(plan.folder / "wandb"))
    share = [row["progress/share"] for row in told]
    assert share == sorted(share) and share[-1] == 1
    assert told[-1]["progress/pictures"] == told[-1]["progress/of"] == 3
    fractions = sorted({row["progress/step_fraction"] for row in told})
    assert fractions[0] == 0 and fractions[-1] < 1
    assert all(min(abs(each - third) for each in fractions) < 1e-9 for third in (1 / 3, 2 / 3))  # of three steps
    seconds = [row["progress/seconds"] for row in told]
    assert seconds == sorted(seconds) and seconds[0] > 0
    record = json.loads(plan.units[0].json(plan.folder).read_text())
    (took,) = [each for row in told for key, each in row.items() if key == "progress/seconds_each/multidiffusion"]
    assert took == pytest.approx(record["seconds"], abs=0.001)
    assert read_back(plan.folder / "wandb")["run"].job_type == "generate"


def test_progress_of_panoramas_that_go_together_and_of_what_others_make(compose, monkeypatch):
    monkeypatch.setattr(track, "EVERY", 0.0)
    plan = compose("tracking=offline", "stage=generate", "reference.count=0", "panoramas_at_once=2")
    others = plan.units[6:]  # two of the second method, which another process makes
    run(compose("stage=generate", "reference.count=0", f"run_dir={plan.folder.parent / 'first'}"))
    kept = {path: path.read_bytes() for unit in others for path in shared_files(plan, unit)}
    for path in plan.shared.rglob("panoramas/*/*"):
        path.unlink()
    (plan.shared / "claims").mkdir(exist_ok=True)
    held = [foreign(plan.shared / "claims", LEASE, key_of(plan, unit)) for unit in others]
    make = generate.make

    def make_while_the_other_ends(*words):
        made = make(*words)
        for path, content in kept.items():
            path.write_bytes(content)
        for claim in held:
            claim.unlink(missing_ok=True)
        return made

    monkeypatch.setattr(generate, "make", make_while_the_other_ends)
    run(plan)
    told = list(rows_of(plan.folder / "wandb"))
    assert [told[-1][f"progress/{name}"] for name in ("pictures", "of", "share")] == [6, 6, 1]
    halfway = [
        row["progress/share"] for row in told if row["progress/step_fraction"] > 0 and not row["progress/pictures"]
    ]
    assert halfway == pytest.approx([2 / 3 / 8, 4 / 3 / 8])  # two of eight, after one and two steps of three
    record = json.loads(plan.units[0].json(plan.folder).read_text())
    took = [each for row in told for key, each in row.items() if key == "progress/seconds_each/multidiffusion"]
    assert took[0] == pytest.approx(record["seconds"], abs=0.001)


def key_of(plan, unit):
    return unit_key(unit, model_facts(plan.backbone))


def shared_files(plan, unit):
    return list(plan.shared.rglob(f"{key_of(plan, unit)}.*"))


def same_pixels(one: Path, other: Path) -> bool:
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
    plan = compose("tracking=offline")
    run(plan)
    assert set(tmp_path.iterdir()) - before == {plan.folder, plan.shared}
    assert not [path for path in home.rglob("*") if path.is_file() and "wandb" in str(path.relative_to(home))]


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


def test_auto_follows_what_wandbs_own_commands_have_kept(monkeypatch, tmp_path):
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "netrc").write_text("machine wandb.example.org login user password 0123456789\n")
    assert wandb_mode("auto") == "offline"
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "settings").write_text("[default]\nbase_url = https://wandb.example.org\n")
    assert wandb_mode("auto") == "online"
    (tmp_path / "wandb").mkdir()
    for command in ("offline", "disabled"):  # in this folder
        (tmp_path / "wandb" / "settings").write_text(f"[default]\nmode = {command}\n")
        assert wandb_mode("auto") == command and wandb_mode("online") == "online"
    (tmp_path / "wandb" / "settings").write_text("[default]\nmode = online\n")
    assert wandb_mode("auto") == "online"


def test_wandbs_environment_counts(compose, monkeypatch):
    chosen = {"RUN_GROUP": "a group", "NAME": "a name", "TAGS": "one,two", "JOB_TYPE": "a job", "PROJECT": "mine"}
    for name, value in chosen.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    plan = compose("tracking=offline", "stage=generate", "prompts.texts=[hills]", "seeds.count=1", "reference.count=0")
    run(plan)
    found = read_back(plan.folder / "wandb")["run"]
    assert (found.run_group, found.display_name, found.job_type, found.project) == (
        "a group",
        "a name",
        "a job",
        "mine",
    )
    assert list(found.tags) == ["one", "two"]


def test_jobs_of_a_sweep_are_one_group_by_names_that_wandb_takes(compose, tmp_path):
    folder = "method.weight=" + "5" * 106
    words = ["stage=generate", "prompts.texts=[hills]", "seeds.count=1", "reference.count=0", "tracking=offline"]
    plan = compose(*words, f"run_dir='{tmp_path / 'sweep' / folder}'", f"name='a sweep {folder}'")
    run(plan)
    found = read_back(plan.folder / "wandb")["run"]
    assert found.run_group == "a sweep"
    assert len(found.display_name) == 128 and found.display_name.startswith("a sweep method.weight=55")


def test_scoring_logs_nothing_and_says_so(compose, known_scores, monkeypatch, capsys):
    run(compose("tracking=disabled"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # W&B is not needed
    plan = compose("tracking=online", "stage=score")
    run(plan)
    assert "tracking: tracking.mode=online: stage=score logs nothing; stage=report does" in capsys.readouterr().err
    assert not (plan.folder / "wandb").exists()


def test_a_damaged_environment_is_named(compose):
    plan = compose("tracking=offline", "stage=report")
    plan.folder.mkdir()
    (plan.folder / "environment.json").write_text("{")
    with pytest.raises(UsageError, match="environment.json: is damaged .*; remove it"):
        run(plan)


def test_every_prompt_has_its_turn_where_pictures_are_many(compose, known_scores, monkeypatch):
    monkeypatch.setattr(track_content, "MOST_IMAGES", 3)
    plan = compose("tracking=offline")
    run(plan)
    captions = read_back(plan.folder / "wandb")["history"]["images/multidiffusion.captions"]
    assert captions == ["hills by the sea, seed 0", "hills by the sea, seed 1", "a city, seed 0"]
    monkeypatch.setattr(track_content, "MOST_IMAGES", 2)
    images = track_content.pictures(plan, read_index(plan))["blended_latent"]
    assert [image._caption for image in images] == ["hills by the sea, seed 0", "a city, seed 0"]


def test_what_is_not_known_is_left_out_or_none():
    panoramas = pd.DataFrame({"method": ["it"], "seconds": [1.5], "peak_memory_bytes": [np.nan]})
    scores = pd.DataFrame({"method": ["it"], "metric": ["fid"], "prompt": ["all"], "value": [np.nan]})
    assert summary(scores, panoramas) == {"it/seconds": 1.5}
    assert track_content.whole_table(panoramas).data == [["it", 1.5, None]]


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


MISTAKES = [
    ({"tracking.project": "a/b"}, {}, r"tracking.project=a/b: a name in W&B holds none of .*tracking.entity"),
    ({"tracking.project": "50%"}, {}, "tracking.project=50%: a name in W&B holds none of"),
    ({"tracking.project": "''"}, {}, "tracking.project=: is empty"),
    ({"tracking.project": "p" * 129}, {}, "tracking.project: a name of 129 characters; W&B takes 128 at most"),
    ({"tracking.entity": "a:b"}, {}, "tracking.entity=a:b: a name in W&B holds none of"),
    ({}, {"WANDB_MODE": "foo"}, "WANDB_MODE=foo: use one of online, offline, disabled"),
    ({}, {"WANDB_BASE_URL": "nonsense"}, "WANDB_BASE_URL=nonsense: no address of a server; give https://HOST"),
    ({}, {"WANDB_BASE_URL": "http://host:port"}, "WANDB_BASE_URL=http://host:port: no address"),
    ({}, {"WANDB_DATA_DIR": "/proc/none"}, "WANDB_DATA_DIR: W&B cannot write to /proc/none "),
    (
        {},
        {"WANDB_BASE_URL": "https://wandb.ai"},
        r"refuses a setting \(base_url: https://wandb.ai is not a valid [^\[]*\); mend",
    ),
]


@pytest.mark.parametrize(("settings", "environment", "message"), MISTAKES, ids=lambda value: str(value)[:40])
def test_a_mistake_is_told_before_the_first_picture(compose, monkeypatch, settings, environment, message):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    wandb.teardown()  # W&B reads its environment once
    plan = compose("tracking=offline", *(f"{name}={value}" for name, value in settings.items()))
    with pytest.raises(UsageError, match=message):
        run(plan)
    assert not (plan.folder / "panoramas").exists()
    wandb.teardown()


def test_without_wandb_it_is_said_at_once_and_disabled_needs_none(compose, known_scores, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    plan = compose("tracking=offline")
    with pytest.raises(UsageError, match="tracking.mode=offline: wandb is not installed; pip install wandb, or "):
        run(plan)
    assert not plan.folder.exists()
    run(compose("tracking=disabled"))
    assert (plan.folder / "table.md").is_file()


def test_a_file_where_its_folder_must_be(compose):
    plan = compose("tracking=offline")
    plan.folder.mkdir()
    (plan.folder / "wandb").write_text("")
    with pytest.raises(UsageError, match="run_dir: W&B cannot write to .*wandb "):
        run(plan)


@pytest.mark.parametrize("part", ["log", "finish", "init"])
def test_a_failure_inside_wandb_costs_a_line_and_no_result(compose, known_scores, monkeypatch, capsys, part):
    def fail(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*((wandb, "init") if part == "init" else (wandb.Run, part)), fail)
    plan = compose("tracking=offline")
    run(plan)  # and does not raise
    out, err = capsys.readouterr()
    (line,) = [each for each in err.splitlines() if each.startswith("tracking: ")]
    assert "No space left on device" in line and "Traceback" not in err
    assert not read_index(plan).missing and (plan.folder / "report" / "index.html").is_file()
    assert out.splitlines()[-1] == f"run folder: {plan.folder}"
    assert ("to upload it: wandb sync" in out) is (part != "init")
    monkeypatch.undo()
    wandb.teardown()


def test_what_wandbs_own_process_could_not_write_is_told(compose, known_scores, monkeypatch, capsys):
    """It raises nothing, and tells its own log alone; the line is of a real full disk."""
    line = '"msg":"writer: failed to save record: transactionlog: write /x/run.wandb: no space left on device"'

    def finish_and_log(run, *arguments, **options):
        finish(run, *arguments, **options)
        with (Path(run.settings.sync_dir) / "logs" / "debug-internal.log").open("a") as log:
            log.write(line + "\n")

    finish = wandb.Run.finish
    monkeypatch.setattr(wandb.Run, "finish", finish_and_log)
    run(compose("tracking=offline"))
    out, err = capsys.readouterr()
    assert "tracking: W&B could not write all of its run (no space left on device); the results are not touched" in err
    assert "W&B: what it has of the run in " in out


def test_a_run_that_fails_ends_its_wandb_run_as_failed(compose):
    with pytest.raises(UsageError, match="not scored yet"):
        run(compose("tracking=offline", "stage=report", "run_dir=" + str(compose().folder)))
    assert read_back(compose().folder / "wandb")["exit"] == 1
