"""CDGS against a literal loop over candidates, repeats and windows; its limits; who survives a pruning."""

import pytest
import torch

from baselines import METHODS
from baselines.cdgs import METHOD, CdgsSettings, survivors
from baselines.multidiffusion import MultiDiffusionSettings
from baselines.released.literal import Ddim, guided_noise
from syncdiffusion.cost import Square
from syncdiffusion.errors import UsageError
from syncdiffusion.joint.noise import initial_noise, noise_generator
from tests.baselines.counting import check_calls

PROMPT = "a photo of a forest"
CANVAS = {"height": 64, "width": 96, "steps": 4, "guidance_scale": 3.0, "candidates": 3, "repeats": 2}


def literal(tiny, seed: int, settings: CdgsSettings) -> torch.Tensor:
    size, ddim, count = tiny.window, Ddim(settings.steps), settings.candidates
    first = initial_noise([PROMPT], [seed], (4, size, settings.width // 8))
    lefts = range(0, first.shape[3] - size + 1, size // 2)
    generator = noise_generator(PROMPT, seed, "candidates")
    text, empty = tiny.encode_prompts([PROMPT]), tiny.encode_prompts([""])

    def fresh(number: int) -> list[torch.Tensor]:
        return [torch.randn(first.shape, generator=generator) for _ in range(number)]

    def predicted(x: torch.Tensor, t: int) -> torch.Tensor:
        with torch.no_grad():
            return guided_noise(tiny, x, t, text, empty, settings.guidance_scale)

    def composed(x: torch.Tensor, t: int) -> torch.Tensor:
        value, covered = torch.zeros_like(x), torch.zeros_like(x)
        for left in lefts:
            value[..., left : left + size] += predicted(x[..., left : left + size], t)
            covered[..., left : left + size] += 1
        return value / covered

    def score(x0: torch.Tensor) -> float:
        """T / 20 is less than one step here: one it is."""
        low, high = ddim.timesteps[-1], ddim.timesteps[-2]
        total = 0.0
        for left in lefts:
            x = x0[..., left : left + size]
            before = predicted(x, low)
            up = ddim.alpha_bar[high]
            x = up.sqrt() * ddim.foreseen(x, before, low) + (1 - up).sqrt() * before
            total += float((predicted(x, high) - before).norm())
        return total / len(lefts)

    own = [first, *fresh(count - 1)]
    for i, t in enumerate(ddim.timesteps):
        inner = 0 < i < settings.steps - 1
        repeats = settings.repeats if inner else 1
        for u in range(repeats):
            noises = [composed(x, t) for x in own]
            x0 = [ddim.foreseen(x, noise, t) for x, noise in zip(own, noises, strict=True)]
            own = [ddim.previous(x, noise, t) for x, noise in zip(own, noises, strict=True)]
            if u + 1 < repeats:
                share = ddim.alpha_bar[t] / ddim.alpha_bar[max(t - ddim.gap, 0)]
                drawn = fresh(count)
                own = [share.sqrt() * x + (1 - share).sqrt() * z for x, z in zip(own, drawn, strict=True)]
        if inner and count > 1:
            scores = [score(x) for x in x0]
            mean = sum(scores) / count
            spread = (sum((each - mean) ** 2 for each in scores) / (count - 1)) ** 0.5 / mean
            share = 1 - min(1, (spread / 0.15) ** 2) * (1 - settings.keep)
            best = sorted(range(count), key=scores.__getitem__)[: max(1, round(share * count))]
            own = [own[best[j % len(best)]] for j in range(count)]
    return own[0]


@pytest.mark.parametrize("changes", [{}, {"keep": 1.0, "repeats": 1}, {"candidates": 1, "repeats": 3}], ids=str)
def test_it_equals_the_literal_loop(tiny, changes):
    """Tolerance: float32 networks in batches sum in another order, and steps are repeated."""
    chosen = CdgsSettings(**{**CANVAS, **changes})
    ours = METHOD.sample_latents(tiny, [PROMPT], [3], chosen)
    assert (ours - literal(tiny, 3, chosen)).abs().max() <= 2e-4


def test_one_candidate_without_repeats_is_multidiffusion(tiny):
    common = {key: CANVAS[key] for key in ("height", "width", "steps", "guidance_scale")}
    told = []
    chosen = CdgsSettings(**common, candidates=1, repeats=1)
    ours = METHOD.sample_latents(tiny, [PROMPT], [1], chosen, on_step=told.append)
    plain = MultiDiffusionSettings(**common, stride=4)
    torch.testing.assert_close(
        ours, METHODS["multidiffusion"].sample_latents(tiny, [PROMPT], [1], plain), atol=1e-4, rtol=0
    )
    assert [step.index for step in told] == [0, 1, 2, 3]
    more = METHOD.sample_latents(tiny, [PROMPT], [1], CdgsSettings(**common))
    assert (more - ours).abs().max() > 1e-2


def test_who_survives():
    assert survivors(torch.tensor([1.0, 1.0, 1.0]), 0.2).tolist() == [0, 1, 2]  # all alike: all stay
    assert survivors(torch.tensor([9.0, 1.0, 5.0, 3.0]), 0.25).tolist() == [1, 1, 1, 1]  # far apart: the best alone
    assert survivors(torch.tensor([9.0, 1.0, 5.0, 3.0]), 0.5).tolist() == [1, 3, 1, 3]
    assert survivors(torch.tensor([2.0]), 0.2).tolist() == [0]


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "dpmpp"])
def test_company_changes_no_panorama(tiny, sampler):
    chosen = CdgsSettings(**{**CANVAS, "steps": 3, "candidates": 2, "sampler": sampler})
    alone = [METHOD.sample_latents(tiny, [p], [s], chosen) for p, s in ((PROMPT, 0), ("a city", 7))]
    together = METHOD.sample_latents(tiny, [PROMPT, "a city"], [0, 7], chosen)
    torch.testing.assert_close(together, torch.cat(alone), atol=2e-4, rtol=0)


def test_calls_and_refusals(tiny, monkeypatch):
    check_calls(tiny, monkeypatch, "cdgs", {**CANVAS, "steps": 3})
    check_calls(tiny, monkeypatch, "cdgs", {**CANVAS, "steps": 1})
    chosen = CdgsSettings(**{**CANVAS, "width": 120})
    with pytest.raises(UsageError, match="^width=120: .*nearest that they can: 128"):
        METHOD.corners(chosen, Square(8, 8))
    with pytest.raises(UsageError, match="^width=120: "):
        METHOD.generate(tiny, [PROMPT], [0], chosen)
