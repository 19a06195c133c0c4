"""experiment=ring: every method that can close, all of them rings, from the panorama to the report."""

import pandas as pd
import pytest
from PIL import Image

from baselines import METHODS
from experiments.combinations import ring_of
from experiments.stages.sequence import run
from tests.experiments.composing import compose_plan, tiny_backbone


def test_every_method_that_can_close_is_in_it():
    plan = compose_plan(["experiment=ring"])
    assert {entry.method for entry in plan.entries} == {name for name in METHODS if ring_of(METHODS[name]) is not None}
    for entry in plan.entries:
        assert METHODS[entry.method].closed(entry.settings) == (entry.label != "open"), entry.label
        assert entry.settings.get("loop_closure", "full") == ("off" if entry.label == "open" else "full")


@pytest.mark.filterwarnings("ignore")
def test_a_run_of_the_tiny_model_is_scored_at_its_edge_and_reported(tiny_folder, tmp_path):
    few = ["steps=2", "method.first_n=0", "baselines.stochsync.rounds=2", "prompts=one", "seeds.count=1"]
    metrics = ["metrics=mini", "metrics.metrics=[seam_score,edge_score]"]
    backbone = tiny_backbone(tiny_folder, width=128)
    where = ["tracking=disabled", "shared_dir=null", f"run_dir={tmp_path / 'run'}"]
    plan = compose_plan(["experiment=ring", *backbone, *metrics, *few, *where])
    run(plan)
    made = pd.read_csv(plan.folder / "panoramas.csv").set_index("method")
    assert list(made.index) == [entry.label for entry in plan.entries]
    assert made["edge_score"].notna().all()
    moving = [entry.label for entry in plan.entries if METHODS[entry.method].moving]
    assert sorted(made.index[made["seam_score"].isna()]) == sorted(moving)  # their windows lie nowhere
    for file in made["file"]:
        assert Image.open(plan.folder / file).size == (128, 64)
    assert "Edge score" in (plan.folder / "table.md").read_text()
    pictures = plan.folder / "report" / "images"
    turned, seen = ({path.stem for path in pictures.glob(f"*.{kind}")} for kind in ("js", "webp"))
    assert turned < seen and len(seen - turned) == 1  # all but `open`
    assert (plan.folder / "report" / "pannellum" / "pannellum.js").is_file()
