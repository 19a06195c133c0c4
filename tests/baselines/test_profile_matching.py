"""Profile matching against a literal, unbatched loop, and what its limits must give."""

from dataclasses import fields

import pytest
import torch

from baselines.multidiffusion import METHOD as MULTIDIFFUSION
from baselines.multidiffusion import MultiDiffusionSettings
from baselines.profile_matching import METHOD, ProfileMatchingSettings, toward_anchor
from baselines.released.literal import Ddim, cut, guided_noise, views_of
from syncdiffusion.errors import UsageError
from syncdiffusion.joint.noise import initial_noise

PROMPT = "a photo of a forest"
CANVAS = {"height": 64, "width": 128, "steps": 4, "guidance_scale": 3.0, "stride": 2}


def mean_and_deviation(row: torch.Tensor) -> tuple[float, float]:
    mean = sum(row.tolist()) / len(row)
    return mean, (sum((value - mean) ** 2 for value in row.tolist()) / (len(row) - 1)) ** 0.5


def groups(match: str, size: int) -> list[tuple[list[int], list[int]]]:
    """Rows and columns of the cells that have one mean, for each such group of a window."""
    every, fours = list(range(size)), [list(range(start, start + 4)) for start in range(0, size, 4)]
    return {
        "rows": [([row], every) for row in every],
        "row_means": [([row], every) for row in every],
        "channels": [(every, every)],
        "blocks": [(rows, columns) for rows in fours for columns in fours],
    }[match]


def literal(tiny, prompt: str, seed: int, settings: ProfileMatchingSettings) -> torch.Tensor:
    """The module's two formulas in loops over windows, channels and rows; DDIM written out."""
    size, ddim = tiny.window, Ddim(settings.steps)
    canvas = initial_noise([prompt], [seed], (4, settings.height // 8, settings.width // 8))
    views = views_of(*canvas.shape[2:], size, settings.stride)
    anchor = len(views) // 2 if settings.anchor is None else settings.anchor
    text, empty = tiny.encode_prompts([prompt]), tiny.encode_prompts([""])
    for i, t in enumerate(ddim.timesteps):
        seen = []
        with torch.no_grad():
            for view in views:
                x = cut(canvas, *view, size)
                noise = guided_noise(tiny, x, t, text, empty, settings.guidance_scale)
                seen.append((x, noise, ddim.foreseen(x, noise, t)))
        value, count = torch.zeros_like(canvas), torch.zeros_like(canvas)
        for (top, left), (x, noise, x0) in zip(views, seen, strict=True):
            moved = x.clone()
            if settings.first_n is None or i < settings.first_n:
                for channel in range(4):
                    for rows, columns in groups(settings.match, size):
                        cells = (0, channel, torch.tensor(rows)[:, None], torch.tensor(columns))
                        theirs, own = (each[cells] for each in (seen[anchor][2], x0))
                        (m_theirs, d_theirs), (m_own, d_own) = (mean_and_deviation(x.flatten()) for x in (theirs, own))
                        wider = min(2.0, max(0.5, d_theirs / d_own)) if settings.match in ("rows", "channels") else 1.0
                        shift = settings.strength * settings.decay**i * (m_theirs + (own - m_own) * wider - own)
                        moved[cells] += ddim.alpha_bar[t].sqrt() * shift
            value[..., top : top + size, left : left + size] += ddim.previous(moved, noise, t)
            count[..., top : top + size, left : left + size] += 1
        canvas = value / count
    return canvas


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"strength": 1.0},
        {"first_n": 2, "decay": 0.8},
        {"anchor": 0, "stride": 4},
        {"height": 128, "stride": 8},
        {"match": "row_means"},
        {"match": "channels"},
        {"match": "blocks"},
    ],
    ids=str,
)
def test_it_equals_the_literal_loop(tiny, changes):
    """Tolerance as in test_guidance: float32 networks in batches sum in another order."""
    chosen = ProfileMatchingSettings(**{**CANVAS, "window_batch": 3, **changes})
    ours = METHOD.sample_latents(tiny, [PROMPT], [3], chosen)
    assert (ours - literal(tiny, PROMPT, 3, chosen)).abs().max() <= 1e-4
    none = {field.name: getattr(chosen, field.name) for field in fields(MultiDiffusionSettings)}
    assert (
        ours - MULTIDIFFUSION.sample_latents(tiny, [PROMPT], [3], MultiDiffusionSettings(**none))
    ).abs().max() > 1e-2


@pytest.mark.parametrize("none", [{"strength": 0.0}, {"first_n": 0}])
def test_without_strength_or_steps_it_is_multidiffusion(tiny, none):
    ours = METHOD.sample_latents(tiny, [PROMPT], [1], ProfileMatchingSettings(**CANVAS, **none))
    assert torch.equal(ours, MULTIDIFFUSION.sample_latents(tiny, [PROMPT], [1], MultiDiffusionSettings(**CANVAS)))


def test_full_strength_gives_every_window_the_anchors_profile():
    x0 = torch.randn(2, 5, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    matched = x0 + toward_anchor(x0, 2, 1.0)
    torch.testing.assert_close(matched.mean(dim=-1), x0[:, 2:3].mean(dim=-1).expand(-1, 5, -1, -1))
    ratio = x0[:, 2:3].std(dim=-1) / x0.std(dim=-1)
    within = (ratio > 0.5) & (ratio < 2)
    assert 0.5 < within.float().mean() < 1  # rows of random numbers are of both kinds
    theirs = x0[:, 2:3].std(dim=-1).expand_as(ratio)
    torch.testing.assert_close(matched.std(dim=-1)[within], theirs[within])
    torch.testing.assert_close(matched[:, 2], x0[:, 2])  # the anchor stays
    # What stands where along a row is left alone, but for its strength.
    along = torch.nn.functional.cosine_similarity(matched.diff(dim=-1), x0.diff(dim=-1), dim=-1)
    torch.testing.assert_close(along, torch.ones_like(along))


def test_company_changes_no_panorama(tiny):
    chosen = ProfileMatchingSettings(**CANVAS)
    alone = [METHOD.generate(tiny, [p], [s], chosen) for p, s in ((PROMPT, 0), ("a city", 7))]
    together = METHOD.generate(tiny, [PROMPT, "a city"], [0, 7], chosen)
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "changes", [{"strength": 1.1}, {"strength": -0.1}, {"decay": 0.0}, {"first_n": -1}, {"match": "columns"}]
)
def test_bad_settings_are_refused_by_name(changes):
    with pytest.raises(UsageError, match=f"^{next(iter(changes))}="):
        ProfileMatchingSettings(**changes)
