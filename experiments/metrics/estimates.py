"""What a metric of a whole set is given, and what it gives back. NumPy alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from experiments.results.inference import stratified_error, t_p, unpaired_comparison

SHUFFLES = 499  # of labels within prompts: each asks for both estimates anew
ROUNDING = 1e-9  # what float64 leaves of two ways that come to the same


@dataclass(frozen=True)
class Estimate:
    """A value with its standard error, None where there is no honest one."""

    value: float
    stderr: float | None


@dataclass(frozen=True)
class Difference:
    """The metric of one set less that of another, over n pairs of the same prompt and noise; without pairs, n images
    of both together.

    stderr: None where there is no honest one. p: two-sided; of a number without a standard error, of the hypothesis
    that the two labels of each pair, or of all images of a prompt, might as well be swapped. NaN where they are too few
    for any test. freedom: degrees of freedom of the error, where they are not those that n and the prompts make.
    """

    value: float
    stderr: float | None
    p: float
    n: int
    freedom: float | None = None


@dataclass(frozen=True)
class ImageSet:
    """Features of images, (n, d) or (n, k, d) of k crops each, and the prompt of each.

    Where images have different numbers of crops, an array of n objects, (k_i, d) each.
    """

    features: np.ndarray
    prompts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.prompts)

    def part(self, indices: Sequence[int]) -> ImageSet:
        chosen = self.features[list(indices)]
        features = stacked(list(chosen)) if chosen.dtype == object else chosen
        return ImageSet(features, tuple(self.prompts[i] for i in indices))

    def and_also(self, other: ImageSet) -> ImageSet:
        return ImageSet(stacked([*self.features, *other.features]), self.prompts + other.prompts)


def stacked(values: Sequence[np.ndarray]) -> np.ndarray:
    """Arrays as one, along a new first axis; as an array of objects where their shapes differ."""
    if len({np.shape(each) for each in values}) < 2:
        return np.array(values)
    found = np.empty(len(values), dtype=object)
    found[:] = values
    return found


def mean_estimate(values: np.ndarray) -> Estimate:
    """Mean of independent values and its standard error (None for a single value)."""
    return stratified_mean(values, ("",) * np.size(values))


def stratified_mean(values: np.ndarray, prompts: Sequence[str]) -> Estimate:
    """Mean of values and its standard error over new seeds of the same prompts, (n,) and (n,).

    Prompts are fixed, so only the spread within each counts: the variance of the mean is the sum of r s^2 / n^2 over
    prompts with r values and variance s^2. A prompt of one value is taken to spread as the others do on the mean.
    None where no prompt has two values.

    Raises:
        ValueError: no values.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.size == 0:
        raise ValueError("the mean of no values")
    groups = [values[[each == prompt for each in prompts]] for prompt in dict.fromkeys(prompts)]
    freedom = sum(group.size - 1 for group in groups)
    if not freedom:
        return Estimate(float(values.mean()), None)
    pooled = sum(np.square(group - group.mean()).sum() for group in groups) / freedom
    variance = sum(group.size * (group.var(ddof=1) if group.size > 1 else pooled) for group in groups)
    return Estimate(float(values.mean()), float(np.sqrt(variance) / values.size))


def unpaired_difference(
    ours: ImageSet, theirs: ImageSet, estimate: Callable[[ImageSet], Estimate], seed: int = 0
) -> Difference:
    """The metric of one set less that of another, of independent images of the same prompts.

    stderr: of both estimates together. What they share, the reference images above all, is counted twice, which makes
    it too large, never too small. p: Student's, of the difference and that error, with Welch and Satterthwaite's
    degrees of freedom, those of each side its images less its prompts. Where there is none: the share of SHUFFLES
    random ways to deal the labels anew among the images of each prompt whose difference is as large or larger, either
    way round, with the observed one counted among them; each method keeps its number of images of each prompt.
    """
    mine, other = estimate(ours), estimate(theirs)
    value = mine.value - other.value
    errors = (mine.stderr, other.stderr)
    stderr = None if None in errors else float(np.hypot(*errors))
    if stderr:
        free = [len(each) - len(set(each.prompts)) for each in (ours, theirs)]
        parts = [error**4 / count for error, count in zip(errors, free, strict=True) if error and count]
        freedom = float(stderr**4 / sum(parts)) if parts else 0.0
        return Difference(value, stderr, t_p(value, stderr, freedom), len(ours) + len(theirs), freedom)
    both = ours.and_also(theirs)
    rng, labels = np.random.default_rng(seed), np.arange(len(both)) < len(ours)
    groups = [np.array([i for i, each in enumerate(both.prompts) if each == p]) for p in dict.fromkeys(both.prompts)]
    as_large = 1
    for _ in range(SHUFFLES):
        dealt = labels.copy()
        for group in groups:
            dealt[group] = rng.permutation(labels[group])
        parts = (both.part(np.flatnonzero(dealt).tolist()), both.part(np.flatnonzero(~dealt).tolist()))
        found = estimate(parts[0]).value - estimate(parts[1]).value
        as_large += abs(found) >= abs(value) * (1 - ROUNDING)
    return Difference(value, stderr, as_large / (SHUFFLES + 1), len(both))


def unpaired_means(ours: ImageSet, theirs: ImageSet, numbers: Callable[[ImageSet], np.ndarray]) -> Difference:
    """The same of a metric that is the mean of `numbers`, one of each image: compared as a panorama's numbers are.

    Every prompt weighs the same, however many images it has of either side. So a method with more images of a prompt
    that is easy has no advantage.
    """
    prompts = [prompt for prompt in dict.fromkeys(ours.prompts) if prompt in theirs.prompts]
    sides = []
    for each in (ours, theirs):
        found, own = numbers(each), np.array(each.prompts)
        sides.append({prompt: found[own == prompt] for prompt in prompts})
    compared = unpaired_comparison(*sides)
    error, freedom = stratified_error([(sides[0][prompt], sides[1][prompt]) for prompt in prompts])
    stderr = None if np.isnan(error) else error
    return Difference(compared.difference, stderr, compared.p, compared.n, freedom)


def checked_features(generated: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64.

    Raises:
        ValueError: fewer than two rows, unequal d, or a value that is no finite number.
    """
    x, y = np.asarray(generated, np.float64), np.asarray(reference, np.float64)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"features of shapes {x.shape} and {y.shape}: (n, d) and (m, d) wanted")
    if min(len(x), len(y)) < 2:
        raise ValueError(f"{len(x)} generated and {len(y)} reference rows: two of each at least")
    for name, rows in (("generated", x), ("reference", y)):
        bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if bad.size:
            raise ValueError(f"{name} row {bad[0]} holds a value that is no finite number")
    return x, y
