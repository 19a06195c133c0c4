"""What is said below the tables."""

from dataclasses import replace

import pandas as pd

from experiments.report.notes import apart, difference_note, notes_of, one_picture, sentence
from experiments.results.numbers import comparisons, main_table
from experiments.results.study import Row
from tests.experiments.report.test_tables import SIZE, by_hand, study
from tests.experiments.synthetic import synthetic_results


def test_rows_made_at_a_scale_of_their_own_are_named():
    rows = (
        Row("syncdiffusion", "SyncDiffusion", "syncdiffusion", SIZE | {"steps": 2, "guidance_scale": 6.0}, None),
        Row("multidiffusion", "MultiDiffusion", "multidiffusion", SIZE | {"steps": 3}, None),
        # what an ablation swept stands in its title, and blended latent diffusion has a stride of another meaning
        Row("steps=5", "steps = 5", "multidiffusion", SIZE | {"steps": 5}, ("steps", 5)),
        Row("blended_latent", "Blended latent diffusion", "blended_latent", SIZE | {"stride": 2}, None),
    )
    assert apart(study(rows=rows)) == ["SyncDiffusion (steps 2, guidance_scale 6.0)"]
    assert apart(study()) == []


def test_the_note_stands_below_the_table():
    rows = tuple(
        Row(row.label, row.title, row.method, row.settings | {"steps": 7}, None) if row.label == "mine" else row
        for row in study().rows
    )
    results = by_hand(rows=rows)
    compared = comparisons(results)
    notes = notes_of(results, main_table(results, compared), compared)
    assert "Made at settings of their own: mine_of_50% (steps 7). Without `method.` a setting is for all." in notes


def test_prompts_with_seeds_of_their_own_are_counted_as_they_are():
    """Two first seeds of one prompt and one of the other, two of each: six panoramas a row, and not one missing."""
    made = synthetic_results("experiment=demo", "prompts.seeds=[[3,100],[7]]", "seeds.count=2")
    assert made.study.expected == 6 and "2 prompts, 6 panoramas a row" in sentence(made.study)
    assert not [note for note in notes(made) if "Unfinished" in note]
    lacking = replace(made, panoramas=made.panoramas.iloc[1:])
    assert [note for note in notes(lacking) if "Unfinished: 17 of 18 panoramas are there" in note]


def test_one_picture_is_told_by_its_own_seed():
    one, two = (
        synthetic_results("experiment=panorama", "prompts.texts=[a lake]", f"prompts.seeds=[{seeds}]").study
        for seeds in ("[100]", "[3,100]")
    )
    assert one_picture(one) and "seed 100" in sentence(one)
    assert not one_picture(two) and "1 prompt, 2 panoramas a row" in sentence(two)


def test_set_metrics_that_were_scored_against_another_row_are_blocks():
    made = synthetic_results("experiment=demo")
    line = {
        "method": "syncdiffusion",
        "metric": "kid",
        "difference": 0.1,
        "stderr": 0.1,
        "p": 0.5,
        "n": 4,
        "prompts": 2,
    }
    told = [
        difference_note(replace(made, swaps=pd.DataFrame([line | {"n": 4, "prompts": 2, "against": against}])))
        for against in ("multidiffusion", made.study.compare_with)
    ]
    assert (
        "over n disjoint blocks of seeds, without a test" in told[0] and "the sets' numbers over the n pairs" in told[1]
    )


def notes(results) -> list[str]:
    compared = comparisons(results)
    return notes_of(results, main_table(results, compared), compared)
