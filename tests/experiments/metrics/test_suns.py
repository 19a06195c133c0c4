"""Suns and moons are counted where discs are drawn, at any size of picture, and nothing else is."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.metrics.config import MetricsConfig
from experiments.metrics.definitions.suns import find_suns, masks
from experiments.metrics.score import PanoramaImage, score_panoramas
from experiments.mini.scenes import render
from experiments.mini.world import sample_scene


def evening(height: int = 128, width: int = 768) -> np.ndarray:
    """A sky that grows lighter towards the horizon, and dark land under it with a sharp edge: [h, w, 3] in [0, 1]."""
    rows = np.linspace(0.2, 0.6, height)[:, None, None]
    picture = np.broadcast_to(rows * np.array([1.0, 0.7, 0.9]), (height, width, 3)).copy()
    picture[int(0.65 * height) :] = 0.1
    return picture


def with_ellipse(
    picture: np.ndarray, y0: float, x0: float, high: float, wide: float, value: float = 0.95
) -> np.ndarray:
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]]
    inside = np.hypot((y - y0) / high, (x - x0) / wide) <= 1
    return np.where(inside[..., None], value, picture)


def in_bytes(picture: np.ndarray) -> np.ndarray:
    return np.round(picture * 255).astype(np.uint8)


@pytest.mark.parametrize("scale", [1, 2])
def test_each_disc_counts_once_where_it_stands(scale: int) -> None:
    picture, drawn = evening(128 * scale, 768 * scale), [(30, 100, 5.5), (50, 300, 7), (40, 600, 8.5)]
    for y, x, radius in drawn:
        picture = with_ellipse(picture, y * scale, x * scale, radius * scale, radius * scale)
    found = sorted(find_suns(in_bytes(picture)), key=lambda each: each[1])
    assert len(found) == 3
    for (y, x, radius), (row, column, size) in zip(drawn, found, strict=True):
        assert abs(row - y * scale) <= 2 * scale and abs(column - x * scale) <= 2 * scale
        assert abs(size - radius * scale) <= 2 * scale


def test_what_is_no_bright_disc_in_the_sky_is_not_counted() -> None:
    clouds = with_ellipse(evening(), 40, 200, 6, 30)
    stars = with_ellipse(with_ellipse(evening(), 20, 50, 1.5, 1.5), 30, 70, 1.5, 1.5)
    hole = with_ellipse(evening(), 40, 300, 7, 7, value=0.0)
    reflection = with_ellipse(evening(), 110, 300, 7, 7)
    mottled = with_ellipse(evening(), 40, 300, 7, 7)
    mottled[40:48] *= 0.8
    for picture in (evening(), clouds, stars, hole, reflection, mottled):
        assert find_suns(in_bytes(picture)) == []


def test_renders_with_a_sun_are_told_from_those_without() -> None:
    """The first 48 of the 160 scenes that the file's docstring tells of; the bounds are looser than what it says."""
    rng, found = np.random.default_rng(5), {True: [], False: []}
    for _ in range(48):
        scene = sample_scene(rng)
        found[scene.sun is not None].append(len(find_suns(render(scene, 128, 256))) > 0)
    assert min(len(each) for each in found.values()) >= 8
    assert np.mean(found[True]) >= 0.55 and np.mean(found[False]) <= 0.15


def test_masks_are_means_of_disjoint_parts() -> None:
    disc, sectors = masks(7.6)
    for mask in (disc, *sectors):
        assert mask.sum() == pytest.approx(1)
    assert sum((each > 0).astype(int) for each in (disc, *sectors)).max() == 1


def test_a_scoring_pass_counts_each_panorama(tmp_path: Path) -> None:
    pictures = {"none": evening(), "one": with_ellipse(evening(), 40, 200, 7, 7)}
    pictures["two"] = with_ellipse(pictures["one"], 50, 500, 7, 7)
    items = []
    for label, picture in pictures.items():
        path = tmp_path / f"{label}.png"
        Image.fromarray(in_bytes(picture)).save(path)
        items.append(PanoramaImage("a sky", 0, label, path))
    scored = score_panoramas(items, [], MetricsConfig(metrics=["suns"], crop=128), {})
    assert {row["method"]: row["suns"] for row in scored.rows} == {"none": 0, "one": 1, "two": 2}
