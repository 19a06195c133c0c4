"""FID against analytic cases, the covariance form, clean-fid and torchmetrics; its test against every pattern."""

from itertools import product

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from experiments.metrics.definitions import fid as module
from experiments.metrics.definitions.fid import fid, fid_difference


def features(n: int, d: int, seed: int, mean: float = 0.0, scale: float = 1.0) -> np.ndarray:
    return mean + scale * np.random.default_rng(seed).standard_normal((n, d))


def with_moments(n: int, mean: np.ndarray, root: np.ndarray, seed: int) -> np.ndarray:
    """A sample whose sample mean is `mean` and sample covariance root^T root, exactly."""
    x = features(n, len(mean), seed)
    x -= x.mean(axis=0)
    inverse_root = np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T
    return x @ inverse_root @ root + mean


def test_fid_of_gaussians_with_known_moments() -> None:
    """Commuting covariances: |m1 - m2|^2 + sum (s1 - s2)^2; and the one-dimensional formula."""
    d = 6
    m1, m2 = np.linspace(0, 1, d), np.linspace(1, -1, d)
    s1, s2 = np.linspace(0.5, 2, d), np.linspace(3, 0.1, d)
    x = with_moments(50, m1, np.diag(s1), 1)
    y = with_moments(80, m2, np.diag(s2), 2)
    expected = np.square(m1 - m2).sum() + np.square(s1 - s2).sum()
    assert fid(x, y) == pytest.approx(expected, rel=1e-10)


def covariance_form(x: np.ndarray, y: np.ndarray) -> float:
    """The textbook form, its matrix root taken through symmetric eigenvalues."""
    c1, c2 = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    values, vectors = np.linalg.eigh(c1)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    trace = np.sqrt(np.linalg.eigvalsh(root @ c2 @ root).clip(0)).sum()
    shift = x.mean(axis=0) - y.mean(axis=0)
    return float(shift @ shift + np.trace(c1) + np.trace(c2) - 2 * trace)


@pytest.mark.parametrize(("n", "m"), [(5, 9), (30, 200), (200, 30), (200, 300)])
def test_fid_equals_the_covariance_form_on_both_sides_of_d(n: int, m: int) -> None:
    x, y = features(n, 64, 3), features(m, 64, 4, mean=0.3, scale=1.5)
    # eigenvalues that should be zero reach the textbook form as the root of rounding errors
    assert fid(x, y) == pytest.approx(covariance_form(x, y), rel=1e-6)


def test_fid_equals_the_libraries() -> None:
    from torchmetrics.image.fid import _compute_fid

    x, y = features(300, 32, 5), features(200, 32, 6, mean=0.2, scale=1.2)
    moments = [
        torch.from_numpy(part) for part in (x.mean(0), np.cov(x, rowvar=False), y.mean(0), np.cov(y, rowvar=False))
    ]
    assert fid(x, y) == pytest.approx(_compute_fid(*moments).item(), rel=1e-9)

    from cleanfid import fid as cleanfid
    from cleanfid.fid import frechet_distance

    class OldSqrtm:
        """SciPy's matrix root with the pair of results that clean-fid still expects."""

        @staticmethod
        def sqrtm(matrix: np.ndarray, disp: bool = True):
            import scipy.linalg

            root = scipy.linalg.sqrtm(matrix)
            return root if disp else (root, None)

    kept = cleanfid.linalg
    try:
        cleanfid.linalg = OldSqrtm
        theirs = frechet_distance(*(part.numpy() for part in moments))
    finally:
        cleanfid.linalg = kept
    assert fid(x, y) == pytest.approx(theirs, rel=1e-8)


def test_fid_does_not_depend_on_order_and_is_zero_for_a_set_and_itself() -> None:
    x, y = features(40, 16, 7), features(50, 16, 8)
    assert fid(x[::-1], y) == pytest.approx(fid(x, y), rel=1e-10)
    assert fid(x, y) == pytest.approx(fid(y, x), rel=1e-10)
    assert fid(x, x) == pytest.approx(0, abs=1e-9)


def test_the_test_is_that_of_all_swaps_by_hand() -> None:
    """Six pairs, 64 ways to swap their labels; a pattern and its opposite have opposite differences."""
    a, b, y = features(6, 5, 20), features(6, 5, 21, mean=0.4), features(9, 5, 22)
    differences = []
    for pattern in product((False, True), repeat=6):
        swapped = np.array(pattern)[:, None]
        differences.append(fid(np.where(swapped, b, a), y) - fid(np.where(swapped, a, b), y))
    found = fid_difference(a, b, y)
    as_large = np.abs(differences) >= abs(differences[0]) * (1 - 1e-6)  # float64: two patterns come to the same
    assert found.p == as_large.mean() and as_large.sum() % 2 == 0
    assert (found.value, found.n, found.stderr) == (pytest.approx(fid(a, y) - fid(b, y), rel=1e-12), 6, None)
    other = fid_difference(b, a, y)
    assert other.p == found.p and other.value == -found.value


def test_the_test_is_seeded_and_finds_what_is_there() -> None:
    y = features(80, 16, 30)
    a, far = features(30, 16, 31), features(30, 16, 32, mean=0.7)
    found = fid_difference(far, a, y)
    # the least there is: of all ways, with those that are looked at where the first show nothing
    assert found.value > 0 and found.p == 1 / (module.SWAPS + module.MORE + 1) == fid_difference(far, a, y).p


def test_many_pairs_are_swapped_fewer_times_and_few_at_once(monkeypatch) -> None:
    """Of the same seed the first patterns are the same; how many are held at once changes nothing."""
    a, b, y = features(20, 6, 1), features(20, 6, 2, mean=0.2), features(30, 6, 3)
    whole = fid_difference(a, b, y)
    monkeypatch.setattr(module, "AT_ONCE", 1)
    assert fid_difference(a, b, y) == whole
    monkeypatch.setattr(module, "MANY", 19)
    fewer = fid_difference(a, b, y)
    # a share of 500 random patterns against one of 2000: three standard errors
    assert fewer.p == pytest.approx(whole.p, abs=3 * np.sqrt(whole.p * (1 - whole.p) / 500))
    assert (fewer.p * 500) % 1 == pytest.approx(0, abs=1e-9)


def test_p_of_equal_distributions_is_even() -> None:
    """300 runs of eight pairs that share half of their noise: p is uniform on the multiples of 2 / 256."""
    random, found = np.random.default_rng(0), []
    for _ in range(300):
        shared = random.standard_normal((8, 4))
        a, b = (shared + random.standard_normal((8, 4)) for _ in range(2))
        found.append(fid_difference(a, b, random.standard_normal((12, 4))).p)
    assert kstest(np.array(found) - 1 / 256, "uniform").pvalue > 0.001


def test_what_cannot_be_compared_is_refused() -> None:
    x, y = features(1, 4, 17), features(5, 4, 18)
    with pytest.raises(ValueError, match="1 generated and 5 reference rows"):
        fid(x, y)
    with pytest.raises(ValueError, match="shapes"):
        fid(features(5, 3, 19), y)
    with pytest.raises(ValueError, match="pairs of shapes"):
        fid_difference(features(5, 4, 19), features(4, 4, 19), y)
    y[3, 2] = np.nan
    with pytest.raises(ValueError, match="reference row 3 holds a value that is no finite number"):
        fid(features(5, 4, 19), y)
