"""Mixture of Diffusers, StreamMultiDiffusion and GVCF against one literal loop with their weights written out."""

from math import exp, hypot, sqrt

import pytest
import torch

from baselines import METHODS
from baselines.gvcf import GvcfSettings
from baselines.mixture_of_diffusers import MixtureOfDiffusersSettings
from baselines.multidiffusion import MultiDiffusionSettings
from baselines.released.literal import Ddim, cut, guided_noise, views_of
from baselines.stream_multidiffusion import StreamMultiDiffusionSettings
from syncdiffusion.errors import UsageError
from syncdiffusion.geometry.weights import cone, gaussian, tent
from syncdiffusion.joint.noise import initial_noise, noise_generator
from tests.baselines.counting import check_calls

PROMPT = "a photo of a forest"
CANVAS = {"height": 64, "width": 128, "steps": 4, "guidance_scale": 3.0, "stride": 2}
SETTINGS = {
    "mixture_of_diffusers": MixtureOfDiffusersSettings,
    "stream_multidiffusion": StreamMultiDiffusionSettings,
    "gvcf": GvcfSettings,
}


def weight(name: str, row: int, column: int, size: int, variance: float = 0.01) -> float:
    """Of one cell of a window, from the formulas."""
    y, x = row - (size - 1) / 2, column - (size - 1) / 2
    if name == "mixture_of_diffusers":
        return exp(-((x / size) ** 2 + (y / size) ** 2) / (2 * variance))
    if name == "stream_multidiffusion":
        return (1 - abs(x) / (size / 2)) * (1 - abs(y) / (size / 2))
    return 1 - hypot(x, y) / hypot(size / 2, size / 2)


def aligned(noise: torch.Tensor, seed: int, size: int, alpha: float) -> torch.Tensor:
    one = torch.randn(4, size, size, generator=noise_generator(PROMPT, seed, "align"))
    repeated = torch.empty_like(noise)
    for row in range(noise.shape[2]):
        for column in range(noise.shape[3]):
            repeated[0, :, row, column] = one[:, row % size, column % size]
    angle = torch.arccos((noise * repeated).sum() / (noise.norm() * repeated.norm()))
    return (((1 - alpha) * angle).sin() * noise + (alpha * angle).sin() * repeated) / angle.sin()


def literal(tiny, name: str, settings, seed: int) -> torch.Tensor:
    """One canvas; noise predictions averaged and one DDIM step, or DDIM of each window and its results averaged."""
    size, ddim = tiny.window, Ddim(settings.steps)
    canvas = initial_noise([PROMPT], [seed], (4, settings.height // 8, settings.width // 8))
    if getattr(settings, "align", 0):
        canvas = aligned(canvas, seed, size, settings.align)
    width, views = canvas.shape[3], views_of(*canvas.shape[2:], size, settings.stride, settings.loop_closure)
    variance = getattr(settings, "variance", 0.01)
    weights = torch.tensor([[weight(name, r, c, size, variance) for c in range(size)] for r in range(size)])
    text, empty = tiny.encode_prompts([PROMPT]), tiny.encode_prompts([""])
    for t in ddim.timesteps:
        value, total = torch.zeros_like(canvas), torch.zeros_like(canvas)
        for top, left in views:
            x = cut(canvas, top, left, size)
            with torch.no_grad():
                result = guided_noise(tiny, x, t, text, empty, settings.guidance_scale)
            result = ddim.previous(x, result, t) if name == "gvcf" else result
            for column in range(size):
                place = (..., slice(top, top + size), (left + column) % width)
                value[place] += weights[:, column] * result[..., column]
                total[place] += weights[:, column]
        canvas = value / total if name == "gvcf" else ddim.previous(canvas, value / total, t)
    return canvas


CASES = [(name, changes) for name in SETTINGS for changes in ({}, {"height": 128, "stride": 4})]
CASES += [("gvcf", {"align": 0.3, "width": 112}), ("gvcf", {"loop_closure": "full"})]
CASES += [("mixture_of_diffusers", {"variance": 0.05})]


@pytest.mark.parametrize(("name", "changes"), CASES, ids=str)
def test_they_equal_the_literal_loop(tiny, name, changes):
    """Tolerance: float32 networks in batches sum in another order."""
    chosen = SETTINGS[name](**{**CANVAS, **changes})
    ours = METHODS[name].sample_latents(tiny, [PROMPT], [3], chosen)
    assert (ours - literal(tiny, name, chosen, 3)).abs().max() <= 1e-4
    common = {key: value for key, value in {**CANVAS, **changes}.items() if key not in ("align", "variance")}
    plain = METHODS["multidiffusion"].sample_latents(tiny, [PROMPT], [3], MultiDiffusionSettings(**common))
    assert (ours - plain).abs().max() > 1e-3  # the weights are not all alike


@pytest.mark.parametrize("size", [8, 16, 64])
def test_weights_are_symmetric_and_above_zero(size):
    for weights in (gaussian(size, 0.01), gaussian(size, 0.003), tent(size), cone(size)):
        assert weights.min() > 0 and weights.max() <= 1
        torch.testing.assert_close(weights, weights.flip(0))
        torch.testing.assert_close(weights, weights.T)
    half = size // 2
    along = tent(size).sum(dim=0) / tent(size).sum(dim=0).max() * (1 - 1 / size)  # one row, up to its scale
    torch.testing.assert_close(along[half:] + along[:half], torch.ones(half))  # a partition of unity


def test_aligned_noise_stays_noise_and_approaches_the_repeated_window(tiny):
    from baselines.gvcf import aligned_noise
    from syncdiffusion.joint.task import new_task

    task = new_task(tiny, [PROMPT, "a city"], [0, 1], GvcfSettings(height=64, width=2048, steps=1, stride=4))
    assert aligned_noise(task, 0.0) is task.noise
    repeated = aligned_noise(task, 1.0)
    torch.testing.assert_close(repeated[..., :8], repeated[..., 8:16], atol=1e-5, rtol=0)
    for alpha in (0.25, 0.5, 0.75):
        mixed = aligned_noise(task, alpha)
        # 8192 numbers: the deviation of their standard deviation is 1 / sqrt(2 · 8192), more where one window repeats
        assert abs(float(mixed.std()) - 1) < 8 / sqrt(2 * 256)
        likeness = torch.cosine_similarity(mixed.flatten(1), repeated.flatten(1))
        expected = torch.sin(torch.tensor(alpha * torch.pi / 2))  # for two canvases at right angles
        assert (likeness - expected).abs().max() < 0.05


@pytest.mark.parametrize("name", SETTINGS)
def test_calls_and_refusals(tiny, monkeypatch, name):
    check_calls(tiny, monkeypatch, name, {**CANVAS, "steps": 2})
    with pytest.raises(UsageError, match="^width=120: .*nearest that they can: "):
        METHODS[name].generate(tiny, [PROMPT], [0], SETTINGS[name](**{**CANVAS, "width": 120, "stride": 4}))
    with pytest.raises(UsageError, match="^align=2"):
        GvcfSettings(align=2)
    with pytest.raises(UsageError, match="^variance=0"):
        MixtureOfDiffusersSettings(variance=0.0)
