"""Files of prompts: text or JSON lines, with seeds and names; and the prompts that are kept for results alone."""

import json
import re
from pathlib import Path

import pytest

from experiments.mini.captions import _NOUNS, _SEASONS, _TIMES, PAPER_PROMPTS
from experiments.plan.prompt_file import Line, read_prompts
from experiments.plan.words import plain_words
from syncdiffusion.backbones.model_files import EMBEDDED_FOLDER
from syncdiffusion.errors import UsageError
from syncdiffusion.prompts import known_words, unknown_words_line
from tests.experiments.composing import compose_plan


def plan_of(path: Path, *lines: str, more: tuple[str, ...] = ()):
    path.write_text("\n".join(lines), encoding="utf-8")
    return compose_plan(plain_words([f"prompt_file={path}", "seeds.count=2", *more]))


def test_seeds_and_names_of_json_lines(tmp_path):
    """The seed is the first of seeds.count; a prompt with several lines has the seeds of all; others have the run's."""
    plan = plan_of(
        tmp_path / "prompts.txt",  # known as JSON by its content
        '{"prompt": "a lake, at \'dawn\'", "seed": 7, "id": "lake"}',
        "",
        '{"prompt": "夜の城"}',
        '{"prompt": "a lake, at \'dawn\'", "seed": 20}',
        more=("seeds.first=3", "method=multidiffusion"),
    )
    assert plan.prompts == ("a lake, at 'dawn'", "夜の城")
    made = [(unit.prompt, unit.seed) for unit in plan.units]
    assert made == [("a lake, at 'dawn'", seed) for seed in (7, 8, 20, 21)] + [("夜の城", 3), ("夜の城", 4)]
    assert plan.prompt_ids == {"a lake, at 'dawn'": "lake"}
    assert len({unit.seed for unit in plan.references}) == plan.resolved["reference"]["count"]


def test_text_stays_text(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("[a lake]\n 12 \n", encoding="utf-8-sig")
    assert read_prompts(str(path)) == [Line("[a lake]"), Line("12")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a lake", "line 2: not JSON"),
        ('{"text": "a lake"}', "line 2: no prompt"),
        ('["a lake"]', "line 2: no prompt"),
        ('{"prompt": ""}', "line 2: prompt: is empty"),
        ('{"prompt": "a lake", "seed": "3"}', "line 2: seed=3: must be a whole number"),
        ('{"prompt": "a lake", "seed": true}', "line 2: seed=True: must be a whole number"),
        ('{"prompt": "a lake", "id": 3}', "line 2: id=3: must be text"),
        ('{"prompt": "a lake", "sed": 3}', "line 2: sed is not known; a line has prompt, seed, id"),
        ('{"prompt": "a lake", "seed": -1}', "prompts.seeds: -1 is there; must be 0 to"),
        ('{"prompt": "a sea", "seed": 6}', "prompts.seeds: 'a sea' has seed 6 twice at seeds.count=2"),
        ('{"prompt": "a sea", "seed": 9, "id": "s"}', "has the ids sea and s; an id names a prompt"),
        ('{"prompt": "a lake", "id": "sea"}', "prompts.ids: 'sea' names two prompts"),
        ('{"prompt": "a sea"}', "'a sea' has a seed in one line and none in another"),
    ],
)
def test_mistakes_are_one_line_with_the_lines_number(tmp_path, line, message):
    with pytest.raises(UsageError) as error:
        plan_of(tmp_path / "prompts.jsonl", '{"prompt": "a sea", "seed": 5, "id": "sea"}', line)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_prompts_held_out_are_of_the_miniatures_world_and_none_that_anything_was_chosen_on():
    plan = compose_plan(["prompts=heldout"])
    prompts = plan.prompts
    assert len(set(prompts)) == len(prompts) >= 24
    assert unknown_words_line(EMBEDDED_FOLDER, prompts) is None
    used = {*PAPER_PROMPTS, *texts_in("mini/gate.py"), *texts_in("mini/diffusion_model.py")}
    assert not used & set(prompts)

    def shown(table: dict[str, tuple[str, ...]]) -> set[str]:
        """Which entries of a table of the grammar stand in one of the prompts."""
        return {key for key, phrases in table.items() for each in phrases if any(has(p, each) for p in prompts)}

    assert shown(_NOUNS) == set(_NOUNS) and shown(_TIMES) == set(_TIMES) and shown(_SEASONS) == set(_SEASONS)
    styles = [sum("cartoon" in p for p in prompts), sum("anime" in p for p in prompts)]
    assert min(*styles, len(prompts) - sum(styles)) >= 6
    nouns = [noun for phrases in _NOUNS.values() for noun in phrases]
    assert all(any(has(prompt, noun) for noun in nouns) for prompt in prompts)


def has(prompt: str, phrase: str) -> bool:
    return re.search(rf"\b{re.escape(phrase)}\b", prompt) is not None


def texts_in(name: str) -> list[str]:
    """Texts between quotes in a file of the experiments."""
    source = Path(__file__).parents[3] / "experiments" / name
    return re.findall(r'"([^"\n]+)"', source.read_text(encoding="utf-8"))


def test_prompts_may_be_chosen_as_json(tmp_path):
    """What a script writes with json.dumps is read back as it was."""
    prompts = [f'prompt "{i}" \\ ${{x}}, é' for i in range(3)]
    plan = plan_of(tmp_path / "p.jsonl", *(json.dumps({"prompt": prompt, "seed": 5}) for prompt in prompts))
    assert list(plan.prompts) == prompts and {unit.seed for unit in plan.units} == {5, 6}


def test_the_embedded_model_tells_its_words():
    known = known_words(EMBEDDED_FOLDER)
    assert known is not None and {"mountain", "lighthouse", "anime", "of"} <= known and "cat" not in known


def test_a_mark_within_a_prompt_ends_no_line(tmp_path):
    """U+2028 parts lines of a text, not of a file; Windows' and the last line's ends are no part of a prompt."""
    path = tmp_path / "prompts.txt"
    path.write_bytes("a lake\u2028at dawn\r\na city\n".encode())
    assert [line.prompt for line in read_prompts(str(path))] == ["a lake\u2028at dawn", "a city"]
    path.write_bytes('{"prompt": "a lake\u2028at dawn"}\n'.encode())
    assert [line.prompt for line in read_prompts(str(path))] == ["a lake\u2028at dawn"]
