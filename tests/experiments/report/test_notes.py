"""What is said below the tables."""

from experiments.report.notes import apart, notes_of
from experiments.results.numbers import comparisons, main_table
from experiments.results.study import Row
from tests.experiments.report.test_tables import SIZE, by_hand, study


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
