"""The seam score on pictures whose seams are known, against a literal loop, and from the scoring pass."""

import numpy as np
import pytest
from PIL import Image

from experiments.metrics.config import MetricsConfig
from experiments.metrics.definitions.seam_score import borders_of, seam_score
from experiments.metrics.score import PanoramaImage, score_panoramas

MADE = {"method": "multidiffusion", "window": 64, "factor": 8}
PLAIN = MADE | {"method": "stable_diffusion", "settings": {"height": 64, "width": 128}}
FLAT = {"height": 64, "width": 128, "stride": 4}
RING = FLAT | {"width": 192, "loop_closure": "full"}


def smooth_ring(width: int, height: int = 64) -> np.ndarray:
    """A picture without an edge anywhere, its ends meeting too: two waves around it, in 8 bits."""
    around = 2 * np.pi * np.arange(width) / width
    rows = np.linspace(60, 120, height)[:, None, None]
    waves = 20 * np.sin(2 * around)[:, None] * np.array([1, 0.5, -1])
    return (rows + waves[None] + 20).round().astype(np.uint8)


def with_step(picture: np.ndarray, column: int, levels: int = 30) -> np.ndarray:
    """Brighter from a column on."""
    changed = picture.astype(int)
    changed[:, column:] += levels
    return changed.clip(0, 255).astype(np.uint8)


def literal(picture: np.ndarray, borders: list[int], factor: int, closed: bool) -> float:
    at, other = [], []
    height, width, _ = picture.shape
    for column in range(0 if closed else 1, width):
        if column % factor == 0:
            total = 0
            for row in range(height):
                for channel in range(3):
                    total += abs(int(picture[row, column, channel]) - int(picture[row, column - 1, channel]))
            (at if column in borders else other).append(total / (3 * height))
    return sum(at) / len(at) - sum(other) / len(other)


def test_it_equals_a_literal_loop() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (8, 64, 3), np.uint8)
    for closed, borders in ((False, [16, 48]), (True, [0, 16, 48])):
        assert seam_score(picture, borders, 8, closed) == pytest.approx(literal(picture, borders, 8, closed), rel=1e-12)


def test_borders_are_the_ends_of_the_windows() -> None:
    """Windows of 64 px every 32: [0, 64), [32, 96), [64, 128); around a ring also [160, 224), which ends at 32."""
    assert borders_of(MADE | {"settings": FLAT}) == ([32, 64, 96], False)
    assert borders_of(MADE | {"settings": RING}) == ([0, 32, 64, 96, 128, 160], True)
    assert borders_of(MADE | {"settings": RING | {"stride": 8}})[0] == [0, 64, 128]
    assert borders_of(PLAIN) == borders_of(PLAIN | {"method": "spotdiffusion"}) == ([], False)
    blended = MADE | {"method": "blended_latent", "settings": {"height": 64, "width": 128, "overlap": 0.25}}
    assert borders_of(blended | {"settings": blended["settings"] | {"width": 112}}) == ([48, 64], False)
    assert borders_of({}) == ([], False)


@pytest.mark.parametrize(("column", "levels"), [(32, 30), (64, 12)])
def test_a_seam_counts_by_its_height_and_share_of_the_borders(column, levels) -> None:
    """One of three borders is `levels` higher: the mean over borders rises by a third of that."""
    borders, _ = borders_of(MADE | {"settings": FLAT})
    even = smooth_ring(128)
    assert abs(seam_score(even, borders, 8, False)) < 1.5  # what a wave differs by from place to place
    rise = seam_score(with_step(even, column, levels), borders, 8, False) - seam_score(even, borders, 8, False)
    assert rise == pytest.approx(levels / 3, abs=2)  # the wave rises or falls there by itself by up to 2 levels


def test_an_edge_that_is_no_border_is_no_seam() -> None:
    borders, _ = borders_of(MADE | {"settings": FLAT})
    even = smooth_ring(128)
    inside, at_cell = (seam_score(with_step(even, column), borders, 8, False) for column in (43, 40))
    assert inside == seam_score(even, borders, 8, False)  # an edge of the picture, between the borders of cells
    assert at_cell < inside  # a trace of the decoder's, which is what borders are compared with


def test_the_ends_of_a_ring_meet_and_those_of_a_flat_panorama_do_not() -> None:
    """A ramp jumps from its last column to its first: 6 borders of the ring, one of them 95 levels high."""
    ramp = np.repeat((np.arange(192) // 2).astype(np.uint8)[None, :, None], 64, axis=0).repeat(3, axis=2)
    ring, flat = (borders_of(MADE | {"settings": settings}) for settings in (RING, FLAT | {"width": 192}))
    assert flat == ([32, 64, 96, 128, 160], False)
    assert seam_score(ramp, *ring[:1], 8, True) == pytest.approx(95 / 6 - 1 / 6, abs=1e-12)  # else 1 at each border
    assert seam_score(ramp, *flat[:1], 8, False) == 0
    assert abs(seam_score(smooth_ring(192), ring[0], 8, True)) < 1.5


def test_where_every_cell_is_a_border_all_other_columns_are_compared_with() -> None:
    picture = np.zeros((4, 32, 3), np.uint8)
    picture[:, 8:16], picture[:, 24:] = 10, 10
    assert seam_score(picture, [8, 16, 24], 8, False) == 10
    with pytest.raises(ValueError, match="0 borders"):
        seam_score(picture, [0], 8, False)


def test_the_scoring_pass_gives_it_what_it_needs(tmp_path) -> None:
    """Two methods of one picture, one with windows; the one without has no score and no row in scores."""
    Image.fromarray(with_step(smooth_ring(128), 64)).save(tmp_path / "a.png")
    windows, none = MADE | {"settings": FLAT}, PLAIN
    items = [
        PanoramaImage("p", 0, label, tmp_path / "a.png", made) for label, made in (("joint", windows), ("plain", none))
    ]
    scored = score_panoramas(items, [], MetricsConfig(metrics=["seam_score"], crop=64), {})
    expected = seam_score(np.asarray(Image.open(tmp_path / "a.png")), [32, 64, 96], 8, False)
    assert [row["seam_score"] for row in scored.rows] == [expected, None]
    assert {row["method"] for row in scored.scores} == {"joint"}
