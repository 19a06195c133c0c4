"""Metrics of panoramas with a layout, against what is counted by hand."""

import json
from itertools import combinations

import numpy as np
import pytest
import torch

from experiments.metrics.clip_network import folder_clip
from experiments.metrics.coherence import pair_distances
from experiments.metrics.config import MetricsConfig
from experiments.metrics.definitions import outside_lpips, region_clip_score
from experiments.metrics.definitions.clip_score import clip_scores
from experiments.metrics.measure import ImageFile, PanoramaImage
from experiments.metrics.regions import background_pixels, cells_digest
from syncdiffusion.errors import UsageError
from syncdiffusion.perceptual.clip import MINI_CLIP
from tests.experiments.composing import compose_plan
from tests.metric_networks import load_or_skip

CONFIG = MetricsConfig(crop=32, batch=2)


@pytest.fixture
def item(tmp_path):
    """A panorama of 96x32 px: a box of 16 px at the left, and one of 8 px across the border of the second crop."""
    regions = [{"prompt": "a lake", "box": [0, 0.5, 1 / 6, 1]}, {"prompt": "a city", "box": [60 / 96, 0, 68 / 96, 1]}]
    (tmp_path / "layout.json").write_text(json.dumps({"background": "hills", "regions": regions}))
    made = {"factor": 4, "settings": {"height": 32, "width": 96, "layout": str(tmp_path / "layout.json")}}
    return PanoramaImage("hills", 0, "a", tmp_path / "a.png", made)


class Pixels:
    """A distance of two layers: the pixels, and their means over 16x16."""

    def __init__(self):
        self.trunk = torch.nn.Linear(1, 1)

    def features(self, images):
        return [images, torch.nn.functional.avg_pool2d(images, 16)]

    def distance(self, a, b):
        layers = [(x - y).square().sum(dim=1).mean(dim=(1, 2)) for x, y in zip(a, b, strict=True)]
        return torch.stack(layers).sum(dim=0)


def test_outside_lpips_counts_the_background_of_both_crops_alone(item):
    crops = list(np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8))
    free = [background_pixels(item, (32, 96))[:, left : left + 32] for left in (0, 32, 64)]
    assert [int((~each).sum()) for each in free] == [16 * 16, 32 * 4, 32 * 4]
    ours = outside_lpips.masked_distances(Pixels(), crops, free, 2)
    expected = []
    for i, j in combinations(range(3), 2):
        a, b = crops[i] / 255.0, crops[j] / 255.0
        both = free[i] & free[j]
        total = ((a - b) ** 2).sum(axis=2)[both].mean()
        blocks = [
            sum((a[s].mean(axis=(0, 1)) - b[s].mean(axis=(0, 1))) ** 2)
            for s in ((slice(y, y + 16), slice(x, x + 16)) for y in (0, 16) for x in (0, 16))
            if both[s].all()
        ]
        if blocks:
            expected.append(total + np.mean(blocks))
    assert len(expected) == 2  # the borders that the second and the third lack leave them no column in common
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_without_a_layout_it_is_intra_lpips():
    loss = load_or_skip("lpips_alex")
    crops = list(np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8))
    plain = PanoramaImage("hills", 0, "a", None, {"factor": 4, "settings": {"height": 64, "width": 192}})
    free = [background_pixels(plain, (64, 192))[:, left : left + 64] for left in (0, 64, 128)]
    ours = outside_lpips.masked_distances(loss, crops, free, 2)
    np.testing.assert_allclose(ours, pair_distances(loss, crops, 2), rtol=1e-5)
    assert cells_digest(plain) == ""


def test_each_region_is_compared_with_its_own_prompt(item, tmp_path):
    clip = folder_clip(MINI_CLIP, torch.device("cpu"))
    pixels = np.random.default_rng(1).integers(0, 256, (32, 96, 3), dtype=np.uint8)
    file = ImageFile(item, b"")
    file.__dict__["pixels"] = pixels
    (scores,) = region_clip_score.METRIC.measurement.compute([file], clip, CONFIG)
    # The lake is 16x16 px; the city 8 px wide and as high as the picture, its square of 32 px around column 64.
    squares = [pixels[16:32, 0:16], pixels[:, 48:80]]
    np.testing.assert_allclose(scores, clip_scores(clip, squares, ["a lake", "a city"], 2), rtol=1e-6)
    assert region_clip_score.METRIC.columns_through(clip).keys() == {"region_mini_clip_score"}
    plain = ImageFile(PanoramaImage("hills", 0, "a", tmp_path / "a.png", {"settings": {}}), b"")
    plain.__dict__["pixels"] = pixels
    assert region_clip_score.METRIC.measurement.compute([plain], clip, CONFIG)[0].size == 0


def test_a_layouts_cells_are_part_of_what_features_are_kept_by(item):
    measurement = outside_lpips.METRIC.measurement
    before = measurement.parameters(item, CONFIG)
    path = item.made["settings"]["layout"]
    text = open(path).read()
    with open(path, "w") as file:
        file.write(text.replace("0.5", "0.25"))
    assert measurement.parameters(item, CONFIG) != before


def test_a_method_that_cannot_follow_a_layout_is_refused():
    with pytest.raises(UsageError, match="layout=conf/layouts: mad cannot follow one; leave that method out"):
        compose_plan(["experiment=layout", "+method@baselines.mad=mad", "tracking=disabled"])


def test_the_experiment_has_a_layout_for_each_of_its_prompts():
    plan = compose_plan(["experiment=layout", "tracking=disabled"])
    assert len(plan.prompts) == 6 and plan.labels == ("syncdiffusion", "multidiffusion", "profile_matching")
    assert {unit.settings["layout"] for unit in plan.units} == {"conf/layouts"}
    assert "layout" not in plan.references[0].settings if plan.references else True


def test_the_square_of_a_region_that_is_wider_than_the_picture_is_high():
    """As most regions of conf/layouts are: 40 columns of a picture 16 px high, of which the square is all rows."""
    region = np.zeros((16, 96), bool)
    region[8:, 30:70] = True
    assert region_clip_score.square_around(region) == (slice(0, 16), slice(30, 70))
    region[:, :70] = True  # and one that begins at the edge
    assert region_clip_score.square_around(region) == (slice(0, 16), slice(0, 70))
