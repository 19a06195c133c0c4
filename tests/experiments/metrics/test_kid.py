"""KID against literal loops, the libraries, analytic values, and simulations whose truth is known."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pytest
import torch
from scipy import stats

from experiments.metrics import kernels
from experiments.metrics.definitions.kid import kid, kid_difference


def features(n: int, d: int, seed: int, mean: float = 0.0, scale: float = 1.0) -> np.ndarray:
    return mean + scale * np.random.default_rng(seed).standard_normal((n, d))


def kernel(a: np.ndarray, b: np.ndarray) -> float:
    return (float(a @ b) / len(a) + 1) ** 3


def literal_mmd(x: np.ndarray, y: np.ndarray) -> float:
    n, m = len(x), len(y)
    xx = sum(kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(kernel(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    xy = sum(kernel(x[i], y[j]) for i in range(n) for j in range(m)) / (n * m)
    return xx + yy - 2 * xy


def literal_mean(a: np.ndarray, b: np.ndarray, of_a: Sequence, of_b: Sequence, same: bool) -> float:
    """Every ordered pair of prompts weighs the same; a picture makes no pair with itself."""
    blocks: dict[tuple, list[float]] = {}
    for i, p in enumerate(of_a):
        for j, q in enumerate(of_b):
            if not (same and i == j):
                blocks.setdefault((p, q), []).append(kernel(a[i], b[j]))
    return float(np.mean([np.mean(block) for block in blocks.values()]))


def literal_by_prompt(x: np.ndarray, y: np.ndarray, of_x: Sequence, of_y: Sequence) -> float:
    within = literal_mean(x, x, of_x, of_x, True) + literal_mean(y, y, of_y, of_y, True)
    return within - 2 * literal_mean(x, y, of_x, of_y, False)


def test_kid_without_prompts_equals_literal_loops() -> None:
    x, y = features(7, 5, 9), features(9, 5, 10, mean=0.5)
    assert kid(x, y).value == pytest.approx(literal_mmd(x, y), rel=1e-12)


def test_kid_equals_the_libraries() -> None:
    from cleanfid.fid import kernel_distance
    from torchmetrics.image.kid import poly_mmd

    x, y = features(60, 32, 11), features(60, 32, 12, mean=0.4)
    # one subset holding everything, in another order: the same sum
    assert kid(x, y).value == pytest.approx(kernel_distance(x, y, num_subsets=1), rel=1e-10)
    theirs = poly_mmd(torch.from_numpy(x), torch.from_numpy(y))
    assert kid(x, y).value == pytest.approx(theirs.item(), rel=1e-10)


OF_X, OF_Y = list("abcabacca"), list("bbaccabcabab")  # unequal counts, not in order


@pytest.mark.parametrize("rows", [2048, 3])  # of the kernel at once
def test_kid_by_prompt_equals_literal_loops(rows, monkeypatch) -> None:
    monkeypatch.setattr(kernels, "ROWS", rows)
    x, y = features(9, 5, 9), features(12, 5, 10, mean=0.5)
    expected = literal_by_prompt(x, y, OF_X, OF_Y)
    assert kid(x, y, OF_X, OF_Y).value == pytest.approx(expected, rel=1e-12)
    order = np.random.default_rng(0).permutation(9)
    assert kid(x[order], y, [OF_X[i] for i in order], OF_Y).value == pytest.approx(expected, rel=1e-12)
    assert kid(x, y, ["p"] * 9, ["p"] * 12).value == pytest.approx(literal_mmd(x, y), rel=1e-12)


def test_the_standard_error_does_not_depend_on_how_many_rows_are_held_at_once(monkeypatch) -> None:
    x, y, names = features(12, 5, 9), features(15, 5, 10, mean=0.5), (list("abc") * 4, list("abc") * 5)
    whole = kid(x, y, *names).stderr
    monkeypatch.setattr(kernels, "ROWS", 5)
    assert kid(x, y, *names).stderr == pytest.approx(whole, rel=1e-10)


@dataclass(frozen=True)
class Population:
    """Gaussians N(m_p, s_p^2 I), evenly mixed: means (p, d) and deviations (p,) of the prompts."""

    means: np.ndarray
    deviations: np.ndarray

    def draw(self, random: np.random.Generator, each: int) -> np.ndarray:
        noise = random.standard_normal((len(self.means), each, self.means.shape[1]))
        return (self.means[:, None] + self.deviations[:, None, None] * noise).reshape(-1, self.means.shape[1])


def expected_kernel(x: Population, y: Population) -> float:
    """E (a . b / d + 1)^3 for independent a and b.

    For a ~ N(m, s^2 I) and b ~ N(u, v^2 I) the product a . b has mean m . u, variance
    s^2 |u|^2 + v^2 |m|^2 + d s^2 v^2 and third central moment 6 s^2 v^2 m . u.
    """
    d, total = x.means.shape[1], 0.0
    for m, s in zip(x.means, x.deviations, strict=True):
        for u, v in zip(y.means, y.deviations, strict=True):
            mean = float(m @ u)
            variance = s**2 * float(u @ u) + v**2 * float(m @ m) + d * s**2 * v**2
            total += (mean / d + 1) ** 3 + 3 * (mean / d + 1) * variance / d**2 + 6 * s**2 * v**2 * mean / d**3
    return total / (len(x.means) * len(y.means))


def truth(x: Population, y: Population) -> float:
    return expected_kernel(x, x) + expected_kernel(y, y) - 2 * expected_kernel(x, y)


def population(prompts: int, d: int = 64, apart: float = 0.17) -> Population:
    """With d = 64, prompts as far apart as Inception's features of the miniature's: D of about 0.09."""
    random = np.random.default_rng(5)
    return Population(random.normal(0, apart, (prompts, d)), random.uniform(0.1, 0.2, prompts))


def test_the_analytic_expectation_is_that_of_many_draws() -> None:
    x, y = population(3, d=8, apart=0.5), population(2, d=8, apart=1.0)
    random = np.random.default_rng(1)
    a, b = x.draw(random, 400_000), y.draw(random, 600_000)
    values = ((a[random.permutation(len(a))] * b[random.permutation(len(b))]).sum(axis=1) / 8 + 1) ** 3
    assert values.mean() == pytest.approx(expected_kernel(x, y), abs=4 * values.std() / np.sqrt(len(values)))


def distance_of_prompts(x: Population) -> float:
    """D, half the mean squared kernel distance between the means of two prompts."""
    each = [Population(m[None], np.array([s])) for m, s in zip(x.means, x.deviations, strict=True)]
    pairs = [truth(each[i], each[j]) for i in range(len(each)) for j in range(len(each)) if i != j]
    return float(np.mean(pairs)) / 2


@pytest.mark.parametrize(("seeds", "references"), [(10, 20), (4, 20), (2, 12), (4, 4)])
@pytest.mark.parametrize("shift", [0.0, 0.02])
def test_kid_is_unbiased_for_few_seeds_of_few_prompts(seeds, references, shift) -> None:
    """The mean of 400 draws is what it estimates, within four of its standard errors of 8e-5 at most.

    The plain U-statistic of the same draws is off by what its design says, ((r - 1) / (P r - 1) - 1 / P) D for each
    side of r seeds: by -0.0012 at 6 x 10, -0.0029 at 6 x 4, -0.0060 at 6 x 2.
    """
    reference = population(6)
    generated = Population(reference.means + shift, reference.deviations)
    random, prompts = np.random.default_rng(seeds), (np.repeat(range(6), seeds), np.repeat(range(6), references))
    draws = [(generated.draw(random, seeds), reference.draw(random, references)) for _ in range(400)]
    values, known = np.array([kid(x, y, *prompts).value for x, y in draws]), truth(generated, reference)
    error = values.std() / np.sqrt(len(values))
    assert error < 8e-5 and abs(values.mean() - known) < 4 * error
    plain = np.array([kid(x, y).value for x, y in draws[:100]])
    share = sum((r - 1) / (6 * r - 1) - 1 / 6 for r in (seeds, references))
    designed = share * distance_of_prompts(reference)
    assert plain.mean() - known == pytest.approx(designed, abs=4 * plain.std() / np.sqrt(len(plain)))
    assert designed < -1e-3


@pytest.mark.parametrize(("shift", "most"), [(1.0, 1.1), (0.2, 1.15), (0.0, 1.25)])
@pytest.mark.parametrize(("seeds", "references"), [(10, 20), (6, 10)])
def test_the_standard_error_is_the_spread_of_new_seeds(shift, most, seeds, references) -> None:
    """500 draws know a spread to 3 per cent. For distributions alike the linear part, clipped at zero, adds to it."""
    reference = Population(population(6, d=16, apart=0.5).means, np.linspace(0.4, 0.7, 6))
    generated = Population(reference.means + shift, reference.deviations)
    random, prompts = np.random.default_rng(seeds), (np.repeat(range(6), seeds), np.repeat(range(6), references))
    found = [kid(generated.draw(random, seeds), reference.draw(random, references), *prompts) for _ in range(500)]
    spread = np.std([each.value for each in found])
    assert 0.9 < np.sqrt(np.mean([each.stderr**2 for each in found])) / spread < most
    assert 0.8 < np.median([each.stderr for each in found]) / spread < 1.12


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_kid_of_one_prompt_has_a_known_value_and_standard_error(shift) -> None:
    """N(0, I) against N(b, I): with B = |b|^2 the squared MMD of the cubic kernel is

    3B/d + 3B^2/d^2 + (B^3 + 6B^2 + 3B(d + 2))/d^3, whatever n (third moments of x . y).
    """
    d, runs = 8, 500
    b = d * shift**2
    expected = 3 * b / d + 3 * b**2 / d**2 + (b**3 + 6 * b**2 + 3 * b * (d + 2)) / d**3
    estimates = [kid(features(60, d, 2 * i), features(80, d, 2 * i + 1, shift)) for i in range(runs)]
    values = np.array([estimate.value for estimate in estimates])
    assert abs(values.mean() - expected) < 4 * values.std() / np.sqrt(runs)
    estimated = np.sqrt(np.mean([estimate.stderr**2 for estimate in estimates]))
    # 500 runs know a deviation to 3 per cent; the jackknife was off by sqrt(2) at shift 0
    assert estimated / values.std() == pytest.approx(1.1 if shift == 0 else 1, abs=0.15 if shift == 0 else 0.12)


def test_the_mean_square_of_a_kernel_is_unbiased() -> None:
    """Of rows N(u, I) of width d the centred linear kernel has mean square d: 600 samples of 4, 5 and 9 rows."""
    random, d = np.random.default_rng(2), 5
    for n in (4, 5, 9):
        found, groups = [], kernels.Groups.of([0] * n)
        for _ in range(600):
            rows = random.standard_normal((n, d)) + 3
            found.append(kernels.within(lambda i, j, rows=rows: rows[i] @ rows[j].T, groups).squares[0, 0])
        assert np.mean(found) == pytest.approx(d, abs=4 * np.std(found) / np.sqrt(len(found)))


OF_PAIRS = list("abcabc")


def test_the_difference_and_its_test_are_those_of_all_swaps_by_hand() -> None:
    a, b, y = features(6, 5, 1), features(6, 5, 2, mean=0.4), features(12, 5, 3)
    differences = []
    for pattern in product((False, True), repeat=6):
        swapped = np.array(pattern)[:, None]
        both = np.where(swapped, b, a), np.where(swapped, a, b)
        differences.append(np.subtract(*(literal_by_prompt(each, y, OF_PAIRS, OF_Y) for each in both)))
    found = kid_difference(a, b, y, OF_PAIRS, OF_Y)
    assert found.value == pytest.approx(differences[0], rel=1e-10)
    assert found.p == np.mean(np.abs(differences) >= abs(differences[0]) * (1 - 1e-9))
    assert (found.n, found.stderr) == (6, None)  # two of a prompt are too few for a standard error
    more = [np.concatenate([each, each + 0.1]) for each in (a, b)]
    enough = kid_difference(*more, np.concatenate([y, y]), OF_PAIRS * 2, OF_Y * 2)
    assert enough.p == pytest.approx(2 * stats.t.sf(abs(enough.value) / enough.stderr, 12 - 3), rel=1e-10)
    assert found.value == pytest.approx(kid(a, y, OF_PAIRS, OF_Y).value - kid(b, y, OF_PAIRS, OF_Y).value, rel=1e-10)


def test_sets_that_differ_at_equal_distance_are_not_told_apart_by_their_kid() -> None:
    """Mirror images of each other about the reference: labels matter, KIDs are the same. 400 draws know a share of
    0.05 to 0.01; the t test of an error that is a little too large refuses less often than at its level."""
    prompts, seeds, d = 4, 8, 16
    random, found = np.random.default_rng(5), []
    names = np.repeat(range(prompts), seeds), np.repeat(range(prompts), 20)
    for _ in range(400):
        noise = [0.5 * random.standard_normal((prompts * seeds, d)) for _ in range(2)]
        y = 0.5 * random.standard_normal((prompts * 10, d))
        found.append(kid_difference(noise[0] + 0.3, noise[1] - 0.3, np.concatenate([y, -y]), *names).p)
    assert np.mean(np.array(found) <= 0.05) < 0.08


@pytest.mark.parametrize(("apart", "most"), [(0.0, 1.25), (0.3, 1.15), (1.0, 1.1)])
def test_the_standard_error_of_a_difference_is_its_spread(apart, most) -> None:
    """Pairs share half of their noise. 500 draws know a spread to 3 per cent, a share of 0.05 to 0.01."""
    prompts, seeds, d = 4, 8, 16
    means = population(prompts, d, apart=0.5).means
    random, found = np.random.default_rng(3), []
    names = np.repeat(range(prompts), seeds), np.repeat(range(prompts), 20)
    for _ in range(500):
        shared = means[:, None] + 0.4 * random.standard_normal((prompts, seeds, d))
        a, b = (shared + 0.4 * random.standard_normal(shared.shape) for _ in range(2))
        y = means[:, None] + 0.56 * random.standard_normal((prompts, 20, d))
        found.append(kid_difference(*(values.reshape(-1, d) for values in (a + apart, b, y)), *names))
    spread = np.std([each.value for each in found])
    assert 0.9 < np.sqrt(np.mean([each.stderr**2 for each in found])) / spread < most
    share = np.mean([each.p <= 0.05 for each in found])
    assert share == pytest.approx(0.05, abs=0.03) if apart == 0 else share > 0.9


def test_what_cannot_be_compared_is_refused() -> None:
    x, y = features(1, 4, 17), features(5, 4, 18)
    with pytest.raises(ValueError, match="1 generated and 5 reference rows"):
        kid(x, y)
    with pytest.raises(ValueError, match="shapes"):
        kid(features(5, 3, 19), y)
    with pytest.raises(ValueError, match="two of every prompt"):
        kid(features(3, 4, 19), y, list("aab"), list("aabbb"))
    y[1] = np.inf
    with pytest.raises(ValueError, match="reference row 1"):
        kid(features(3, 4, 19), y)
    assert kid(features(3, 4, 21), features(5, 4, 18)).stderr is None
