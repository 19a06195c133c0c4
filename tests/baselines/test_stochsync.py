"""StochSync against a literal loop that rolls the canvas instead of moving the windows."""

import pytest
import torch

from baselines.released.literal import Ddim, guided_noise
from baselines.spotdiffusion import SpotDiffusionSettings
from baselines.stochsync import METHOD, StochSyncSettings
from syncdiffusion.cost import Square
from syncdiffusion.errors import UsageError
from syncdiffusion.joint.noise import initial_noise, noise_generator
from tests.baselines.counting import check_calls

PROMPT = "a photo of a forest"
CANVAS = {"height": 64, "width": 128, "steps": 4, "guidance_scale": 3.0, "rounds": 4, "noise_rounds": 1, "refined": 1}


def literal(tiny, seed: int, settings: StochSyncSettings, lengths: list[int]) -> torch.Tensor:
    """`lengths`: how many steps every round has; the last one is refined where settings say so."""
    size, ddim = tiny.window, Ddim(settings.steps)
    noise = initial_noise([PROMPT], [seed], (4, settings.height // 8, settings.width // 8))
    generator = noise_generator(PROMPT, seed, "rounds")
    text, empty = tiny.encode_prompts([PROMPT]), tiny.encode_prompts([""])
    clean = torch.zeros_like(noise)
    for k, length in enumerate(lengths):
        if k > 0:
            noise = torch.randn(noise.shape[1:], generator=generator)[None]
        times, roll = ddim.timesteps[-length:], size // 2 * (k % 2)
        a = ddim.alpha_bar[times[0]]
        x = noise if k < settings.noise_rounds else a.sqrt() * clean + (1 - a).sqrt() * noise
        old, fresh, x = (torch.roll(each, -roll, dims=3) for each in (clean, noise, x))
        refined = k >= settings.noise_rounds and k >= settings.rounds - settings.refined
        for i, t in enumerate(times):
            then, moved = ddim.alpha_bar[max(t - ddim.gap, 0)], torch.empty_like(x)
            for top in range(0, x.shape[2], size):
                for left in range(0, x.shape[3], size):
                    place = (..., slice(top, top + size), slice(left, left + size))
                    with torch.no_grad():
                        predicted = guided_noise(tiny, x[place], t, text, empty, settings.guidance_scale)
                    moved[place] = ddim.previous(x[place], predicted, t)
            for column in range(x.shape[3]) if refined else ():
                from_middle = abs(column % size - (size - 1) / 2)
                if 1 - from_middle / (size / 2) < 1 - i / length:
                    moved[..., column] = then.sqrt() * old[..., column] + (1 - then).sqrt() * fresh[..., column]
            x = moved
        clean = torch.roll(x, roll, dims=3)
    return clean


CASES = [
    ({}, [4, 2, 2, 3]),  # shares .9, .74, .59, .43 of four steps; the first is noise, the last is refined: 2 · .43
    ({"highest": 1.0, "lowest": 0.4, "rounds": 3, "refined": 0, "noise_rounds": 2}, [4, 4, 2]),
    ({"width": 64, "rounds": 2, "lowest": 0.8}, [4, 4]),
]


@pytest.mark.parametrize(("changes", "lengths"), CASES)
def test_it_equals_the_literal_loop(tiny, changes, lengths):
    """Tolerance: float32 networks in batches sum in another order, in some ten steps after each other."""
    chosen = StochSyncSettings(**{**CANVAS, **changes})
    assert [chosen.length(k) for k in range(chosen.rounds)] == lengths
    ours = METHOD.sample_latents(tiny, [PROMPT], [3], chosen)
    assert (ours - literal(tiny, 3, chosen, lengths)).abs().max() <= 2e-4
    fewer = METHOD.sample_latents(tiny, [PROMPT], [3], StochSyncSettings(**{**CANVAS, **changes, "rounds": 1}))
    assert (ours - fewer).abs().max() > 1e-2


def test_the_released_schedule():
    lengths = [StochSyncSettings().length(k) for k in range(25)]
    # t = 900 - 630 k / 25 of round k, max_steps being 25; those of the last two, 320 and 295, are doubled.
    assert lengths[:2] == [50, 50] and lengths[-2:] == [32, 29]
    assert lengths[2:23] == [int((900 - 630 * k / 25) / 20) for k in range(2, 23)]


def test_one_round_is_one_sample_of_every_square(tiny):
    from baselines import METHODS

    common = {key: CANVAS[key] for key in ("height", "width", "steps", "guidance_scale")}
    told = []
    ours = METHOD.sample_latents(tiny, [PROMPT], [1], StochSyncSettings(**common, rounds=1), on_step=told.append)
    assert [(step.index, step.count) for step in told] == [(i, 4) for i in range(4)]
    # Its first step is SpotDiffusion's, which has not shifted yet.
    one = {**common, "steps": 1}
    spot = METHODS["spotdiffusion"].sample_latents(tiny, [PROMPT], [1], SpotDiffusionSettings(**one))
    assert torch.equal(METHOD.sample_latents(tiny, [PROMPT], [1], StochSyncSettings(**one, rounds=1)), spot)
    assert (ours - spot).abs().max() > 1e-2


def test_company_changes_no_panorama(tiny):
    chosen = StochSyncSettings(**{**CANVAS, "steps": 2})
    alone = [METHOD.sample_latents(tiny, [p], [s], chosen) for p, s in ((PROMPT, 0), ("a city", 7))]
    together = METHOD.sample_latents(tiny, [PROMPT, "a city"], [0, 7], chosen)
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=0)


def test_calls_and_refusals(tiny, monkeypatch):
    check_calls(tiny, monkeypatch, "stochsync", CANVAS)
    chosen = StochSyncSettings(**{**CANVAS, "width": 160})
    with pytest.raises(UsageError, match="^width=160: .*nearest that they can: "):
        METHOD.corners(chosen, Square(8, 8))
    with pytest.raises(UsageError, match="^height=128: .* use 64"):
        METHOD.generate(tiny, [PROMPT], [0], StochSyncSettings(**{**CANVAS, "height": 128}))
    with pytest.raises(UsageError, match="^width=160: "):
        METHOD.generate(tiny, [PROMPT], [0], chosen)
