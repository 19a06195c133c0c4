"""CDGS, compositional diffusion with guided search (ICLR 2026, arXiv 2601.00126).

The code for images was not available; the rule is that of the authors' toy example in two dimensions
(cdgsearch/getting_started_with_CDGS@1d015e4). Several candidates of a canvas are denoised beside each other, with noise
predictions averaged where windows overlap, and two things are added:

1. Resampling. A step is taken `repeats` times; after each but the last its way is gone back with fresh noise,
   x <- sqrt(a) · x + sqrt(1 - a) · z,  a = alpha_bar / alpha_bar'. Not in the first step, nor in the last.
2. Pruning, between a tenth and nine tenths of the steps, before a step's way is gone back for the last time, so that
   what is there twice parts again. What each window of a candidate foresees is brought up to noise again by DDIM
   inversion over T / 20 steps; the score is the Euclidean norm of all changes of the predicted noise on the way,
   averaged over windows. Low is good: likely windows have straight paths. With r = min(1, (deviation / mean / 0.15)^2)
   of a panorama's scores, the best 1 - r · (1 - keep) of its candidates, cut to a whole number, stay and take the
   others' places in turn.

The panorama is what came of the candidate that was best at the last pruning. `candidates` and `repeats` for images are
not known; the defaults are this project's. The released toy repeats the first and last step without going back, which
takes them too often; it samples by DDPM; and its inversion ends a prediction earlier, where below 40 steps nothing
changes and all scores are 0. Windows overlap by half, as in the paper. The paper's formula for the score, an aggregate
of exponentials, contradicts its own text; the toy example's is followed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from baselines.blended_latent import corners, hop_of
from syncdiffusion.cost import NetworkCalls, Square, joint_calls
from syncdiffusion.errors import UsageError
from syncdiffusion.method import Method
from syncdiffusion.method_settings import SamplingSettings, whole_steps, window_batch_setting
from syncdiffusion.settings import setting

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from syncdiffusion.geometry.windows import Windows
    from syncdiffusion.joint.task import Step, Task

SPREAD = 0.15  # deviation over mean of scores at which as few candidates stay as may


@dataclass(frozen=True)
class CdgsSettings(SamplingSettings):
    """Settings of one panorama by CDGS."""

    overlap: float = setting(0.5, "share of a window that it has in common with the next", above=0, below=1)
    candidates: int = setting(4, "canvases of which the best are gone on with", least=1)
    repeats: int = setting(2, "how often a step is taken, from fresh noise; 1 is once", least=1)
    keep: float = setting(0.2, "least share of the candidates that a pruning leaves", above=0, most=1)
    window_batch: int | str = window_batch_setting()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.candidates > 1 and self.repeats < 2:
            raise UsageError(
                f"repeats={self.repeats}: without going back no candidate is pruned; use 2, or candidates=1"
            )

    def repeated(self, index: int) -> int:
        """How often step `index` is taken."""
        return self.repeats if 0 < index < self.steps - 1 else 1

    def prunes(self, index: int) -> bool:
        """Whether step `index` has a pruning, before its last repeat."""
        return self.candidates > 1 and self.repeated(index) > 1 and 0.1 * self.steps < index < 0.9 * self.steps

    @property
    def climb(self) -> int:
        """Steps of the inversion that scores a candidate."""
        return max(1, self.steps // 20)


def sample(task: Task, settings: CdgsSettings) -> Tensor:
    """Denoised canvases [n, c, h, w]; UsageError for a canvas that the windows cannot cover.

    `on_step` is told of a step once, after its last repeat, and shown the first of the candidates.
    """
    import torch

    from syncdiffusion.joint.loop import denoise
    from syncdiffusion.joint.noise import draw_normal, noised

    windows, count = task.windows(hop_of(settings, task.backbone.window)), settings.candidates
    generators, shape = task.generators("candidates"), task.noise.shape[1:]

    def fresh(number: int) -> Tensor:
        """[n · number, c, h, w]."""
        return draw_normal(generators, (number, *shape)).flatten(0, 1).to(task.noise)

    others = fresh(count - 1).unflatten(0, (-1, count - 1)) if count > 1 else task.noise[:, None][:, :0]
    start = torch.cat([task.noise[:, None], others], dim=1).flatten(0, 1)
    taken, foreseen = 0, windows.crop(start)

    def predict(step: Step, placed: Windows, views: Tensor) -> Tensor:
        nonlocal foreseen
        noise = placed.crop(placed.fuse(predicted(task, step, placed, views, count)))
        foreseen = task.foresee(step, views, noise)
        return noise

    def canvas(step: Step, x: Tensor) -> Tensor:
        nonlocal taken
        taken += 1
        again = settings.repeated(step.index) - taken
        if again:
            x = pruned(x) if again == 1 and settings.prunes(step.index) else x
            return noised(x, fresh(count), task.signal(step) / task.signal_after(step))
        taken = 0
        each = x.unflatten(0, (-1, count))
        first = task.told(step, each[:, 0])
        return torch.cat([first[:, None], each[:, 1:]], dim=1).flatten(0, 1)

    def pruned(x: Tensor) -> Tensor:
        scores = roughness(task, windows, foreseen, settings.climb, count)
        chosen = torch.stack([survivors(each, settings.keep) for each in scores.cpu()]).to(x.device)
        rows = (torch.arange(len(chosen), device=x.device)[:, None] * count + chosen).flatten()
        task.sampler.take(rows)
        return x[rows]

    schedule = [step for step in task.steps for _ in range(settings.repeated(step.index))]
    found = denoise(task.quiet(), windows, start=start, schedule=schedule, predict=predict, canvas=canvas)
    return found.unflatten(0, (-1, count))[:, 0]


def predicted(task: Task, step: Step, windows: Windows, views: Tensor, count: int) -> Tensor:
    """Noise of all windows [n · count, N, c, s, s]; to the task, a panorama's candidates are further windows of it."""
    together = replace(windows, corners=windows.corners * count)
    return task.predict_noise(step, together, views.view(-1, len(together), *views.shape[2:])).view_as(views)


