"""CMMD and the metrics of all squares against literal sums."""

from itertools import product
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
from PIL import Image

from experiments.metrics.catalogue import DEFINED
from experiments.metrics.config import MetricsConfig
from experiments.metrics.crops import grid_crops, load_image
from experiments.metrics.definitions import fid_crops, kid_crops
from experiments.metrics.definitions.cmmd import cmmd
from experiments.metrics.definitions.fid import fid
from experiments.metrics.definitions.kid import kid
from experiments.metrics.discrepancies import cubic, gaussian, of_crops, squared_mmd, squared_mmd_difference
from experiments.metrics.estimates import ImageSet, stacked
from experiments.metrics.features import CLIP_IMAGE
from experiments.metrics.inception import FeatureNetwork
from experiments.metrics.metric import SetMetric
from experiments.metrics.score import PanoramaImage, score_panoramas
from tests.experiments.metrics.conftest import picture
from tests.experiments.metrics.test_score import colour_moments

CONFIG = MetricsConfig()


def unit(rng: np.random.Generator, n: int, shift: float = 0) -> np.ndarray:
    rows = rng.standard_normal((n, 6)) + shift
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_cmmd_is_a_thousand_times_the_u_statistic():
    rng = np.random.default_rng(0)
    x, y = unit(rng, 7), unit(rng, 5, 1)

    def mean(a: np.ndarray, b: np.ndarray, same: bool) -> float:
        pairs = [(i, j) for i in range(len(a)) for j in range(len(b)) if not same or i != j]
        return float(np.mean([np.exp(-np.sum((a[i] - b[j]) ** 2) / 200) for i, j in pairs]))

    expected = 1000 * (mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False))
    assert cmmd(x, y).value == pytest.approx(expected, rel=1e-9)  # float64, differences of numbers near 1
    assert cmmd(x, y).stderr > 0
    assert abs(cmmd(unit(rng, 400), unit(rng, 400)).value) < 4 * cmmd(unit(rng, 400), unit(rng, 400)).stderr


def test_a_difference_is_of_the_two_values():
    rng = np.random.default_rng(1)
    a, b, y = unit(rng, 10, 1), unit(rng, 10), unit(rng, 8)
    found = squared_mmd_difference(a, b, y, gaussian(10))
    values = [squared_mmd(each, y, gaussian(10)).value for each in (a, b)]
    assert found.value == pytest.approx(values[0] - values[1], abs=1e-12) and found.p < 0.1


SET_METRICS = [metric for metric in DEFINED.values() if isinstance(metric, SetMetric)]


@pytest.mark.parametrize("metric", SET_METRICS, ids=lambda metric: metric.name)
def test_what_a_table_compares_are_the_values_that_it_shows(metric):
    """Of every metric of sets, with the two prompts and, where it sees all squares, three squares of each picture."""
    rng, prompts = np.random.default_rng(4), ("p", "q") * 6
    shape = (12, 3, 5) if metric.name.endswith("_crops") else (12, 5)
    a, b, y = (ImageSet(rng.standard_normal(shape) + shift, prompts) for shift in (1, 0, 0.2))
    if metric.measurement == CLIP_IMAGE:  # of unit length
        a, b, y = (
            ImageSet(x.features / np.linalg.norm(x.features, axis=-1, keepdims=True), prompts) for x in (a, b, y)
        )
    assert metric.enough(a, y, CONFIG)
    ours, theirs = metric.estimate(a, y, CONFIG), metric.estimate(b, y, CONFIG)
    found = metric.compare(a, b, y, CONFIG)
    assert found.value == pytest.approx(ours.value - theirs.value, rel=1e-6, abs=1e-9) and found.n == 12
    assert abs(found.value) > 1e-3  # else units that differ would not be seen
    if None not in (found.stderr, ours.stderr):  # of pairs: of the size of what both have, not a thousand times it
        assert 0.05 < found.stderr / np.hypot(ours.stderr, theirs.stderr) < 2


def test_cmmd_of_a_table_is_cmmd():
    rng, prompts = np.random.default_rng(5), ("p", "q") * 4
    x, y = unit(rng, 8, 1), unit(rng, 8)
    found = DEFINED["cmmd"].estimate(ImageSet(x, prompts), ImageSet(y, prompts), CONFIG)
    assert found == cmmd(x, y, prompts, prompts)


