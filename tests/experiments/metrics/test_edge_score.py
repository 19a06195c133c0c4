"""The edge score on pictures whose edge is known, and from the scoring pass."""

import numpy as np
import pytest
from PIL import Image

from experiments.metrics.config import MetricsConfig
from experiments.metrics.score import PanoramaImage, score_panoramas
from experiments.panoramas.store import MADE_ELSEWHERE
from tests.experiments.metrics.test_seam_score import FLAT, MADE, RING, smooth_ring

FREE = {"height": 64, "width": 192}
RINGS = [
    MADE | {"settings": RING},
    MADE | {"method": "spotdiffusion", "settings": FREE},
    MADE | {"method": "diffcollage", "settings": FREE | {"ring": True}},
]
FLATS = [
    MADE | {"settings": FLAT | {"width": 192}},
    MADE | {"method": "diffcollage", "settings": FREE | {"ring": False}},
    MADE | {"method": "cdgs", "settings": FREE},
]


def scores(tmp_path, picture, every) -> list[float | None]:
    Image.fromarray(picture).save(tmp_path / "a.png")
    items = [PanoramaImage("p", 0, str(i), tmp_path / "a.png", made) for i, made in enumerate(every)]
    scored = score_panoramas(items, [], MetricsConfig(metrics=["edge_score"], crop=64), {})
    return [row["edge_score"] for row in scored.rows]


def test_a_jump_at_the_edge_counts_whole(tmp_path):
    """A ramp of a step every second column: 95 levels from its last column to its first, one at borders of cells.

    Of a picture of which nothing is known all other columns are what it is compared with: half a level.
    """
    ramp = np.repeat((np.arange(192) // 2).astype(np.uint8)[None, :, None], 64, axis=0).repeat(3, axis=2)
    assert scores(tmp_path, ramp, [*RINGS, *FLATS]) == [94] * (len(RINGS) + len(FLATS))
    # Of pictures made elsewhere the scoring pass tells a size of cells that they need not have.
    for found in scores(tmp_path, ramp, [{}, {"method": MADE_ELSEWHERE, "factor": 8}]):
        assert found == pytest.approx(95 - 95 / 191, rel=1e-12)


def test_a_ring_without_a_seam_has_none(tmp_path):
    (found,) = scores(tmp_path, smooth_ring(192), RINGS[:1])
    assert found == pytest.approx(0, abs=1.5)  # what a wave differs by from place to place
