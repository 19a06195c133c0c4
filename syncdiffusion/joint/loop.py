"""The one denoising loop that every joint-diffusion method shares, open at every place where methods differ.

As it stands, with no place filled in, it is MultiDiffusion (Bar-Tal et al., ICML 2023): cut windows out of the canvas,
one step of the sampler each, average. A method fills in what it changes and says nothing of the rest:

    start     the canvas that sampling begins with                  style-aligned noise
    schedule  the steps, which may go back up                       RePaint, CDGS
    windows   which windows a step has                              SpotDiffusion, TwinDiffusion
    before    what happens to the windows before their noise        SyncDiffusion
    predict   how their noise is predicted                          MAD, SyncTweedies, DiffCollage
    after     what happens to them once their noise is known        profile matching
    advance   how a step goes from noise to less noise              SyncTweedies
    fuse      how windows become a canvas again                     GVCF, Mixture of Diffusers, SaFa
    canvas    what happens to the canvas before the next step       re-noising, swaps

What all methods have in common is the task's: the sampler (`joint.sampler`), a picture that the canvas starts from and
whose parts a mask may keep (`joint.start`), and how often it then goes back up the noise levels (`joint.resampling`).

Shapes: a canvas is [n, c, h, w], windows are [n, N, c, s, s].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from syncdiffusion.geometry.windows import Windows
from syncdiffusion.joint.task import Step, Task

ChooseWindows = Callable[[Step], Windows]
Before = Callable[[Step, Tensor], Tensor]  # (step, windows) -> windows
Predict = Callable[[Step, Windows, Tensor], Tensor]  # (step, where they lie, windows) -> their noise
After = Callable[[Step, Tensor, Tensor], Tensor]  # (step, windows, their noise) -> windows, of the same noise
Advance = Callable[[Step, Tensor, Tensor], Tensor]  # (step, windows, their noise) -> windows with less noise
Fuse = Callable[[Step, Windows, Tensor], Tensor]  # (step, where they lie, windows) -> canvas
Canvas = Callable[[Step, Tensor], Tensor]  # (step, canvas) -> canvas


def denoise(
    task: Task,
    windows: Windows | ChooseWindows,
    *,
    start: Tensor | None = None,
    schedule: Sequence[Step] | None = None,
    before: Before | None = None,
    predict: Predict | None = None,
    after: After | None = None,
    advance: Advance | None = None,
    fuse: Fuse | None = None,
    canvas: Canvas | None = None,
) -> Tensor:
    """Denoise all windows of all canvases together; see the module for what can be filled in.

    Returns:
        the denoised canvases [n, c, h, w] on the backbone's device.
    """
    predict, advance = predict or task.predict_noise, advance or task.advance
    x = task.noise if start is None else start
    way = task.way if schedule is None else tuple((step, ()) for step in schedule)
    for number, (step, back) in enumerate(way):
        placed = windows if isinstance(windows, Windows) else windows(step)
        task.sampler.place(placed)
        views = placed.crop(x)
        if before is not None:
            views = before(step, views)
        views = task.keep(task.signal(step), views, placed)
        noise = predict(step, placed, views)
        with torch.no_grad():
            if after is not None:
                views = task.keep(task.signal(step), after(step, views, noise), placed)
            views = advance(step, views, noise)
            x = placed.fuse(views) if fuse is None else fuse(step, placed, views)
            if canvas is not None:
                x = canvas(step, x)
            x = task.keep(task.signal_after(step), x)
        x = task.told(step if schedule is not None else replace(step, index=number, count=len(way)), x)
        x = task.climb(x, back)
    return task.keep(None, x)
