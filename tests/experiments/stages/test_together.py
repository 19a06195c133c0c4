"""Several panoramas through the networks at once: which ones follows from the plan alone, whatever is there already."""

import hashlib
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from experiments.panoramas.store import Picture, Unit
from experiments.stages import generate as generation
from experiments.stages.generate import generate, groups_of, model_facts, share
from syncdiffusion.errors import UsageError
from syncdiffusion.method import Method

AT_ONCE = ["panoramas_at_once=3", "seeds.count=3", "reference.count=2"]  # 6 and 6 panoramas, 4 squares


class Stopped(BaseException):
    """As a signal, which no library catches."""


def pngs(plan) -> dict[str, bytes]:
    return {path.relative_to(plan.folder).as_posix(): path.read_bytes() for path in plan.folder.rglob("*.png")}


def records(plan) -> list[dict]:
    return [json.loads(path.read_text()) for path in (plan.folder / "panoramas").rglob("*.json")]


@pytest.fixture
def company(monkeypatch) -> list[tuple]:
    """Panoramas whose every pixel shows which others they were made with; the list of what was made together."""
    calls: list[tuple] = []

    def made(method, backbone, prompts, seeds, settings, on_step=None, on_pull=None):
        calls.append((method.name, *zip(prompts, seeds, strict=True)))
        shades = [hashlib.sha256(f"{calls[-1]} {i}".encode()).digest()[:3] for i in range(len(prompts))]
        colours = torch.tensor([list(shade) for shade in shades]) / 255
        return colours[:, :, None, None].expand(-1, -1, settings.height, settings.width)

    def opened(config):
        return SimpleNamespace(fingerprint=model_facts(config)["fingerprint"], device=torch.device("cpu"))

    monkeypatch.setattr(Method, "generate", made)
    monkeypatch.setattr(generation, "open_backbone", opened)
    return calls


def stopping(monkeypatch, saved: int) -> None:
    """The process is stopped where it has written so many pictures and would write the next."""
    save, count = generation.save_panorama, 0

    def save_some(*words):
        nonlocal count
        count += 1
        if count > saved:
            raise Stopped
        return save(*words)

    monkeypatch.setattr(generation, "save_panorama", save_some)


@pytest.mark.parametrize("shared", [True, False])
def test_a_stopped_run_ends_with_the_same_bytes(compose, company, monkeypatch, tmp_path, shared):
    quiet = compose(*AT_ONCE, f"run_dir={tmp_path / 'quiet'}", "shared_dir=null")
    assert generate(quiet) == 16
    whole, expected = list(company), pngs(quiet)
    assert sorted(len(call) - 1 for call in whole) == [1, 3, 3, 3, 3, 3]
    assert len(set(expected.values())) == 16

    for saved in (1, 5, 9):
        folder = [f"run_dir={tmp_path / str(saved)}", *([] if shared else ["shared_dir=null"])]
        plan = compose(*AT_ONCE, *folder, *([f"shared_dir={tmp_path / f'shared{saved}'}"] if shared else []))
        with monkeypatch.context() as patched, pytest.raises(Stopped):
            stopping(patched, saved)
            generate(plan)
        assert len(pngs(plan)) == saved
        before = {path: path.stat().st_mtime_ns for path in plan.folder.rglob("*.png")}
        company.clear()
        assert generate(plan) == 16 - saved
        assert set(company) <= set(whole)  # no other company than in the quiet run
        assert pngs(plan) == expected
        assert all(path.stat().st_mtime_ns == when for path, when in before.items())  # what was there stays


def test_one_that_is_lost_is_made_with_its_company(compose, company):
    plan = compose(*AT_ONCE, "shared_dir=null")
    generate(plan)
    expected, whole = pngs(plan), list(company)
    plan.units[4].png(plan.folder).unlink()
    company.clear()
    assert generate(plan) == 1 and pngs(plan) == expected
    assert len(company) == 1 and company[0] in whole and len(company[0]) == 4


def test_records_tell_how_many_and_each_ones_share_of_the_seconds(compose, company, monkeypatch):
    plan = compose(*AT_ONCE)
    generate(plan)
    found = records(plan)
    assert sorted(record["panoramas_at_once"] for record in found) == [1] + 15 * [3]
    assert compose().panoramas_at_once == 1


def test_shards_part_groups(compose, company):
    parts = [share(compose(*AT_ONCE, f"shard={i}/2"), model_facts(compose().backbone)) for i in (1, 2)]
    whole = share(compose(*AT_ONCE), model_facts(compose().backbone))
    assert [*parts[0], *parts[1]] != [] and set(parts[0]) | set(parts[1]) == set(whole)
    assert len(parts[0]) + len(parts[1]) == len(whole)


def test_groups_are_of_one_label_and_in_the_order_of_the_plan():
    pictures = [Picture(str(i), (Unit("ab"[i % 2], "m", {}, "p", i),)) for i in range(7)]
    keys = [[picture.key for picture in group] for group in groups_of(pictures, 2)]
    assert keys == [["0", "2"], ["1", "3"], ["4", "6"], ["5"]]
    assert [group[0].key for group in groups_of(pictures, 1)] == list("0123456")


def test_together_or_one_by_one_is_the_same_but_for_rounding(compose, tmp_path):
    """The real methods on the tiny model; one step of 8 bits is what float32's rounding can move a pixel by here."""
    plans = [
        compose(f"run_dir={tmp_path / str(number)}", "shared_dir=null", f"panoramas_at_once={number}")
        for number in (1, 4)
    ]
    assert [generate(plan) for plan in plans] == [10, 10]
    for unit in (*plans[0].units, *plans[0].references):
        one, other = (np.asarray(Image.open(unit.png(plan.folder))).astype(int) for plan in plans)
        assert np.abs(one - other).max() <= 1


def test_what_does_not_fit_together_is_told_in_one_line(compose, company, monkeypatch):
    def too_much(*words, **named):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Method, "generate", too_much)
    with pytest.raises(
        UsageError, match=r"panoramas_at_once=3: .* and 2 more: out of memory; give panoramas_at_once=1"
    ):
        generate(compose(*AT_ONCE))
    with pytest.raises(UsageError, match="panoramas_at_once=0: use 1 or more"):
        compose("panoramas_at_once=0")
