"""CoFi against a literal loop: its three phases with noise drawn in the same order."""

import pytest
import torch

from baselines.cofi import METHOD, CofiSettings
from baselines.released.literal import Ddim, guided_noise
from syncdiffusion.cost import Square
from syncdiffusion.errors import UsageError
from syncdiffusion.joint.noise import initial_noise, noise_generator
from tests.baselines.counting import check_calls

PROMPT = "a photo of a forest"
CANVAS = {"height": 64, "width": 128, "steps": 4, "guidance_scale": 3.0}


def literal(tiny, seed: int, settings: CofiSettings, restart: int) -> torch.Tensor:
    """`restart`: how many steps phase 3 leaves out."""
    size, ddim, half = tiny.window, Ddim(settings.steps), tiny.window // 2
    canvas = initial_noise([PROMPT], [seed], (4, size, settings.width // 8))
    lefts = list(range(0, canvas.shape[3] - size + 1, half))
    generator = noise_generator(PROMPT, seed, "cofi")
    text, empty = tiny.encode_prompts([PROMPT]), tiny.encode_prompts([""])

    def fresh() -> torch.Tensor:
        return torch.randn(canvas.shape[1:], generator=generator)[None]

    def fused(windows: list[torch.Tensor]) -> torch.Tensor:
        """Ramps from 0 to 1 over the half that two windows share, 1 where a window is alone."""
        total = torch.zeros_like(canvas)
        for left, window in zip(lefts, windows, strict=True):
            for column in range(size):
                rise, fall = (column + 0.5) / half, (size - column - 0.5) / half
                share = 1.0
                if column < half and left > 0:
                    share = rise
                elif column >= half and left < lefts[-1]:
                    share = fall
                total[..., left + column] += share * window[..., column]
        return total

    def predicted(x: torch.Tensor, t: int) -> torch.Tensor:
        with torch.no_grad():
            return guided_noise(tiny, x, t, text, empty, settings.guidance_scale)

    own = [canvas[..., left : left + size] for left in lefts]
    for i, t in enumerate(ddim.timesteps):
        x0 = fused([ddim.foreseen(x, predicted(x, t), t) for x in own])
        views = [x0[..., left : left + size] for left in lefts]
        middle = sum(views) / len(views)
        share = settings.consensus * (1 - i / (settings.steps - 1))
        then, noise = ddim.alpha_bar[max(t - ddim.gap, 0)], fresh()
        own = [
            then.sqrt() * ((1 - share) * x + share * middle) + (1 - then).sqrt() * noise[..., left : left + size]
            for x, left in zip(views, lefts, strict=True)
        ]
    times = ddim.timesteps[restart:]
    a = ddim.alpha_bar[times[0]]
    canvas = a.sqrt() * fused(own) + (1 - a).sqrt() * fresh()
    for t in times:
        now, then = ddim.alpha_bar[t], ddim.alpha_bar[max(t - ddim.gap, 0)]
        noise = fused([predicted(canvas[..., left : left + size], t) for left in lefts])
        sigma = ((1 - then) / (1 - now) * (1 - now / then)).sqrt()
        x0 = ddim.foreseen(canvas, noise, t)
        canvas = then.sqrt() * x0 + (1 - then - sigma**2).sqrt() * noise + sigma * fresh()
    return canvas


@pytest.mark.parametrize(
    ("changes", "restart"), [({}, 1), ({"consensus": 0.8, "restart": 0.5}, 2), ({"consensus": 0.0, "width": 64}, 1)]
)
def test_it_equals_the_literal_loop(tiny, changes, restart):
    """Tolerance: float32 networks in batches sum in another order; twice as many steps as of other methods."""
    chosen = CofiSettings(**{**CANVAS, **changes})
    ours = METHOD.sample_latents(tiny, [PROMPT], [3], chosen)
    expected = literal(tiny, 3, chosen, restart)
    assert (ours - expected).abs().max() <= 2e-4
    other = METHOD.sample_latents(tiny, [PROMPT], [3], CofiSettings(**{**CANVAS, **changes, "restart": 0.75}))
    assert (ours - other).abs().max() > 1e-2


def test_steps_of_both_phases_are_numbered_through(tiny):
    told = []
    METHOD.sample_latents(tiny, [PROMPT], [0], CofiSettings(**CANVAS), on_step=told.append)
    assert [(step.index, step.count) for step in told] == [(i, 7) for i in range(7)]


def test_company_changes_no_panorama(tiny):
    chosen = CofiSettings(**{**CANVAS, "steps": 2})
    alone = [METHOD.sample_latents(tiny, [p], [s], chosen) for p, s in ((PROMPT, 0), ("a city", 7))]
    together = METHOD.sample_latents(tiny, [PROMPT, "a city"], [0, 7], chosen)
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=0)


def test_calls_and_refusals(tiny, monkeypatch):
    check_calls(tiny, monkeypatch, "cofi", CANVAS)
    check_calls(
        tiny, monkeypatch, "cofi", {**CANVAS, "steps": 2, "restart": 0.999999999, "overlap": 0.25, "width": 112}
    )
    with pytest.raises(UsageError, match="^width=120: .*nearest that they can: 128"):
        METHOD.corners(CofiSettings(**{**CANVAS, "width": 120}), Square(8, 8))
    with pytest.raises(UsageError, match="^restart=1"):
        CofiSettings(restart=1.0)