def test_kid_of_all_squares_leaves_out_pairs_of_one_panorama():
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((5, 3, 4)) + rng.standard_normal((5, 1, 4)), rng.standard_normal((6, 1, 4))

    def mean(a: np.ndarray, b: np.ndarray, same: bool) -> float:
        indices = product(range(len(a)), range(len(b)), range(a.shape[1]), range(b.shape[1]))
        return float(np.mean([(a[i, c] @ b[j, d] / 4 + 1) ** 3 for i, j, c, d in indices if not same or i != j]))

    expected = mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)
    assert squared_mmd(x, y, of_crops(cubic)).value == pytest.approx(expected, rel=1e-9)
    one = squared_mmd(x[:, :1], y, of_crops(cubic)), kid(x[:, 0], y[:, 0])
    assert (one[0].value, one[0].stderr) == pytest.approx((one[1].value, one[1].stderr), rel=1e-9)


def test_the_error_of_kid_of_all_squares_is_that_of_new_panoramas():
    """Squares that all show the same: six of them tell no more than one, and the error must not shrink."""
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((12, 1, 4)), rng.standard_normal((12, 1, 4))
    once, six = (squared_mmd(each, y, of_crops(cubic)) for each in (x, np.repeat(x, 6, axis=1)))
    assert (six.value, six.stderr) == pytest.approx((once.value, once.stderr), rel=1e-9)


def test_fid_of_all_squares_swaps_panoramas_whole():
    rng = np.random.default_rng(4)
    a, b = rng.standard_normal((4, 3, 5)) + 0.3, rng.standard_normal((4, 3, 5))
    y = ImageSet(rng.standard_normal((9, 1, 5)), ("p",) * 9)
    found = fid_crops.METRIC.compare(ImageSet(a, ("p",) * 4), ImageSet(b, ("p",) * 4), y, CONFIG)
    differences = []
    for swap in product((False, True), repeat=4):
        sides = [np.where(np.array(swap)[:, None, None] ^ side, b, a).reshape(-1, 5) for side in (False, True)]
        differences.append(fid(sides[0], y.features[:, 0]) - fid(sides[1], y.features[:, 0]))
    assert found.value == pytest.approx(differences[0], rel=1e-9) and found.n == 4
    assert found.p == np.mean(np.abs(differences) >= abs(differences[0]) * (1 - 1e-6))


def test_all_squares_of_pictures_of_different_widths(tmp_path):
    """The features are those of the grid's squares; a method whose pictures have different numbers has no number."""

    def item(name: str, method: str, seed: int, width: int) -> PanoramaImage:
        path = Path(tmp_path / f"{name}.png")
        Image.fromarray(picture(crc32(name.encode()) % 1000, 32, width)).save(path)
        return PanoramaImage("p", seed, method, path)

    even = [item(f"even{seed}", "even", seed, 96) for seed in range(3)]
    ragged = [item(f"ragged{seed}", "ragged", seed, 64 + 32 * seed) for seed in range(3)]
    squares = [item(f"square{seed}", "squares", seed, 32) for seed in range(4)]
    config = MetricsConfig(metrics=["fid_crops", "kid_crops"], crop=32)
    networks = {"inception": FeatureNetwork("moments", colour_moments)}
    scored = score_panoramas([*even, *ragged], squares, config, networks, against="even")
    narrow = [item(f"narrow{seed}", "narrow", seed, 64) for seed in range(3)]
    without_pairs = score_panoramas([*even, *narrow], squares, config, networks, against="even", paired=False)
    assert len(without_pairs.scores) == 2 * 4 and not without_pairs.swaps  # six squares do not compare with two
    found = {(row["method"], row["metric"]): row["value"] for row in scored.scores if row["prompt"] == "all"}

    def rows(items: list[PanoramaImage]) -> np.ndarray:
        crops = [crop for each in items for crop in grid_crops(load_image(each.path), 32)]
        return np.concatenate([colour_moments([crop]).double().numpy() for crop in crops])

    assert found.keys() == {("even", "fid_crops"), ("even", "kid_crops")} and not scored.swaps
    assert found["even", "fid_crops"] == pytest.approx(fid(rows(even), rows(squares)), rel=1e-9)
    expected = squared_mmd(rows(even).reshape(3, 3, -1), rows(squares)[:, None], of_crops(cubic))
    assert found["even", "kid_crops"] == pytest.approx(expected.value, rel=1e-9)
    assert not kid_crops.METRIC.enough(
        ImageSet(stacked([np.ones((2, 1)), np.ones((3, 1))]), ("p", "p")),
        ImageSet(np.ones((2, 1, 1)), ("p", "p")),
        config,
    )
