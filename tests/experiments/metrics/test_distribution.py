"""FID, KID and GIQA against analytic cases, the covariance form, clean-fid and torchmetrics."""

import numpy as np
import pytest
import torch

from experiments.metrics.distribution import Estimate, fid, giqa_scores, kid, mean_estimate


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


def literal_mmd(x: np.ndarray, y: np.ndarray) -> float:
    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return (float(a @ b) / len(a) + 1) ** 3

    n, m = len(x), len(y)
    xx = sum(kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(kernel(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    xy = sum(kernel(x[i], y[j]) for i in range(n) for j in range(m)) / (n * m)
    return xx + yy - 2 * xy


def test_kid_and_its_jackknife_equal_literal_loops() -> None:
    x, y = features(7, 5, 9), features(9, 5, 10, mean=0.5)
    estimate = kid(x, y)
    assert estimate.value == pytest.approx(literal_mmd(x, y), rel=1e-12)
    without_x = np.array([literal_mmd(np.delete(x, i, axis=0), y) for i in range(7)])
    without_y = np.array([literal_mmd(x, np.delete(y, i, axis=0)) for i in range(9)])
    variance = 6 / 7 * np.square(without_x - without_x.mean()).sum()
    variance += 8 / 9 * np.square(without_y - without_y.mean()).sum()
    assert estimate.stderr == pytest.approx(np.sqrt(variance), rel=1e-9)


def test_kid_equals_the_libraries() -> None:
    from cleanfid.fid import kernel_distance
    from torchmetrics.image.kid import poly_mmd

    x, y = features(60, 32, 11), features(60, 32, 12, mean=0.4)
    # one subset holding everything, in another order: the same sum
    assert kid(x, y).value == pytest.approx(kernel_distance(x, y, num_subsets=1), rel=1e-10)
    theirs = poly_mmd(torch.from_numpy(x), torch.from_numpy(y))
    assert kid(x, y).value == pytest.approx(theirs.item(), rel=1e-10)


@pytest.mark.parametrize(("shift", "excess"), [(0.5, 1.0), (0.0, np.sqrt(2))])
def test_kid_of_gaussians_is_unbiased_with_a_known_standard_error(shift, excess) -> None:
    """N(0, I) against N(b, I): with B = |b|^2 the squared MMD of the cubic kernel is

    3B/d + 3B^2/d^2 + (B^3 + 6B^2 + 3B(d + 2))/d^3, whatever n (third moments of x . y).
    The jackknife is consistent for distinct distributions; for equal ones the statistic is
    degenerate and the jackknife's variance twice the true one.
    """
    d, runs = 8, 600
    b = d * shift**2
    expected = 3 * b / d + 3 * b**2 / d**2 + (b**3 + 6 * b**2 + 3 * b * (d + 2)) / d**3
    estimates = [kid(features(60, d, 2 * i), features(80, d, 2 * i + 1, shift)) for i in range(runs)]
    values = np.array([estimate.value for estimate in estimates])
    assert abs(values.mean() - expected) < 4 * values.std() / np.sqrt(runs)
    estimated = np.sqrt(np.mean([estimate.stderr**2 for estimate in estimates]))
    # 600 runs know a deviation to 3 per cent; the rest is the jackknife's own bias at n = 60
    assert estimated / values.std() == pytest.approx(excess, rel=0.12)


def test_kid_subsets_are_seeded_and_agree_with_all_rows() -> None:
    x, y = features(200, 8, 13), features(150, 8, 14, mean=0.5)
    state = np.random.get_state()[1].copy()
    part = kid(x, y, subsets=50, subset_size=60, seed=1)
    assert part == kid(x, y, subsets=50, subset_size=60, seed=1)
    assert part.value != kid(x, y, subsets=50, subset_size=60, seed=2).value
    assert (np.random.get_state()[1] == state).all()
    whole = kid(x, y)
    assert part.stderr == whole.stderr
    assert abs(part.value - whole.value) < whole.stderr


def test_giqa_equals_a_literal_loop_and_passes_over_the_very_same_picture() -> None:
    x, y = features(10, 6, 15), features(12, 6, 16)
    x[0] = y[3]
    expected = []
    for row in x:
        distances = sorted(np.abs(row - other).sum() for other in y)
        expected.append(sum(1 / distance for distance in [v for v in distances if v > 0][:8]))
    np.testing.assert_allclose(giqa_scores(x, y), expected, rtol=1e-12)
    np.testing.assert_allclose(giqa_scores(x[:2], y[::-1]), expected[:2], rtol=1e-12)


def test_too_few_rows_are_refused() -> None:
    x, y = features(1, 4, 17), features(5, 4, 18)
    for function in (fid, kid, giqa_scores):
        with pytest.raises(ValueError, match="1 generated and 5 reference rows"):
            function(x, y)
        with pytest.raises(ValueError, match="shapes"):
            function(features(5, 3, 19), y)
    with pytest.raises(ValueError, match="5 reference rows for 8 neighbours"):
        giqa_scores(features(3, 4, 20), y)
    assert kid(features(2, 4, 21), y).stderr is None


def test_mean_estimate() -> None:
    assert mean_estimate(np.array([1.0, 2.0, 3.0])) == Estimate(2.0, pytest.approx(1 / np.sqrt(3)))
    assert mean_estimate(np.array([4.0])) == Estimate(4.0, None)
    with pytest.raises(ValueError, match="no values"):
        mean_estimate(np.array([]))
