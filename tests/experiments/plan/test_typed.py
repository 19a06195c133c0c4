"""Words that a user may type by mistake, each refused in one line that names them."""

import subprocess
import sys

import pytest

from experiments.plan.plugins import load_plugins
from experiments.plan.words import overruled, plain_words
from syncdiffusion.backbones.loading import load_backbone
from syncdiffusion.errors import UsageError
from tests.experiments.composing import compose_plan


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--experiment", "table1"], "--experiment: no such option; settings have no dashes: experiment=VALUE"),
        (["--dry-run"], "--dry-run: no such option; settings have no dashes: dry_run=VALUE"),
        (["=3"], "'=3': names no setting"),
        (["prompts=one", "prompt=a lake"], "prompts=one: prompts are typed as well"),
    ],
)
def test_words_that_say_nothing_or_two_things_are_refused(words, message):
    with pytest.raises(UsageError) as refusal:
        plain_words(words)
    assert str(refusal.value).startswith(message) and "\n" not in str(refusal.value)


def test_of_a_setting_typed_twice_the_last_counts_and_the_other_is_told():
    assert overruled(["experiment=table1", "steps=3", "experiment=demo"]) == [
        "experiment=table1: typed before experiment=demo, which counts"
    ]


def test_several_prompts_and_hydras_own_options_are_no_mistakes():
    assert plain_words(["--cfg", "job", "-m", "steps=3"]) == ["steps=3", "--cfg", "job", "-m"]
    assert any("prompts.texts" in word for word in plain_words(["prompt=a lake", "prompt=a hill"]))


@pytest.mark.parametrize("name", ["pictures", "shared_dir"])
def test_an_empty_folder_is_not_the_current_one(name):
    words = {"pictures": ["experiment=score", "pictures=''"], "shared_dir": ["experiment=demo", "shared_dir=''"]}[name]
    with pytest.raises(UsageError, match=f"^{name}: is empty; give {name}=FOLDER, or leave it out$"):
        compose_plan(words)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("control_scale=2", "control_scale=2: pictures="),
        ("backbone.lora=foo", "backbone.lora=foo: pictures="),
        ("backbone.precision=float64", "backbone.precision=float64: pictures="),
    ],
)
def test_what_would_make_pictures_is_refused_of_those_that_are_there(tmp_path, word, message):
    with pytest.raises(UsageError, match=f"^{message}"):
        compose_plan(["experiment=score", f"pictures={tmp_path}", word])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("METHOD = 3", "METHOD is 3, no Method"),
        ("METRIC = 3", "METRIC is 3, no PanoramaMetric or SetMetric or PairMetric"),
        ("LOSS = 3", "LOSS is 3, no ImageLoss"),
        ("import sys\nsys.exit(3)", "line 2: SystemExit: 3"),
    ],
)
def test_a_plugin_of_something_else_is_told_in_a_line(tmp_path, text, message):
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(UsageError, match=message) as refusal:
        load_plugins([str(tmp_path / "mine.py")])
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["metrics.metrics=[hps]"], "metrics.hps_file=null: the metric hps needs"),
        (["metrics.metrics=[hps]", "metrics.hps_file=/nowhere.pt"], "metrics.hps_file=/nowhere.pt: no such file"),
        (["metrics.clip_folder=/nowhere"], "metrics.clip_folder=/nowhere: no such folder"),
        (["metrics.dino=/nowhere"], "metrics.dino=/nowhere: no such folder"),
    ],
)
def test_what_scoring_cannot_do_without_is_asked_for_before_panoramas_are_made(words, message):
    with pytest.raises(UsageError, match=f"^{message}"):
        compose_plan(["experiment=demo", *words])


def test_a_folder_has_no_revision():
    with pytest.raises(UsageError, match="^revision=nosuch: this model is a folder; only a hub repository has one$"):
        load_backbone(revision="nosuch", device="cpu")


def test_without_hydra_the_command_says_what_brings_it():
    code = "import sys; sys.modules['hydra'] = None; from experiments.run import main; main()"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert ended.returncode != 0 and ended.stdout == ""
    assert (
        ended.stderr
        == "error: hydra is not installed; pip install 'syncdiffusion[experiments]' brings what runs need\n"
    )
