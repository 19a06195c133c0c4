"""RePaint against a literal loop, and its schedule against the counts that follow from the published rule."""

import pytest
import torch

from baselines import METHODS
from baselines.released.literal import guided_noise
from baselines.repaint import RepaintSettings
from syncdiffusion.cost import Square
from syncdiffusion.joint.noise import initial_noise, noise_generator
from syncdiffusion.joint.resampling import levels
from tests.baselines.counting import check_calls

PROMPT = "a photo of a forest"


def literal_levels(total, length, samples):
    """The rule in the paper's supplement, state by state."""
    jumps = {}
    for j in range(0, total - length, length):
        jumps[j] = samples - 1
    t, ts = total, []
    while t >= 1:
        t = t - 1
        ts.append(t)
        if jumps.get(t, 0) > 0:
            jumps[t] = jumps[t] - 1
            for _ in range(length):
                t = t + 1
                ts.append(t)
    ts.append(-1)
    return ts


@pytest.mark.parametrize(
    ("total", "length", "samples", "asked"),
    [(50, 10, 10, 410), (50, 10, 2, 90), (50, 5, 2, 95), (50, 5, 4, 185), (250, 10, 10, 2410), (3, 10, 10, 3)],
)
def test_levels_follow_the_published_rule(total, length, samples, asked):
    way = levels(total, length, samples)
    assert way == literal_levels(total, length, samples)
    assert sum(b < a for a, b in zip(way[:-1], way[1:], strict=True)) == asked


def test_repaint_equals_a_literal_loop(tiny):
    steps, size, scale, width = 6, 8, 3.0, 16
    chosen = RepaintSettings(
        height=64, width=8 * width, steps=steps, guidance_scale=scale, jump_length=2, jump_n_sample=2
    )
    ours = METHODS["repaint"].sample_latents(tiny, [PROMPT], [4], chosen)

    noise = initial_noise([PROMPT], [4], (4, 8, width))
    blend, fresh = noise_generator(PROMPT, 4, "repaint"), noise_generator(PROMPT, 4, "sampler")
    text, empty = tiny.encode_prompts([PROMPT]), tiny.encode_prompts([""])
    bars = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, 0)
    times = [1 + (1000 // steps) * t for t in range(steps)]
    abar = [float(bars[t]) for t in times]

    def normal(generator):
        return torch.randn(4, size, size, generator=generator)[None]

    result = noise.clone()
    with torch.no_grad():
        for left in range(0, width - size + 1, size // 2):
            known, x = result[..., left : left + size].clone(), noise[..., left : left + size].clone()
            ts = literal_levels(steps, 2, 2 if left else 1)
            for i, (t, then) in enumerate(zip(ts[:-1], ts[1:], strict=True)):
                if then > t:
                    keep = abar[then] / abar[t]
                    x = keep**0.5 * x + (1 - keep) ** 0.5 * normal(blend)
                    continue
                if left and i:
                    seen = abar[t] ** 0.5 * known + (1 - abar[t]) ** 0.5 * normal(blend)
                    x[..., : size // 2] = seen[..., : size // 2]
                noise_now = guided_noise(tiny, x, times[t], text, empty, scale)
                x0 = (x - (1 - abar[t]) ** 0.5 * noise_now) / abar[t] ** 0.5
                before = abar[then] if then >= 0 else 1.0
                alpha = abar[t] / before
                # Ho et al., Eq. 7
                x = (before**0.5 * (1 - alpha) * x0 + alpha**0.5 * (1 - before) * x) / (1 - abar[t])
                if then >= 0:
                    x = x + ((1 - before) / (1 - abar[t]) * (1 - alpha)) ** 0.5 * normal(fresh)
            if left:
                x[..., : size // 2] = known[..., : size // 2]
            result[..., left : left + size] = x
    # float32 through 32 steps of a network, each of which may double a rounding error of 1e-6
    torch.testing.assert_close(ours, result, rtol=0, atol=5e-4)


def test_calls_are_counted(tiny, monkeypatch):
    chosen = {"height": 64, "width": 128, "steps": 5, "jump_length": 2, "jump_n_sample": 3}
    check_calls(tiny, monkeypatch, "repaint", chosen)
    counted = METHODS["repaint"].calls(RepaintSettings(height=512, width=1024), Square(64, 8))
    assert counted.unet == 50 + 2 * 410
