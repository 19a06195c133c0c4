"""How much the parts of one panorama look alike: Intra-LPIPS and Intra-Style-L, and in layout alone: Layout-LPIPS.

Layout-LPIPS is this project's own metric, not the paper's. A method that pulls all windows toward one anchor can copy
the anchor's layout into every window: then Intra-LPIPS falls, though the panorama merely repeats itself. Layout-LPIPS
is the mean LPIPS-VGG of the same pairs of the same crops after `without_tone`, and is low where the parts repeat one
layout, whatever their colours; higher is better. Parts that have nothing to do with each other have a high one too: it
is to be read beside Intra-LPIPS, not in its place.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from syncdiffusion.perceptual.distances import PerceptualLoss

LUMA = (0.2126, 0.7152, 0.0722)  # Rec. 709's weights of red, green and blue
TONE_MEAN, TONE_DEVIATION = 0.5, 0.2
# Deviation up to which a crop is constant. Rounding makes 1e-16 of nothing; the least that 8 bits can differ by, one
# level of blue in one pixel of 512×512, makes 5e-7.
FLAT = 1e-9


@dataclass(frozen=True)
class PairNetwork:
    """The network of one intra metric. network: provenance, known before `load` gives the distance itself."""

    network: str
    load: Callable[[], PerceptualLoss]


def pair_distances(
    loss: PerceptualLoss,
    crops: Sequence[np.ndarray],
    batch: int,
    prepare: Callable[[Tensor], Tensor] | None = None,
) -> np.ndarray:
    """Distances of all pairs i < j of k crops, (k (k - 1) / 2,) float64, in that order.

    crops: (size, size, 3) uint8, all of one size. The network sees each crop once, `batch` at a
    time; the pairs are differences of features. Six crops give the paper's 15 pairs.
    prepare: what is done to the crops first, (k, 3, size, size) float32 in [0, 1] -> the same.
    """
    device = next(loss.trunk.parameters()).device
    with torch.inference_mode():
        images = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255
        images = images if prepare is None else prepare(images)
        parts = [loss.features(part.to(device)) for part in images.split(batch)]
        layers = [torch.cat(layer) for layer in zip(*parts, strict=True)]
        rows = [loss.distance(_rows(layers, i, i + 1), _rows(layers, i + 1, len(crops))) for i in range(len(crops) - 1)]
        return torch.cat([row.double().cpu() for row in rows]).numpy() if rows else np.empty(0)


def without_tone(images: Tensor) -> Tensor:
    """(n, 3, h, w) in [0, 1] -> the same shape and range, grey: what is left of each image without colour and tone.

    Luminance by Rec. 709, of the sRGB values as they are (luma, not linear light), brought to mean TONE_MEAN and
    standard deviation TONE_DEVIATION over the image's own pixels, clamped, and repeated to three channels. A constant
    image becomes TONE_MEAN everywhere. So a gain that all channels share and an offset to each change nothing; other
    gains for each channel weigh what differs in hue otherwise, and change a little.
    """
    values = images.double()  # in float32 the rounding of a constant image would be taken for its content
    luma = (values * values.new_tensor(LUMA)[:, None, None]).sum(dim=1, keepdim=True)
    centred = luma - luma.mean(dim=(2, 3), keepdim=True)
    deviation = centred.square().mean(dim=(2, 3), keepdim=True).sqrt()
    standard = torch.where(deviation > FLAT, centred / deviation, 0.0)
    return (TONE_MEAN + TONE_DEVIATION * standard).clamp(0, 1).to(images.dtype).expand(-1, 3, -1, -1)


def _rows(layers: list[Tensor], start: int, stop: int) -> list[Tensor]:
    return [layer[start:stop] for layer in layers]
