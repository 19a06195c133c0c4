"""Precision and recall against a literal loop over the definition, and where their answers are known."""

import numpy as np
import pytest

from experiments.metrics.config import MetricsConfig
from experiments.metrics.definitions import precision, recall
from experiments.metrics.estimates import ImageSet
from experiments.metrics.manifold import covered, recall_difference

CONFIG = MetricsConfig(manifold_neighbours=2)


def literal(points: np.ndarray, manifold: np.ndarray, k: int) -> list[bool]:
    """Equations 1 and 2, feature by feature."""
    found = []
    for point in points:
        inside = False
        for i, centre in enumerate(manifold):
            others = sorted(np.linalg.norm(centre - each) for j, each in enumerate(manifold) if j != i)
            inside = inside or np.linalg.norm(point - centre) <= others[k - 1]
        found.append(inside)
    return found


def images(features: np.ndarray) -> ImageSet:
    return ImageSet(features, ("p", "q") * (len(features) // 2))


@pytest.mark.parametrize("k", [1, 2, 3])
def test_both_are_the_literal_loop(k):
    rng = np.random.default_rng(k)
    x, y = rng.standard_normal((20, 4)) * 0.7, rng.standard_normal((30, 4)) + 0.5
    assert covered(x, y, k).tolist() == literal(x, y, k)
    config = MetricsConfig(manifold_neighbours=k)
    assert 0 < precision.METRIC.estimate(images(x), images(y), config).value == np.mean(literal(x, y, k))
    assert 0 < recall.METRIC.estimate(images(x), images(y), config).value == np.mean(literal(y, x, k)) < 1


def test_one_good_picture_again_and_again_is_precise_and_recalls_nothing():
    rng = np.random.default_rng(0)
    reference = rng.standard_normal((40, 3))
    same = np.tile(reference[:1] + 1e-3, (12, 1))
    assert precision.METRIC.estimate(images(same), images(reference), CONFIG).value == 1
    assert recall.METRIC.estimate(images(same), images(reference), CONFIG).value == 0
    both = [precision, recall]
    assert [each.METRIC.estimate(images(reference), images(reference), CONFIG).value for each in both] == [1, 1]
    far = images(reference + 100)
    assert [each.METRIC.estimate(far, images(reference), CONFIG).value for each in both] == [0, 0]


def test_too_few_for_a_neighbour_have_no_number():
    few, many = images(np.eye(4)[:2]), images(np.eye(4))
    assert not precision.METRIC.enough(many, few, CONFIG) and precision.METRIC.enough(few, many, CONFIG)
    assert not recall.METRIC.enough(few, many, CONFIG) and recall.METRIC.enough(many, few, CONFIG)
    with pytest.raises(ValueError, match="no 2th nearest"):
        covered(np.eye(4), np.eye(4)[:2], 2)


def test_differences_are_of_the_two_numbers_and_tell_what_is_not_chance():
    rng = np.random.default_rng(1)
    reference = rng.standard_normal((60, 3))
    wide, narrow = rng.standard_normal((20, 3)), 0.05 * rng.standard_normal((20, 3))
    found = recall_difference(wide, narrow, reference, 2)
    values = [np.mean(literal(reference, each, 2)) for each in (wide, narrow)]
    assert found.value == values[0] - values[1] > 0.3
    assert found.p == 1 / 10_000  # no random swap of labels keeps them apart
    assert recall_difference(wide, wide, reference, 2).p == 1
    few = recall_difference(wide[:4], narrow[:4], reference, 2)  # all sixteen ways: no less than two of them
    assert few.p * 16 == pytest.approx(round(few.p * 16)) and few.p >= 2 / 16
    compared = precision.METRIC.compare(images(wide), images(narrow), images(reference), CONFIG)
    assert compared.value == pytest.approx(
        np.mean(literal(wide, reference, 2)) - np.mean(literal(narrow, reference, 2))
    )
