"""The command `syncdiffusion`: its picture is the method's own, its record makes it again, a mistake is one line."""

import io
import os
import signal
import subprocess
import sys
from dataclasses import asdict, fields
from pathlib import Path
from types import SimpleNamespace
from typing import get_type_hints

import numpy as np
import pytest
from PIL import Image

from baselines import METHODS
from syncdiffusion import __version__, cli, picture
from syncdiffusion.backbones.backbone import Backbone
from syncdiffusion.backbones.loading import load_backbone
from syncdiffusion.backbones.model_files import EMBEDDED_FOLDER, square_of
from syncdiffusion.cost import Square
from syncdiffusion.errors import UsageError
from tests.experiments.composing import compose_plan

REPOSITORY = Path(__file__).parents[2]
LAYOUT = REPOSITORY / "conf" / "layouts" / "coast.yaml"
QUICK = ["--method", "multidiffusion", "--steps", "2", "--width", "128", "--device", "cpu"]


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """command(*words) -> (exit status, stdout, stderr) of `syncdiffusion *words`, in this process and tmp_path."""

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path)
        capsys.readouterr()
        status = cli.main(words)
        return status, *capsys.readouterr()

    return call


@pytest.mark.parametrize(
    "prompt", ["a photo of a forest", "夕暮れの山脈 🌄", "Ёлки у моря", 'a "quoted" one,\nin two lines']
)
def test_the_picture_is_the_methods_own_and_carries_its_record(command, tiny, tiny_folder, tmp_path, prompt):
    words = [*QUICK, "--model", str(tiny_folder), "--set", "stride=4", "--seed", "5", "--negative-prompt", "grey"]
    status, out, err = command(prompt, *words, "-o", "sub/folder/one.png")
    assert status == 0 and out == "sub/folder/one.png\n", err
    path = tmp_path / out.strip()
    settings = METHODS["multidiffusion"].settings(
        height=64, width=128, steps=2, stride=4, negative_prompt="grey", guidance_scale=7.5
    )
    image = METHODS["multidiffusion"].generate(tiny, [prompt], [5], settings)[0]
    with Image.open(path) as opened:
        assert np.array_equal(np.asarray(opened), (image * 255).round().byte().permute(1, 2, 0).numpy())
        assert opened.info["Software"] == f"syncdiffusion {__version__}"
    record = picture.read_record(path)
    assert (record["method"], record["prompt"], record["seed"]) == ("multidiffusion", prompt, 5)
    assert record["model"] == {"id": str(tiny_folder), "revision": None, "fingerprint": tiny.fingerprint}
    assert record["settings"] == asdict(settings)  # all of them, so that the record alone makes the picture again
    assert record["precision"] == "float32" and record["device"] == "cpu"
    assert [each.name for each in path.parent.iterdir()] == ["one.png"]


def test_any_setting_of_the_method_can_be_given(command, tiny_folder, tmp_path):
    words = ["--model", str(tiny_folder), "--steps", "2", "--width", "96", "--device", "cpu"]
    chosen = {"loss": "style", "weight": "3", "first_n": "0", "anchor": "null", "checkpointing": "true"}
    given = [word for pair in chosen.items() for word in ("--set", "=".join(pair))]
    status, _, err = command("a lake", *words, *given)
    assert status == 0, err
    found = picture.read_record(tmp_path / "panorama.png")["settings"]
    expected = {"loss": "style", "weight": 3.0, "first_n": 0, "anchor": None, "checkpointing": True, "stride": 2}
    assert {name: found[name] for name in expected} == expected


@pytest.fixture(scope="module")
def mini() -> Backbone:
    return load_backbone(device="cpu")


@pytest.mark.parametrize("name", sorted(METHODS))
def test_by_default_it_samples_as_the_runner_does(mini, name):
    """The runner's numbers stand in conf, the miniature's own in its folder."""
    runner = compose_plan([f"method={name}"]).entries[0].settings
    square = Square(mini.window, mini.factor)
    ours = METHODS[name].settings(**cli.suited_settings(METHODS[name], square, EMBEDDED_FOLDER))
    assert asdict(ours) == dict(runner)


