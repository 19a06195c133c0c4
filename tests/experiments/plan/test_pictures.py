"""What a folder or a CSV file of pictures made elsewhere holds: methods, prompts, seeds, noise, and what is refused."""

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from experiments.panoramas.store import MADE_ELSEWHERE, slug
from experiments.plan.pictures import noise_shared, prompt_of, read_given
from syncdiffusion.errors import UsageError
from tests.experiments.composing import compose_plan

LAKE, CITY = "a photo of a lake", "A city, at night!"


def draw(path: Path, size: tuple[int, int] = (96, 32)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (10, 20, 30)).save(path)
    return path


def write_csv(path: Path, rows: list[dict[str, object]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return path


def row(file: str, method: str, seed: object = 0, **more: object) -> dict[str, object]:
    return {"file": file, "method": method, "prompt": LAKE, "seed": seed, **more}


def plan_of(*words: str):
    return compose_plan(["experiment=score", "shared_dir=null", *words])


def test_a_folder_is_read_by_its_names(tmp_path):
    for name in ("a/a-photo-of-a-lake/0.png", f"b/{CITY}/10.jpg", f"b/{CITY}/9.webp", f"reference/{CITY}/x.png"):
        draw(tmp_path / name)
    draw(tmp_path / "a" / "stray.png")
    (tmp_path / "b" / CITY / "notes.txt").write_text("no picture")
    given = read_given(tmp_path, {})
    assert [(each.method, each.prompt, each.seed) for each in given.pictures] == [
        ("a", LAKE, 0),
        ("b", CITY, 9),
        ("b", CITY, 10),
    ]
    assert [each.prompt for each in given.references] == [CITY]
    assert len(given.remarks) == 1 and "stray.png" in given.remarks[0]


@pytest.mark.parametrize("how", ["given", "prompts.csv", "prompts.jsonl", "record"])
def test_a_short_name_that_does_not_tell_its_prompt_is_looked_up(tmp_path, how):
    name = slug(CITY)
    picture = draw(tmp_path / "a" / name / "3.png")
    if how == "prompts.csv":
        write_csv(tmp_path / how, [{"id": name, "prompt": CITY}])
    if how == "prompts.jsonl":
        (tmp_path / how).write_text(json.dumps({"id": name, "prompt": CITY}))
    if how == "record":
        picture.with_suffix(".json").write_text(json.dumps({"prompt": CITY}))
    found = read_given(tmp_path, {name: CITY} if how == "given" else {})
    assert (found.pictures[0].prompt, found.remarks) == (CITY, ())


def test_an_unknown_prompt_and_names_without_seeds_are_told(tmp_path):
    draw(tmp_path / "a" / slug(CITY) / "first.png")
    draw(tmp_path / "a" / slug(CITY) / "7.png")
    found = read_given(tmp_path, {})
    assert [each.seed for each in found.pictures] == [0, 1]
    assert "not named by a seed" in found.remarks[0] and "prompts.csv" in found.remarks[1]
    assert prompt_of(slug(LAKE), {}) == LAKE and prompt_of("a-B", {}) == "a-B"


def test_a_csv_file_names_files_beside_it(tmp_path):
    draw(tmp_path / "x.png")
    found = read_given(write_csv(tmp_path / "p.csv", [row("x.png", "a", 4), row("x.png", "reference")]), {})
    assert (found.pictures[0].path, found.pictures[0].seed) == (tmp_path / "x.png", 4)
    assert len(found.references) == 1


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([row("x.png", "a", "first")], "line 2: seed 'first' is no whole number"),
        ([row("x.png", "a"), row("y.png", "a")], "are both a, seed 0"),
        ([row("x.png", "a"), row("x.png", "a")], "x.png is there twice, as a, seed 0"),
        ([row("x.png", "a", nois="3")], "column 'nois'; the columns are file, method, prompt, seed, and noise"),
        ([{"file": "x.png", "method": "a", "prompt": LAKE}], "column 'seed'"),
        ([row("x.png", "")], "line 2: must have a value"),
        ([row("x.png", "a/b")], "the label 'a/b' names a folder"),
        ([row("x.png", "reference")], "no picture there"),
        ([row("nowhere.png", "a")], "none of 1 files is a picture"),
        ([row("x.png", "a", noise="1"), row("x.png", "b", 1)], "noise is told of some pictures alone"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(tmp_path, rows, words):
    draw(tmp_path / "x.png")
    with pytest.raises(UsageError, match=words) as refused:
        plan_of(f"pictures={write_csv(tmp_path / 'p.csv', rows)}")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["pictures=nowhere"], "pictures=nowhere: no such folder"),
        ([], "pictures=null: give the folder"),
        (["pictures=HERE", "seeds.count=3"], "seeds.count=3: all of pictures="),
        (["pictures=HERE", "+ablations.weight=[1]"], "ablations="),
        (["pictures=HERE", "steps=3"], "steps=3: pictures="),
        (["pictures=HERE", "method=multidiffusion"], "method=multidiffusion: pictures="),
        (["pictures=HERE", "method.weight=3"], "method.weight=3.0: pictures="),
        (["pictures=HERE", "method.first_n=3"], "method.first_n=3: pictures="),
        (["pictures=HERE", "reference.settings.steps=3"], "reference.settings.steps=3: pictures="),
        (["pictures=HERE", "prompts=heldout"], "prompts: no picture of pictures=.* 'a photo of .*' or another of them"),
        (["pictures=HERE", "layout=x.json"], "layout=x.json: pictures="),
        (["pictures=HERE", "metrics.crop=64"], "metrics.crop=64: .* has 32x96 px; use 32 or less"),
        (["pictures=HERE", "reference.pictures=nowhere"], "reference.pictures=nowhere: no picture there"),
        (["pictures=HERE", "compare_with=b"], "compare_with=b: no such row; there are a"),
    ],
)
def test_settings_that_do_not_go_with_pictures(tmp_path, words, told):
    draw(tmp_path / "a" / LAKE / "0.png")
    with pytest.raises(UsageError, match=told):
        plan_of(*(word.replace("HERE", str(tmp_path)) for word in words))


