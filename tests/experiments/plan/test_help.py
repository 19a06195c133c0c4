"""Help: a line for every choice and every setting, held to the files of conf/ and to the dataclasses."""

import re
from dataclasses import is_dataclass

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from baselines import METHODS
from experiments.plan.help import SCALE, first_sentence, help_text, lines_of
from experiments.plan.schema import register
from syncdiffusion.method import Method
from syncdiffusion.method_settings import WindowedSettings
from syncdiffusion.settings import facts_of, setting
from tests.experiments.composing import REPOSITORY

CONF = REPOSITORY / "conf"


def composed(*words: str) -> DictConfig:
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(words))


def helped(*words: str) -> str:
    return help_text(composed(*words))


def settings_of(text: str) -> dict[str, tuple[str, str]]:
    """setting -> (value, what is said of it)."""
    lines = re.findall(r"^  ([a-z_.]+)=(.*?)  +(\S.*)$", text[text.index("What is made") :], re.MULTILINE)
    assert len({name for name, _, _ in lines}) == len(lines)  # each once
    return {name: (value, said) for name, value, said in lines}


def test_every_choice_has_a_line_of_its_own():
    text = helped()
    for group in ("experiment", "method", "backbone", "prompts", "metrics", "tracking"):
        there = {path.stem for path in (CONF / group).glob("*.yaml")}
        lines = dict(re.findall(rf"^  {group}=(\w+)  +(\S.*)$", text, re.MULTILINE))
        assert lines.keys() == there and all(len(line) < 140 for line in lines.values()), group
    assert re.search(r"^  experiment=panorama +One panorama, with nothing to compare$", text, re.MULTILINE)
    assert not re.search(r"schema|_self_|wandb/|base/|\?\?\?|\$\{", text)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_setting_has_a_line_with_its_value_and_what_it_may_be(method):
    cfg = composed(f"method={method}")
    told, values = settings_of(help_text(cfg)), OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    leaves = set(flat(values))
    shared = {name for name, known in facts_of(METHODS[method].settings).items() if known.shared}
    hidden = {f"backbone.{name}" for name in SCALE} | {
        name for name in leaves if name.startswith("reference.settings.")
    }
    of_any = {name for each in METHODS.values() for name, known in facts_of(each.settings).items() if known.shared}
    hidden |= {f"method.{name}" for name in ("name", *shared)} | ({*SCALE, *of_any} - shared)
    assert told.keys() - {"prompt", "prompt_file"} == leaves - hidden
    for name, (value, said) in told.items():
        assert len(said) > 5
        if name not in ("prompt", "prompt_file"):
            expected = OmegaConf.select(OmegaConf.create(values), name)
            if not OmegaConf.is_config(expected):
                assert value == spelled(expected), name


def flat(values, prefix=""):
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def spelled(value) -> str:
    words = {None: "null", True: "true", False: "false"}
    return (
        words[value]
        if value is None or isinstance(value, bool)
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )


def test_what_a_setting_may_be_is_the_dataclasses_word():
    told = settings_of(helped("method=profile_matching"))
    assert told["method.match"][1].endswith("(rows, row_means, channels, blocks)")
    assert told["method.decay"][1].endswith("(a number above 0 and up to 1)")
    assert told["metrics.crop"][1].endswith("(16 or more)") and told["seeds.first"][1].endswith("(0 or more)")
    assert told["stage"][1].endswith("(all, generate, score, report)")
    assert "kid" in told["metrics.metrics"][1] and "weight" not in str(sorted(told))


def test_a_method_of_a_plugin_is_listed_with_its_settings(monkeypatch):
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Settings(WindowedSettings):
        blur: float = setting(0.5, "how much is blurred", least=0, most=1)

    made = Method("blurred", "Blurred", Settings, None, None, "a test's own")
    assert is_dataclass(Settings)
    monkeypatch.setitem(METHODS, "blurred", made)
    assert re.search(r"^  method=blurred  +a test's own$", helped(), re.MULTILINE)
    node = OmegaConf.create({"blur": 0.5})
    assert lines_of(Settings, node, "method.", ["blur"]) == [("method.blur=0.5", "how much is blurred", "0 to 1")]


def test_the_first_sentence_is_told(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(
        "# @package _global_\n# Stable Diffusion 2.0 (Lee et al., 2023),\n# the paper's. More.\na: 1\n# not this\n"
    )
    assert first_sentence(path) == "Stable Diffusion 2.0 (Lee et al., 2023), the paper's"
    path.write_text("a: 1\n")
    assert first_sentence(path) == ""
