"""Seed-LPIPS: how far the panoramas that a method makes of one prompt differ from seed to seed. Higher: more diverse.

This project's own metric. LPIPS-VGG between two panoramas of one prompt and method, square by square at the same
place of the grid that Intra-LPIPS cuts: the mean over squares, over the pairs of `experiments.metrics.pairs`, and over
prompts. From 0, where every seed gives the same picture: a method that always made one coherent panorama would win
Intra-LPIPS and lose here. It is no measure of quality: noise is diverse, so read it beside FID or KID.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from experiments.metrics.coherence import PairNetwork
from experiments.metrics.crops import grid_crops
from experiments.metrics.metric import Metric, PairMetric

if TYPE_CHECKING:
    from experiments.metrics.config import MetricsConfig
    from experiments.metrics.measure import ImageFile

KEPT = 3  # images whose features of a square are held: a pair's, and one that a later pair asks for
NOTE = (
    "Seed-LPIPS is this project's own metric: LPIPS between panoramas of one prompt and method, square by square. Low: "
    "all seeds give much the same picture."
)


def aligned_distances(
    files: Mapping[int, ImageFile], pairs: Sequence[tuple[int, int]], network: PairNetwork, config: MetricsConfig
) -> list[np.ndarray]:
    """Of each pair of seeds the LPIPS of its k squares, (k,) float64; a square at a time goes through the network."""
    import torch

    loss = network.load()
    device = next(loss.trunk.parameters()).device
    squares = {seed: grid_crops(files[seed].pixels, config.crop) for seed in dict.fromkeys(sum(pairs, ()))}
    found = [np.empty(len(squares[first])) for first, _ in pairs]
    with torch.inference_mode():
        for place in range(max(map(len, squares.values()))):
            kept: dict[int, list[torch.Tensor]] = {}
            for values, pair in zip(found, pairs, strict=True):
                if place >= len(values):
                    continue
                for seed in pair:
                    if seed not in kept:
                        image = torch.from_numpy(squares[seed][place].copy()).permute(2, 0, 1)[None].float() / 255
                        kept[seed] = loss.features(image.to(device))
                values[place] = float(loss.distance(kept[pair[0]], kept[pair[1]]).double())
                for seed in [each for each in kept if each not in pair][: max(0, len(kept) - KEPT)]:
                    del kept[seed]
    return found


METRIC = PairMetric(
    name="seed_lpips",
    place=75,
    version=1,
    network="lpips",
    column=Metric("seed_lpips", "Seed-LPIPS", "higher", per_panorama=False, note=NOTE),
    parameters=lambda config: {"crop": config.crop},
    compute=aligned_distances,
)