def test_a_run_that_makes_its_own_takes_no_such_setting(tmp_path):
    for word in ("shared_noise=true", "reference.pictures=x"):
        with pytest.raises(UsageError, match="goes with pictures=FOLDER"):
            compose_plan(["experiment=demo", word])
    with pytest.raises(UsageError, match="goes with experiment=score"):
        compose_plan(["experiment=demo", f"pictures={tmp_path}"])


def test_the_plan_tells_what_is_known_and_what_is_left_out(tmp_path):
    draw(tmp_path / "a" / LAKE / "0.png")
    draw(tmp_path / "a" / CITY / "0.png", (128, 48))
    draw(tmp_path / "b" / LAKE / "5.png")
    plan = plan_of(f"pictures={tmp_path}")
    assert plan.labels == ("a", "b") and {unit.method for unit in plan.units} == {MADE_ELSEWHERE}
    assert plan.entries[1].settings == {"height": 32, "width": 96} and plan.entries[0].settings == {}
    assert (plan.metrics["crop"], plan.shared_noise, plan.resolved["steps"]) == (32, False, None)
    assert not {"fid", "kid", "giqa"} & set(plan.metrics["metrics"])
    lacking, sizes, references = plan.remarks
    assert lacking.startswith(f"b has no picture of 1 of 2 prompts, such as '{CITY}'")
    assert "32x96 px (2), 48x128 px (1)" in sizes
    assert references.startswith("no reference pictures: fid, kid, kid_crops, precision, recall, giqa are left out")


def test_noise_makes_pairs(tmp_path):
    draw(tmp_path / "x.png")

    def shared(*noises: tuple[str, int, str], chosen: bool | None = None) -> bool:
        rows = [row("x.png", method, seed, noise=noise) for method, seed, noise in noises]
        return noise_shared(read_given(write_csv(tmp_path / "p.csv", rows), {}).pictures, chosen)

    pairs = ("a", 0, "n0"), ("b", 0, "n0"), ("a", 1, "n1"), ("b", 1, "n1")
    own = ("a", 0, "n0"), ("b", 0, "m0"), ("a", 1, "n1"), ("b", 1, "m1")
    assert shared(*pairs) and not shared(*own)
    with pytest.raises(UsageError, match="give one noise one seed"):
        shared(*pairs[:2], *own[2:])
    with pytest.raises(UsageError, match="shared_noise=true: the noise that the pictures name says otherwise"):
        shared(*own, chosen=True)
    untold = ("a", 0, ""), ("b", 0, "")
    assert shared(*untold, chosen=True) and not shared(*untold)


def test_a_setting_that_only_later_records_tell_parts_pictures_too(tmp_path):
    """At the value of old, such as DDIM's, a record's settings are as if it were not there."""
    record = {"prompt": LAKE, "method": "multidiffusion", "model": {"fingerprint": "f", "precision": "float32"}}
    for seed, settings in enumerate(({"steps": 3}, {"steps": 3, "sampler": "ddim"}, {"steps": 3, "sampler": "euler"})):
        draw(tmp_path / "a" / LAKE / f"{seed}.png").with_suffix(".json").write_text(
            json.dumps(record | {"settings": settings})
        )
        if seed == 1:
            assert len(read_given(tmp_path, {}).pictures) == 2
    with pytest.raises(UsageError, match="a holds pictures made with sampler=None and euler; take those of one run"):
        read_given(tmp_path, {})
