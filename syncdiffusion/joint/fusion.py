"""Windows averaged with weights, for methods that average noise predictions rather than what comes after a step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from syncdiffusion.geometry.windows import Windows
    from syncdiffusion.joint.loop import Predict
    from syncdiffusion.joint.task import Step, Task


def fused_prediction(task: Task, weights: Tensor) -> Predict:
    """A `predict` of the loop: every window gets its part of the canvas's prediction.

    The canvas's prediction is the mean of the windows', weighted by `weights` [size, size]. So windows that agree on a
    cell before a step agree after it, and to average them is to take one step with the whole canvas.
    """

    def predict(step: Step, windows: Windows, views: Tensor) -> Tensor:
        noise = task.predict_noise(step, windows, views)
        with torch.no_grad():
            return windows.crop(windows.fuse(noise, weights))

    return predict