def test_a_model_of_which_nothing_is_known_has_the_methods_defaults(tiny, tiny_folder):
    method = METHODS["syncdiffusion"]
    ours = cli.suited_settings(method, Square(tiny.window, tiny.factor), tiny_folder)
    assert ours == {"height": 64, "width": 384, "stride": 2}  # of its windows, 8 latent cells of 8 px


MISTAKES = [
    (["--set", "wieght=3"], "--set wieght: syncdiffusion has no such setting; it has height, width"),
    (["--set", "weight"], "--set weight: give SETTING=VALUE"),
    (["--set", "weight=much"], "--set weight=much: must be a number"),
    (["--set", "first_n=1.5"], "--set first_n=1.5: must be a whole number or null"),
    (["--set", "checkpointing=1"], "--set checkpointing=1: must be true or false"),
    (["--set", "weight=-1"], "weight=-1.0: use 0 or more"),
    (["--steps", "5", "--set", "steps=6"], "--set steps: steps is given twice"),
    (["--steps", "0"], "steps=0: use 1 to 1000"),
    (["--steps", "many"], "--steps=many: must be a whole number"),
    (["--method", "blended_latent", "--stride", "4"], "--stride: blended_latent has no such setting"),
    (["--method", "sync"], "argument --method: invalid choice: 'sync' (choose from"),
    (["--negative-prompt", "caf\udce9"], "negative_prompt: is not UTF-8 text"),
    (["--steps", "9" * 400], "steps=999"),
    (["--model", "x" * 300], f"--model {'x' * 300}: cannot be read (File name too long)"),
    (["--out", f"{'x' * 300}.png"], f"--out {'x' * 300}.png: cannot be written (File name too long)"),
    (["--set", "start_image=~nobody.here/x.png"], "start_image=~nobody.here/x.png: no such file"),
    (["--seed", "-1"], "--seed -1: use 0 or more"),
    (["--seed", "x"], "argument --seed: invalid int value: 'x'"),
    (["--wide", "5"], "unrecognized arguments: --wide 5"),
    (["--model", "./nowhere"], "--model ./nowhere: no such folder"),
    (["--out", "picture.jpg"], "--out picture.jpg: the picture is a PNG"),
]


@pytest.mark.parametrize(
    ("words", "message"), MISTAKES, ids=lambda value: "".join(value) if type(value) is list else ""
)
def test_mistakes_are_one_line_before_a_model_is_loaded(command, tmp_path, monkeypatch, words, message):
    monkeypatch.setattr(cli, "open_backbone", lambda arguments: pytest.fail("the model was loaded"))
    status, out, err = command("a lake", *words)
    assert status == 2 and out == ""
    assert err.startswith(f"error: {message}") and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--width", "100"], "width=100: windows of 64 px"),
        (["--width", "100", "--set", f"layout={LAYOUT}"], "width=100: "),
        (["--device", "meta"], "device=meta: holds no numbers"),
        (["--precision", "float8"], "precision=float8: use one of"),
        (["--device", "abacus"], "device=abacus: not usable here"),
        (["--set", "anchor=99"], "anchor=99: use 0 to"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_mistakes_that_the_model_finds(command, tiny_folder, tmp_path, words, message):
    status, out, err = command("a lake", "--model", str(tiny_folder), *words)
    assert status == 2 and out == ""
    assert err.splitlines()[-1].startswith(f"error: {message}") and "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("prompt", "message"), [("  ", "prompt: is empty"), ("caf\udce9", "prompt: is not UTF-8 text")]
)
def test_a_prompt_that_is_none(command, prompt, message):
    status, _, err = command(prompt)
    assert status == 2 and err.startswith(f"error: {message}") and err.count("\n") == 1


def test_files_whose_names_are_no_utf8(tiny_folder, tmp_path):
    """In a process of its own, whose standard output is as strict as it can be."""
    sketch, out = os.fsdecode(b"caf\xe9.png"), os.fsdecode(b"out\xe9.png")
    try:
        Image.new("RGB", (64, 64), "red").save(tmp_path / sketch)
    except OSError:
        pytest.skip("this file system has UTF-8 names alone")
    words = ["a lake", *QUICK, "--model", str(tiny_folder), "--set", "stride=4", "--set", f"start_image={sketch}"]
    command = [sys.executable, "-m", "syncdiffusion", *words, "-o", out]
    surroundings = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run(command, cwd=tmp_path, env=surroundings, capture_output=True)
    assert done.returncode == 0 and done.stdout == os.fsencode(out) + b"\n", done.stderr
    assert picture.read_record(tmp_path / out)["settings"]["start_image"]["name"] == "caf\ufffd.png"