def roughness(task: Task, windows: Windows, x0: Tensor, climb: int, count: int) -> Tensor:
    """How much predicted noise changes while foreseen windows [n · count, N, c, s, s] are inverted, [n, count]."""
    import torch

    from syncdiffusion.joint.noise import noised

    rising = task.steps[::-1][: climb + 1]
    x, noises = x0, [predicted(task, rising[0], windows, x0, count)]
    for below, step in zip(rising, rising[1:], strict=False):  # along the noise of the one below to where `step` begins
        x = noised(task.foresee(below, x, noises[-1]), noises[-1], task.signal(step))
        noises.append(predicted(task, step, windows, x, count))
    changes = torch.stack(noises).diff(dim=0).square().sum(dim=(0, 3, 4, 5)).sqrt()
    return changes.mean(dim=1).view(-1, count)


def survivors(scores: Tensor, keep: float) -> torch.Tensor:
    """Numbers of the candidates [count] that go on, best first and in turn, of their scores [count]; low is best."""
    import torch

    ratio = float(scores.std() / scores.mean()) if len(scores) > 1 and scores.mean() > 0 else 0.0
    share = 1 - min(1.0, (ratio / SPREAD) ** 2) * (1 - keep)
    best = scores.argsort(stable=True)[: max(1, whole_steps(share, len(scores)))]
    return best[torch.arange(len(scores)) % len(best)]


def calls(settings: CdgsSettings, square: Square) -> NetworkCalls:
    """Network calls of one panorama: all candidates, repeats, and the scores."""
    steps = range(settings.steps)
    climbing = min(settings.climb + 1, settings.steps) * sum(map(settings.prunes, steps))
    predictions = settings.candidates * (sum(map(settings.repeated, steps)) + climbing)
    return joint_calls(len(corners(settings, square)), predictions, settings.height, settings.width, square)


METHOD = Method(
    name="cdgs",
    title="CDGS",
    settings=CdgsSettings,
    sample=sample,
    calls=calls,
    corners=corners,
    source="ICLR 2026, arXiv 2601.00126, after its toy example: several canvases, resampled and pruned on the way",
    mark=("#6699cc", "X"),
    version=2,  # 1 pruned after the last repeat, which left copies alike for a while
)
