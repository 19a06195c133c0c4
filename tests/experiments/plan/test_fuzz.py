"""Whatever is typed, there is a plan or one line that says what would do: never a traceback, never a run-away list."""

import random

import pytest

from experiments.common.command_line import error_line
from experiments.plan.words import plain_words
from tests.experiments.composing import compose_plan

REFUSED = [
    ["method=null"],
    ["reference.settings=null"],
    ["backbone.factor=0"],
    ["prompts.texts=[[a]]"],
    ["+ablations.weight=[]"],
    ["+variants." + "x" * 150 + ".weight=5"],
    ["+variants." + "x" * 300 + ".weight=5"],
    ["width=1000000000"],
    ["run_dir=''"],
    ["name=''"],
    ["seeds.count=1000000000"],
    ["method.anchor=99"],
    ["method.name=multidiffusion"],
    ["metrics.crop=4000"],
    ["backbone.precision=half"],
    ["method.every_n=1.5"],
    ["method.decay=nan"],
    ["guidance_scale=inf"],
    ["+baselines.x=3"],
    ["+ablations.weight=5"],
]
SETTINGS = """
name run_dir stage strict shared_dir dry_run shard height width stride steps guidance_scale window_batch
gradient_batch negative_prompt seeds.first seeds.count reference.count reference.first_seed backbone
backbone.window backbone.factor backbone.revision backbone.path backbone.precision backbone.device method
method.weight method.decay method.every_n method.first_n method.anchor method.loss method.loop_closure
method.nothing +baselines.x +variants.x.weight +ablations.decay compare_with prompts prompts.texts metrics
metrics.metrics metrics.crop metrics.batch metrics.replicates tracking tracking.mode experiment plugins prompt
prompt_file +nothing
""".split()
VALUES = """
0 1 -1 3 1.5 1e400 nan inf null true no mini paper a "" [] [a] [1,2] [[1]] {} {a:1} {a:{b:2}}
99999999999999999999 auto syncdiffusion multidiffusion table1 off full lpips_vgg 1/2 ~/x /no/such a,b a;b ß 夜
${name} ${nothing} ${ 128 768 ' ] =
""".split()


@pytest.mark.parametrize("words", REFUSED, ids=lambda words: words[0][:40])
def test_refused_in_one_line(words):
    with pytest.raises(Exception) as refusal:
        compose_plan(plain_words(words))
    line = error_line(refusal.value, words)
    assert line is not None and "\n" not in line


def test_many_command_lines():
    """Seeded; about one in ten has a plan. A setting that is added belongs into SETTINGS."""
    draw, plans = random.Random(0), 0
    for _ in range(150):
        words = [f"{draw.choice(SETTINGS)}={draw.choice(VALUES)}" for _ in range(draw.choice((1, 1, 2)))]
        try:
            plan = compose_plan(plain_words(words))
            plans += 1
            assert len(plan.units) <= 10**6
        except Exception as error:
            line = error_line(error, words)
            assert line is not None and "\n" not in line and len(line) < 1000, (words, error)
    assert 5 < plans < 100
