"""CDGS against a literal loop over candidates, repeats and windows; its limits; who survives a pruning."""

import math

import pytest
import torch

from baselines import METHODS
from baselines.cdgs import METHOD, CdgsSettings, roughness, survivors
from baselines.multidiffusion import MultiDiffusionSettings
from baselines.released.literal import Ddim, guided_noise
from syncdiffusion.cost import Square
from syncdiffusion.errors import UsageError
from syncdiffusion.joint.noise import initial_noise, noise_generator
from syncdiffusion.joint.task import new_task
from tests.baselines.counting import check_calls

PROMPT = "a photo of a forest"
CANVAS = {"height": 64, "width": 96, "steps": 4, "guidance_scale": 3.0, "candidates": 3, "repeats": 2}


def straightness(predicted, ddim: Ddim, views: list[torch.Tensor], climb: int) -> float:
    """A candidate's score: up `climb` steps from what its windows foresee, the norm of all changes of the noise."""
    total = 0.0
    for x in views:
        t = ddim.timesteps[-1]
        before, squares = predicted(x, t), 0.0
        for above in ddim.timesteps[::-1][1 : climb + 1]:
            up = ddim.alpha_bar[above]
            x = up.sqrt() * ddim.foreseen(x, before, t) + (1 - up).sqrt() * before
            after = predicted(x, above)
            squares += float((after - before).square().sum())
            before, t = after, above
        total += squares**0.5
    return total / len(views)


def literal(tiny, seed: int, settings: CdgsSettings, won: list[int] | None = None) -> torch.Tensor:
    """One panorama. won: takes the number of the candidate that was best at each pruning."""
    size, ddim, count = tiny.window, Ddim(settings.steps), settings.candidates
    first = initial_noise([PROMPT], [seed], (4, size, settings.width // 8))
    lefts = range(0, first.shape[3] - size + 1, size // 2)
    generator, climb = noise_generator(PROMPT, seed, "candidates"), max(1, settings.steps // 20)
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

    own = [first, *fresh(count - 1)]
    for i, t in enumerate(ddim.timesteps):
        inner = 0 < i < settings.steps - 1
        repeats = settings.repeats if inner else 1
        for u in range(repeats):
            noises = [composed(x, t) for x in own]
            x0 = [ddim.foreseen(x, noise, t) for x, noise in zip(own, noises, strict=True)]
            own = [ddim.previous(x, noise, t) for x, noise in zip(own, noises, strict=True)]
            if u + 2 == repeats and 0.1 < i / settings.steps < 0.9 and count > 1:
                scores = [straightness(predicted, ddim, [x[..., j : j + size] for j in lefts], climb) for x in x0]
                mean = sum(scores) / count
                spread = (sum((each - mean) ** 2 for each in scores) / (count - 1)) ** 0.5 / mean
                share = 1 - min(1, (spread / 0.15) ** 2) * (1 - settings.keep)
                best = sorted(range(count), key=scores.__getitem__)[: max(1, math.floor(share * count + 1e-6))]
                own = [own[best[j % len(best)]] for j in range(count)]
                if won is not None:
                    won.append(best[0])
            if u + 1 < repeats:
                share = ddim.alpha_bar[t] / ddim.alpha_bar[max(t - ddim.gap, 0)]
                drawn = fresh(count)
                own = [share.sqrt() * x + (1 - share).sqrt() * z for x, z in zip(own, drawn, strict=True)]
    return own[0]


@pytest.mark.parametrize(
    ("changes", "seed"), [({}, 0), ({"keep": 1.0, "repeats": 3}, 0), ({"candidates": 1, "repeats": 3}, 3)], ids=str
)
def test_it_equals_the_literal_loop(tiny, changes, seed):
    """Tolerance: float32 networks in batches sum in another order, and steps are repeated.

    Where there are several candidates another than the first wins at first, so that pruning decides the panorama.
    """
    chosen, won = CdgsSettings(**{**CANVAS, **changes}), []
    ours = METHOD.sample_latents(tiny, [PROMPT], [seed], chosen)
    assert (ours - literal(tiny, seed, chosen, won)).abs().max() <= 2e-4
    assert chosen.candidates == 1 or (len(won) == 2 and won[0] != 0)


@pytest.mark.parametrize("climb", [1, 2])
@torch.no_grad()
def test_the_score_is_that_of_the_literal_climb(tiny, climb):
    """Two panoramas of two candidates each; 1e-4 of scores of about 1, for sums in another order."""
    settings, ddim, prompts = CdgsSettings(**CANVAS), Ddim(4), [PROMPT, "a city"]
    task = new_task(tiny, prompts, [0, 1], settings)
    windows = task.windows(4)
    x0 = torch.randn(4, len(windows), 4, 8, 8, generator=torch.Generator().manual_seed(0))
    found = roughness(task, windows, x0, climb, count=2)
    for row, prompt in enumerate(prompts):
        told = tiny.encode_prompts([prompt]), tiny.encode_prompts([""])

        def predicted(x, t, told=told):
            return guided_noise(tiny, x, t, *told, settings.guidance_scale)

        for candidate in range(2):
            expected = straightness(predicted, ddim, list(x0[2 * row + candidate].split(1)), climb)
            assert float(found[row, candidate]) == pytest.approx(expected, rel=1e-4)


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


def test_steps_that_are_repeated_pruned_and_climbed():
    fifty = CdgsSettings(steps=50)
    assert [i for i in range(50) if fifty.prunes(i)] == list(range(6, 45))
    assert [i for i in range(50) if fifty.repeated(i) == 1] == [0, 49] and fifty.repeated(1) == 2
    assert (fifty.climb, CdgsSettings(steps=4).climb) == (2, 1)


def test_who_survives():
    assert survivors(torch.tensor([1.0, 1.0, 1.0]), 0.2).tolist() == [0, 1, 2]  # all alike: all stay
    assert survivors(torch.tensor([9.0, 1.0, 5.0, 3.0]), 0.25).tolist() == [1, 1, 1, 1]  # far apart: the best alone
    assert survivors(torch.tensor([9.0, 1.0, 5.0, 3.0]), 0.5).tolist() == [1, 3, 1, 3]
    assert survivors(torch.tensor([1.08, 1.0, 1.05, 1.02]), 0.2).tolist() == [1, 3, 2, 1]  # 3.83 of four are three
    assert survivors(torch.tensor([9.0, 1.0, 5.0, 3.0]), 0.75).tolist() == [1, 3, 2, 1]  # 4 · 0.75 is no 2.99...


def test_several_candidates_need_a_way_back():
    with pytest.raises(UsageError, match="^repeats=1: "):
        CdgsSettings(repeats=1)
    assert not any(map(CdgsSettings(candidates=1, repeats=1).prunes, range(50)))
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
