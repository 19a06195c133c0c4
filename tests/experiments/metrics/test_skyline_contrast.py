"""The skyline contrast, of skylines that were drawn and so are known."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.metrics.config import MetricsConfig
from experiments.metrics.definitions.skyline_contrast import METRIC, REACH, STEP, contrast, skyline_contrast
from experiments.metrics.measure import PanoramaImage
from experiments.metrics.score import score_panoramas
from experiments.mini.land import as_picture, land_map, skyline
from experiments.mini.scenes import render
from experiments.mini.world import sample_scene
from syncdiffusion.errors import UsageError

SKY, LAND = (150, 180, 240), (40, 90, 30)
APART = np.mean([110, 90, 210])


def hills(height: int = 128, width: int = 256) -> np.ndarray:
    """Land below a wave: booleans."""
    rows = np.arange(height)[:, None] / height
    return rows >= 0.5 + 0.3 * np.sin(np.arange(width) / width * 9)[None]


def painted(land: np.ndarray) -> np.ndarray:
    return np.where(land[..., None], LAND, SKY).astype(np.uint8)


def test_across_its_own_skyline_a_picture_of_two_colours_changes_from_one_to_the_other():
    assert contrast(painted(hills()), skyline(hills())) == pytest.approx(APART)
    level = np.zeros((128, 256), bool)
    level[70:] = True
    # Every line that is moved along is the same line, so that nothing is left of it.
    assert skyline_contrast(painted(level), level) == pytest.approx(0)


def test_it_is_what_a_literal_loop_computes():
    picture = np.random.default_rng(0).integers(0, 256, (128, 64, 3), dtype=np.uint8)
    land = hills(128, 64)
    land[:, 5], land[:, 6] = True, False  # a skyline at the upper edge, and none

    def literal(shift: int) -> float:
        found = []
        for column in range(64):
            rows = np.flatnonzero(land[:, (column - shift) % 64])
            row = min(max(rows[0] if len(rows) else 128, 1), 127)
            above, below = picture[max(row - REACH, 0) : row, column], picture[row : row + REACH, column]
            found.append(np.abs(above.mean(axis=0) - below.mean(axis=0)).mean())
        return float(np.mean(found))

    expected = literal(0) - np.mean([literal(shift) for shift in range(STEP, 64, STEP)])
    assert skyline_contrast(picture, land) == pytest.approx(expected, abs=1e-9)


def test_it_is_near_zero_of_another_skyline_and_the_same_at_another_size():
    picture = painted(hills())
    own, other = skyline_contrast(picture, hills()), skyline_contrast(picture, hills()[:, ::-1].copy())
    assert own > 0.5 * APART and abs(other) < 0.25 * own
    # Enlarged and brought back by means: at most the rows beside the line are mixed, one of six to each side.
    assert skyline_contrast(painted(hills(512, 1024)), hills(512, 1024)) == pytest.approx(own, rel=1 / 6)


def test_renders_follow_their_own_map_and_not_anothers():
    """The docstring's number is of 16 scenes; the bounds are looser, for these are fewer."""
    rng = np.random.default_rng(4)
    scenes = [sample_scene(rng) for _ in range(10)]
    maps, pictures = [land_map(each, 128, 256) for each in scenes], [render(each, 128, 256) for each in scenes]
    own = [skyline_contrast(picture, land) for picture, land in zip(pictures, maps, strict=True)]
    other = [skyline_contrast(picture, land) for picture, land in zip(pictures, maps[1:] + maps[:1], strict=True)]
    assert np.mean(own) >= 8 and np.mean(own) >= 4 * abs(np.mean(other))


def test_a_scoring_pass_reads_the_map_of_each_panorama(tmp_path: Path):
    land = hills()
    Image.fromarray(painted(land)).save(tmp_path / "a.png")
    Image.fromarray(as_picture(land)).save(tmp_path / "map.png")
    settings = {"followed": {"control_image": str(tmp_path / "map.png")}, "free": {"control_image": None}}
    items = [PanoramaImage("hills", 0, each, tmp_path / "a.png", {"settings": settings[each]}) for each in settings]
    items.append(PanoramaImage("hills", 0, "foreign", tmp_path / "a.png"))
    config = MetricsConfig(metrics=["skyline_contrast"], crop=128)
    found = {row["method"]: row["skyline_contrast"] for row in score_panoramas(items, [], config, {}).rows}
    assert found["followed"] == pytest.approx(skyline_contrast(painted(land), land))
    assert found["free"] is None and found["foreign"] is None


def test_a_map_that_is_no_longer_there_is_named(tmp_path: Path):
    Image.fromarray(painted(hills())).save(tmp_path / "a.png")
    gone = {"settings": {"control_image": str(tmp_path / "gone.png")}}
    item = PanoramaImage("hills", 0, "a", tmp_path / "a.png", gone)
    with pytest.raises(UsageError, match="control_image=.*gone.png"):
        score_panoramas([item], [], MetricsConfig(metrics=["skyline_contrast"], crop=128), {})
    with pytest.raises(UsageError, match="control_image=.*gone.png"):  # and where a cache is asked first
        METRIC.measurement.parameters(item, MetricsConfig(crop=128))