def test_a_picture_is_overwritten_only_when_told(command, tiny_folder, tmp_path):
    (tmp_path / "one.png").write_bytes(b"precious")
    words = ["a lake", *QUICK, "--model", str(tiny_folder), "-o", "one.png"]
    status, _, err = command(*words)
    assert status == 2 and err.startswith("error: --out one.png: exists already") and err.count("\n") == 1
    assert (tmp_path / "one.png").read_bytes() == b"precious"
    status, out, _ = command(*words, "--force")
    assert status == 0 and out == "one.png\n"
    assert picture.read_record(tmp_path / "one.png")["prompt"] == "a lake"


def test_a_name_that_was_taken_meanwhile_gets_a_number(tmp_path):
    out = tmp_path / "one.png"
    assert picture.save(b"first", out, False) == out
    assert picture.save(b"second", out, False) == tmp_path / "one-2.png"
    assert picture.save(b"third", out, False) == tmp_path / "one-3.png"
    assert picture.save(b"fourth", out, True) == out
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == {
        "one.png": b"fourth", "one-2.png": b"second", "one-3.png": b"third",
    }  # fmt: skip


def test_a_picture_that_cannot_be_written_in_the_end_is_not_lost(tmp_path, monkeypatch):
    def full(source, target):
        raise OSError(28, "No space left on device")

    elsewhere = tmp_path / "temporary"
    elsewhere.mkdir()
    monkeypatch.setattr(picture.tempfile, "tempdir", str(elsewhere))
    monkeypatch.setattr(picture.os, "replace", full)
    (tmp_path / "folder").mkdir()
    out = tmp_path / "folder" / "one.png"
    with pytest.raises(UsageError, match=r"--out .*one.png: cannot be written \(No space left") as told:
        picture.save(b"picture", out, False)
    (kept,) = elsewhere.iterdir()
    assert kept.read_bytes() == b"picture" and str(told.value).endswith(f"the panorama is {kept}")
    assert list(out.parent.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_told_before_the_work(command, tmp_path):
    (tmp_path / "file").write_text("")
    status, _, err = command("a lake", "-o", "file/one.png")
    assert status == 2 and err == "error: --out file/one.png: cannot be written (Not a directory); give another place\n"


def test_a_picture_of_another_origin_has_no_record(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "other.png")
    for name in ("other.png", "none.png"):
        with pytest.raises(UsageError, match=f"{name}: not a panorama that this command made"):
            picture.read_record(tmp_path / name)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_lines_when_piped_and_a_bar_on_a_terminal(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(cli.time, "monotonic", lambda: clock.now)
    piped, terminal = io.StringIO(), Terminal()
    for stream in (piped, terminal):
        clock.now = 0.0
        progress = cli.StepProgress(stream, every=2.0)
        for index in range(8):
            clock.now += 0.75
            progress(SimpleNamespace(index=index, count=8))
        progress.close()
    # 2.25 s after three of eight steps, 4.5 s after six: a line at least 2 s after the last, and one at the end
    assert piped.getvalue() == "step 3/8; 4 s left\nstep 6/8; 2 s left\nstep 8/8; 0 s left\n"
    assert "100%" in terminal.getvalue() and "8/8" in terminal.getvalue()


def test_ctrl_c_leaves_nothing(command, tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "open_backbone", lambda arguments: signal.raise_signal(signal.SIGINT))
    # A shell starts background jobs with the signal ignored, and Python leaves it so: tests may run in one.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        status, out, err = command("a lake")
    finally:
        signal.signal(signal.SIGINT, before)
    assert (status, out, err) == (130, "", "interrupted: nothing was written\n")
    monkeypatch.setattr(cli, "open_backbone", lambda arguments: signal.raise_signal(signal.SIGTERM))
    assert command("a lake") == (143, "", "terminated: nothing was written\n")
    assert list(tmp_path.iterdir()) == []


def test_a_defect_keeps_its_traceback(command, monkeypatch):
    monkeypatch.setattr(cli, "open_backbone", lambda arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        command("a lake")


def test_every_setting_with_an_option_is_some_methods():
    known = {each.name for method in METHODS.values() for each in fields(method.settings)}
    assert set(cli.OPTIONS) <= known


@pytest.mark.parametrize("name", sorted(METHODS))
def test_the_settings_of_a_method_are_listed(command, tmp_path, name):
    status, out, err = command("--method", name, "--settings")
    assert status == 0 and err == ""
    title, *lines = out.splitlines()
    assert title.startswith(f"{METHODS[name].title}: ")
    types = get_type_hints(METHODS[name].settings)
    read = {}
    for line in lines:  # a word of the list may be given as it stands
        word, meaning = (part.strip() for part in line.split("  ", 1))
        setting, _, text = word.partition("=")
        read[setting] = cli.value_of(word, text, types[setting])
        assert meaning
    method = METHODS[name]
    suited = cli.suited_settings(method, square_of(EMBEDDED_FOLDER), EMBEDDED_FOLDER)
    assert method.settings(**read) == method.settings(**suited)
    assert set(read) == {each.name for each in fields(METHODS[name].settings)}
    assert list(tmp_path.iterdir()) == []


def test_settings_of_a_hub_model_are_the_methods_own(command):
    _, out, _ = command("--settings", "--model", "owner/name")
    assert "width=3072 " in out and "weight=20 " in out


def test_what_changes_nothing_is_told(command):
    status, _, err = command("a lake", *QUICK, "--guidance-scale", "1", "--negative-prompt", "fog")
    assert status == 0 and "negative_prompt=fog: changes nothing at guidance_scale=1" in err


GOALS = ["experiments.results.goals", "results/mini/benchmark"]


@pytest.mark.parametrize("words", [["syncdiffusion", "--settings"], ["experiments.run", "--help"], GOALS])
def test_a_reader_that_has_gone_is_no_error(words):
    """As of `| head`: the pipe's end is closed before anything is written."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=REPOSITORY, stdout=writing, stderr=subprocess.PIPE, text=True
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


def test_mistakes_are_told_before_torch_is_imported():
    probe = (
        "import sys\nfrom syncdiffusion import cli\n"
        "print(cli.main(['a lake', '--set', 'wieght=3']), cli.main(['--settings']), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", probe], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "2 0 False", done.stderr


def test_no_prompt_at_all(command):
    status, out, err = command("--steps", "2")
    assert status == 2 and out == "" and err.startswith("error: prompt: none given") and err.count("\n") == 1


def test_the_prompt_as_an_option(command, tiny_folder):
    words = [*QUICK, "--model", str(tiny_folder), "--set", "stride=4"]
    status, out, _ = command("--prompt", "a lake", *words, "-o", "option.png")
    assert status == 0 and picture.read_record(Path(out.strip()))["prompt"] == "a lake"
    status, out, err = command("a lake", "--prompt", "a sea", *words)
    assert (status, out) == (2, "") and err.startswith("error: --prompt a sea: ") and err.count("\n") == 1


def test_as_a_module_in_a_locale_without_unicode(tmp_path):
    """Help, in a process of its own: what it prints can be read everywhere."""
    done = subprocess.run(
        [sys.executable, "-m", "syncdiffusion", "--help"],
        cwd=tmp_path, env=os.environ | {"LC_ALL": "C", "PYTHONPATH": str(REPOSITORY), "PYTHONIOENCODING": "ascii"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: syncdiffusion") and "--guidance-scale" in done.stdout


def test_words_that_the_model_was_not_trained_on_are_told_before_it_is_loaded(command, monkeypatch):
    monkeypatch.setattr(cli, "open_backbone", lambda arguments: signal.raise_signal(signal.SIGTERM))
    status, out, err = command("a photo of a cat in Venice at night", "--model", "embedded")
    first, last = err.splitlines()
    assert first.startswith("prompt: this model was not trained on: cat, venice;") and first.endswith("words.txt")
    assert (status, out, last) == (143, "", "terminated: nothing was written")
    assert command("a photo of a lake at night", "--model", "embedded")[2].count("\n") == 1


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cli.parser().parse_args(["a lake", "--out=~/lake.png"]).out == tmp_path / "lake.png"
    assert cli.parser().parse_args(["a lake", "--out=~nobody.here/x.png"]).out == Path("~nobody.here/x.png")
