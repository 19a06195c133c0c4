"""What a metric is made of. Nothing here imports torch.

A metric is one file: its name in the configuration, its numbers as tables show them, the network that it looks through,
what its values depend on, and how they are computed. See `definitions` for those there are and `register` in
`catalogue` for one from elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.metrics.estimates import Difference, Estimate, ImageSet

if TYPE_CHECKING:
    from experiments.metrics.config import MetricsConfig
    from experiments.metrics.measure import ImageFile, PanoramaImage


@dataclass(frozen=True)
class Metric:
    """One number, as tables and figures show and read it.

    better: "lower" or "higher". per_panorama: a mean over panoramas, else a number of the whole set.
    note: the sentence that a table explains it with, where its name says nothing to a reader of the paper.
    depends_on_n: it depends on how many images there are (FID falls), so n stands beside it and unequal n do not
    compare.
    flips: of a set, yet the mean of a number of each image, whose differences are tested as a panorama's are.
    multiple_of: another metric that it is a fixed multiple of: it is not tested again.
    unit: what a table divides it by. highest: of a row the highest is shown, not the mean.
    published_as: the name it has in results/published, "" for its own. ambiguous: what keeps a published number of this
    name from ever being the same.
    panel: its place among the panels of a figure, None for no panel. coherence: what joint diffusion is for, the first
    of these by panel in the trade-off. headline: the set's number in the trade-off.
    """

    name: str
    display: str
    better: str
    per_panorama: bool
    note: str = ""
    depends_on_n: bool = False
    flips: bool = False
    multiple_of: str = ""
    unit: float = 1
    highest: bool = False
    published_as: str = ""
    ambiguous: str = ""
    panel: int | None = None
    coherence: bool = False
    headline: bool = False

    def __post_init__(self) -> None:
        if self.better not in ("lower", "higher"):
            raise ValueError(f"better={self.better} of the metric {self.name}: lower or higher")


@dataclass(frozen=True)
class Measurement:
    """An array of numbers for each image, computed once and kept by content.

    version: raise it when the values change for the same image, network and parameters: all is then measured again.
    network: a name in `networks`, None for what needs only the picture. The rest is given the network itself.
    parameters: what else decides the values, beside the file's bytes. Device and batch size do not: they change values
        within float tolerance.
    compute: files -> their values. Scoring gives it one file at a time, so that no value depends on its company.
    """

    name: str
    version: int
    network: str | None
    parameters: Callable[[PanoramaImage, MetricsConfig], Mapping[str, Any]]
    compute: Callable[[Sequence[ImageFile], Any, MetricsConfig], Sequence[np.ndarray]]
    code: str = ""  # of a plugin's, the digest of its file, so that an edited one measures again


@dataclass(frozen=True)
class PanoramaMetric:
    """A metric of single panoramas; a set has their mean.

    name: its word in `metrics.metrics`. place: where its columns stand in tables, from left to right.
    numbers: each column, and the number that it makes of a panorama's values; there is none of no values.
    chosen: which columns it yields through a network; all where none is given.
    on_request: only where it is named: not everyone has its network, the time for it, or what it is about.
    takes: what a picture must have for a number, in words for a user who gets none; "" where every picture has it.
    """

    name: str
    place: float
    measurement: Measurement
    numbers: Mapping[Metric, Callable[[np.ndarray], float]]
    chosen: Callable[[Any], Sequence[str]] | None = None
    on_request: bool = False
    takes: str = ""

    @property
    def columns(self) -> tuple[Metric, ...]:
        return tuple(self.numbers)

    def columns_through(self, network: Any) -> dict[str, Callable[[np.ndarray], float]]:
        """Column -> how its number comes of the values, for this network."""
        names = [each.name for each in self.numbers] if self.chosen is None else self.chosen(network)
        return {each.name: number for each, number in self.numbers.items() if each.name in names}


@dataclass(frozen=True)
class SetMetric:
    """A metric of a whole set of images against a reference set, from one measurement of each image.

    enough: whether (generated, reference) have as many images as it takes.
    estimate: (generated, reference) -> value and standard error.
    compare: (ours, theirs, reference), the first two in pairs -> ours less theirs, with the test by label swaps.
    numbers: (images, reference) -> a number of each image, of a metric that is their mean (`flips`).
    on_request: only where it is named: not everyone has its network, the time for it, or what it is about.
    """

    name: str
    place: float
    measurement: Measurement
    column: Metric
    enough: Callable[[ImageSet, ImageSet, MetricsConfig], bool]
    estimate: Callable[[ImageSet, ImageSet, MetricsConfig], Estimate]
    compare: Callable[[ImageSet, ImageSet, ImageSet, MetricsConfig], Difference]
    numbers: Callable[[ImageSet, ImageSet, MetricsConfig], np.ndarray] | None = None
    on_request: bool = False
    takes = "more pictures of a method, or more reference images of every prompt (reference.count)"

    @property
    def columns(self) -> tuple[Metric, ...]:
        return (self.column,)


@dataclass(frozen=True)
class PairMetric:
    """A metric of pairs of panoramas of one method and prompt, a number of the whole set; see `pairs`.

    version, network, parameters, code: as of a Measurement.
    compute: (seed -> image, pairs of seeds) -> the values of each.
    """

    name: str
    place: float
    version: int
    network: str
    column: Metric
    parameters: Callable[[MetricsConfig], Mapping[str, Any]]
    compute: Callable[[Mapping[int, ImageFile], Sequence[tuple[int, int]], Any, MetricsConfig], Sequence[np.ndarray]]
    on_request: bool = False
    code: str = ""
    takes = "two seeds of a prompt"

    @property
    def columns(self) -> tuple[Metric, ...]:
        return (self.column,)

    @property
    def measurement(self) -> Measurement:
        """What decides a pair's values; it is not computed image by image."""

        def compute(*words: Any) -> Sequence[np.ndarray]:
            raise NotImplementedError(f"{self.name} is of pairs of images")

        def parameters(item: PanoramaImage, config: MetricsConfig) -> Mapping[str, Any]:
            return self.parameters(config)

        return Measurement(self.name, self.version, self.network, parameters, compute, self.code)


AnyMetric = PanoramaMetric | SetMetric | PairMetric
