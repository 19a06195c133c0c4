"""Layout-LPIPS: how different the parts of one panorama are in layout alone, whatever their colours.

This project's own metric, not the paper's. A method that pulls all windows toward one anchor can copy the anchor's
layout into every window: then Intra-LPIPS falls, though the panorama merely repeats itself. Layout-LPIPS is the mean
LPIPS-VGG of the same pairs of the same crops after `without_tone`, and is low where the parts repeat one layout; higher
is better. Parts that have nothing to do with each other have a high one too: it is to be read beside Intra-LPIPS, not
in its place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from experiments.metrics.coherence import TWO_CROPS, pair_measurement
from experiments.metrics.metric import Metric, PanoramaMetric

if TYPE_CHECKING:
    from torch import Tensor

LUMA = (0.2126, 0.7152, 0.0722)  # Rec. 709's weights of red, green and blue
TONE_MEAN, TONE_DEVIATION = 0.5, 0.2
# Deviation up to which a crop is constant. Rounding makes 1e-16 of nothing; the least that 8 bits can differ by, one
# level of blue in one pixel of 512×512, makes 5e-7.
FLAT = 1e-9

NOTE = (
    "Layout-LPIPS is this project's own metric, not the paper's: LPIPS between the crops of Intra-LPIPS without their "
    "colour and tone (luminance, mean 0.5, deviation 0.2). Low: the parts repeat one layout, which Intra-LPIPS rewards."
)


def without_tone(images: Tensor) -> Tensor:
    """(n, 3, h, w) in [0, 1] -> the same shape and range, grey: what is left of each image without colour and tone.

    Luminance by Rec. 709, of the sRGB values as they are (luma, not linear light), brought to mean TONE_MEAN and
    standard deviation TONE_DEVIATION over the image's own pixels, clamped, and repeated to three channels. A constant
    image becomes TONE_MEAN everywhere. So a gain that all channels share and an offset to each change nothing; other
    gains for each channel weigh what differs in hue otherwise, and change a little.
    """
    import torch

    values = images.double()  # in float32 the rounding of a constant image would be taken for its content
    luma = (values * values.new_tensor(LUMA)[:, None, None]).sum(dim=1, keepdim=True)
    centred = luma - luma.mean(dim=(2, 3), keepdim=True)
    deviation = centred.square().mean(dim=(2, 3), keepdim=True).sqrt()
    standard = torch.where(deviation > FLAT, centred / deviation, 0.0)
    return (TONE_MEAN + TONE_DEVIATION * standard).clamp(0, 1).to(images.dtype).expand(-1, 3, -1, -1)


METRIC = PanoramaMetric(
    name="layout_lpips",
    place=70,
    measurement=pair_measurement("layout_lpips", 1, "lpips", without_tone),
    numbers={Metric("layout_lpips", "Layout-LPIPS", "higher", per_panorama=True, note=NOTE, panel=30): np.mean},
    takes=TWO_CROPS,
)
