"""The configuration: its schema mirrors the methods' settings, its defaults are the paper's, its plan is complete."""

import shutil
from dataclasses import MISSING, fields
from typing import Any, get_type_hints

import pytest

from experiments.plan.schema import Stage, method_schema
from syncdiffusion.backbones.sampling import SAMPLING_FILE
from syncdiffusion.errors import UsageError
from syncdiffusion.settings import facts_of
from tests.experiments.composing import compose_plan, tiny_backbone


def test_schemas_are_the_methods_settings():
    from baselines import METHODS

    for method in METHODS.values():
        # OmegaConf has no type for "a value or a list of them".
        many = {name: Any for name, facts in facts_of(method.settings).items() if facts.many}
        assert get_type_hints(method_schema(method)) == {"name": str} | get_type_hints(method.settings) | many


def test_paper_scale_is_the_defaults_of_the_methods():
    """`backbone=sd2` alone yields the settings that the dataclasses have by default, which are the paper's."""
    from baselines import METHODS

    plan = compose_plan(
        ["backbone=sd2", *(f"+method@baselines.{name}={name}" for name in ("multidiffusion", "blended_latent"))]
    )
    assert plan.metrics["networks"] == "paper" and plan.metrics["crop"] == 512
    for unit in (*plan.units, *plan.references):
        settings = METHODS[unit.method].settings
        for field in fields(settings):
            assert field.default is not MISSING
            if field.name not in ("window_batch", "gradient_batch"):
                assert unit.settings[field.name] == field.default, (unit.label, field.name)


def test_miniature_is_the_paper_at_a_quarter():
    mini, paper = (compose_plan([f"backbone={name}"]).units[0].settings for name in ("mini", "sd2"))
    for name in ("height", "width", "stride"):
        assert 4 * mini[name] == paper[name]
    for name in ("weight", "decay", "every_n", "anchor", "loss"):
        assert mini[name] == paper[name]
    # These belong to a model and its scale; its sampling.json and model card say why.
    assert (paper["steps"], mini["steps"]) == (50, 25)
    assert (paper["first_n"], mini["first_n"]) == (None, 10)
    assert (paper["guidance_scale"], mini["guidance_scale"]) == (7.5, 6)
    assert paper["weight"] == 20


def test_auto_precision_is_resolved_in_the_plan():
    """So that every record, key and table has it by name."""
    assert compose_plan(["backbone.device=cpu"]).backbone["precision"] == "float32"
    assert compose_plan(["backbone.device=cpu", "backbone.precision=bfloat16"]).backbone["precision"] == "bfloat16"


def test_the_miniature_is_trained_on_the_papers_prompts():
    from experiments.mini.captions import PAPER_PROMPTS

    assert compose_plan(["prompts=paper"]).prompts == PAPER_PROMPTS


def test_what_suits_a_model_is_read_from_its_folder(tiny_folder, tmp_path):
    copy = shutil.copytree(tiny_folder, tmp_path / "copy")
    (copy / SAMPLING_FILE).write_text('{"every_method": {"steps": 7}, "syncdiffusion": {"weight": 3, "first_n": 2}}')
    plan = compose_plan([*tiny_backbone(copy), "+method@baselines.multidiffusion=multidiffusion"])
    sync, multi = (unit.settings for unit in plan.units[:2])
    assert (sync["steps"], sync["weight"], sync["first_n"], multi["steps"]) == (7, 3.0, 2, 7)
    typed = compose_plan([*tiny_backbone(copy), "method.weight=5", "steps=3"]).units[0].settings
    assert (typed["weight"], typed["steps"]) == (5.0, 3)  # what is typed wins


def test_demo_has_three_methods_two_prompts_of_the_paper_and_two_seeds():
    demo, paper = compose_plan(["experiment=demo"]), compose_plan([])
    assert demo.labels == ("syncdiffusion", "multidiffusion", "blended_latent")
    assert len(demo.prompts) >= 2 and set(demo.prompts) <= set(paper.prompts)
    assert len({unit.seed for unit in demo.units}) >= 2
    assert len(paper.prompts) == 6


def test_every_unit_and_reference_has_a_place_of_its_own(tmp_path):
    plan = compose_plan(["experiment=demo", "seeds.count=3", "reference.count=4", "+variants.w5.weight=5"])
    places = {unit.png(tmp_path) for unit in (*plan.units, *plan.references)}
    assert len(places) == 4 * 2 * 3 + 2 * 4
    assert all(unit.seed >= 100_000 for unit in plan.references)


def test_a_variant_is_the_method_with_one_setting_changed():
    plan = compose_plan(["+variants.w5.weight=5", "+variants.none.first_n=0", "method.decay=0.9"])
    base, w5, none = plan.units[:3]
    assert (base.label, w5.label, none.label) == ("syncdiffusion", "w5", "none")
    assert w5.method == none.method == "syncdiffusion"
    assert dict(w5.settings) == dict(base.settings) | {"weight": 5.0}
    assert dict(none.settings) == dict(base.settings) | {"first_n": 0}
    assert base.settings["decay"] == 0.9


def test_top_level_settings_reach_every_method():
    plan = compose_plan(["experiment=demo", "steps=7", "width=256", "negative_prompt=blur"])
    for unit in plan.units:
        assert (unit.settings["steps"], unit.settings["width"], unit.settings["negative_prompt"]) == (7, 256, "blur")
    assert all(unit.settings["steps"] == 7 and unit.settings["width"] == 128 for unit in plan.references)
    assert plan.stage is Stage.all


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["seeds.count=0"], "seeds.count=0: must be 1 or more"),
        (["prompts.texts=[]"], "prompts.texts=[]: give at least one prompt"),
        (["prompts.texts=[a,a]"], "'a' is there twice"),
        (["prompts.texts=[all]"], "'all' cannot be a prompt"),
        (["+method@baselines.syncdiffusion=multidiffusion"], "the label 'syncdiffusion' is taken"),
        (["+variants.w.wieght=3"], "did you mean weight?"),
        (["+variants.w.weight=heavy"], "must be a number"),
        (["+variants.w.name=multidiffusion"], "a variant changes settings, not the method"),
        (["+method.wieght=3"], "did you mean weight?"),
        (["+baselines.x.stride=4"], "baselines.x.name=None: no such method"),
        (["+seed=3"], "did you mean seeds?"),
        (["metrics.metrics=[fod]"], "metrics.metrics=fod: choose from fid"),
        (["backbone=folder"], "backbone.path=null: give the model's folder"),
        (["backbone=folder", "backbone.path=/no/such/folder"], "backbone.path=/no/such/folder: no such folder"),
        (["backbone.window=64"], "backbone.window=64: this model's window is 128 px"),
        (["backbone.factor=4"], "backbone.factor=4: this model's factor is 8 px"),
        (["backbone.revision=deadbeef"], "backbone.revision=deadbeef: this model is a folder"),
        (["window_batch=x"], "window_batch=x: use 1 or more, or auto"),
    ],
)
def test_refused(overrides, message):
    with pytest.raises(UsageError) as refusal:
        compose_plan(overrides)
    assert message in str(refusal.value)


def test_a_method_with_a_sampler_of_its_own_is_told_of_where_the_run_has_another():
    told = compose_plan(["experiment=demo", "+method@baselines.repaint=repaint", "sampler=euler"]).remarks
    assert told == ("sampler=euler: repaint keeps its own, ddpm; name that setting of it to change it",)
    for words in (["sampler=euler", "baselines.repaint.sampler=euler"], []):
        assert not compose_plan(["experiment=demo", "+method@baselines.repaint=repaint", *words]).remarks
