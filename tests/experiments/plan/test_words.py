"""What is typed as text arrives as that text, through Hydra's grammar and OmegaConf's references."""

import pytest

from experiments.plan.words import plain_words
from syncdiffusion.errors import UsageError
from tests.experiments.composing import compose_plan

PROMPTS = [
    "a lake, at sunset",
    "what a view!",
    "the artist's garden (in spring); #7 & more",
    "“a wide–angle view”, 50 % fog",
    "Schloß Neuschwanstein, été à la mer",
    "夜の城 🏰 と 山",
    "غابة في الضباب",
    "path\\to\\nowhere\\",
    "it's \\'quoted\\' and \"double\"",
    "costs ${money} and \\${more}",
    "[a, b] {c: d} (e) = f",
    "null",
    "10",
    "~/home, ~/sweet",
]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_prompt_is_text(prompt):
    plan = compose_plan(plain_words([f"prompt={prompt}"]))
    assert plan.prompts == (prompt,)
    assert plan.resolved["prompts"]["texts"] == [prompt]


def test_many_prompts_in_the_order_of_the_command_line(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("three, with a comma\n\n  four\n", encoding="utf-8")
    words = plain_words(["prompt=one", "steps=3", "prompt=two", f"prompt_file={path}", "experiment=panorama"])
    plan = compose_plan(words)
    assert plan.prompts == ("one", "two", "three, with a comma", "four")
    assert plan.units[0].settings["steps"] == 3


def test_other_words_stay_as_they_are():
    words = ["method.weight=5,10", "prompts.texts=[a,b]", "+ablations.decay=[0.9,0.99]", "~x", "-m", "--cfg", "job"]
    assert plain_words(words) == words
    assert compose_plan(plain_words(["negative_prompt=blurry, dark"])).units[0].settings["negative_prompt"] == (
        "blurry, dark"
    )
    assert plain_words(["negative_prompt='a, b'"]) == ["negative_prompt='a, b'"]


def test_hydras_options_may_stand_anywhere():
    words = ["steps=2", "--cfg", "job", "-m", "method=fast", "--info", "seeds.first=0,1", "-i", "config", "--resolve"]
    settings = ["steps=2", "method=fast", "seeds.first=0,1"]
    assert plain_words(words) == [*settings, "--cfg", "job", "-m", "--info", "-i", "config", "--resolve"]


@pytest.mark.parametrize("setting", ["run_dir", "shared_dir"])
def test_a_home_folder_works(setting, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    plan = compose_plan(plain_words([f"{setting}=~/a place/x"]))
    assert (plan.folder if setting == "run_dir" else plan.shared) == tmp_path / "a place" / "x"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["prompt="], "prompt: is empty"),
        (["prompt=   "], "is empty"),
        (["prompt_file=/no/such/file"], "prompt_file=/no/such/file: cannot be read (No such file"),
        (["prompts.texts=[a; b]"], "';' needs quotes"),
        (["prompts.texts=[a; b]"], 'give prompt="a; b"'),
        (["name=Schloß"], "'ß' needs quotes"),
        (["name=a&b"], "in a shell: 'name='a&b''"),
        (["-foo"], "-foo: no such option; settings have no dashes: foo=VALUE"),
        (["--experimental-rerun", "x"], "--experimental-rerun: no such option"),
        (["hydra.run.dir=x"], "hydra.run.dir=x: the run folder is chosen by run_dir; give run_dir=FOLDER"),
        (["prompts.texts=[a"], "'prompts.texts=[a': not of the form setting=value"),
    ],
)
def test_what_cannot_be_read_is_told_with_the_character(words, message):
    with pytest.raises(UsageError) as error:
        plain_words(words)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_file_without_a_prompt_or_of_another_encoding(tmp_path):
    path = tmp_path / "empty.txt"
    path.write_text("\n \n")
    with pytest.raises(UsageError, match="no prompt in it"):
        plain_words([f"prompt_file={path}"])
    path.write_bytes(b"caf\xe9")
    with pytest.raises(UsageError, match="not UTF-8"):
        plain_words([f"prompt_file={path}"])


def test_what_is_typed_wins_over_the_experiment():
    assert len(compose_plan(["experiment=panorama", "prompts=paper"]).prompts) == 6
    assert compose_plan(["experiment=panorama", "tracking=offline"]).tracking["mode"] == "offline"
    assert compose_plan(["experiment=panorama"]).tracking["mode"] == "disabled"


def test_own_weights_are_scored_with_the_papers_networks(tiny_folder):
    words = ["backbone=folder", f"backbone.path={tiny_folder}", "backbone.window=64", "backbone.height=64"]
    words += ["backbone.width=192", "backbone.stride=4"]
    assert compose_plan(words).metrics["networks"] == "paper"
    assert compose_plan([*words, "metrics=mini"]).metrics["networks"] == "mini"
