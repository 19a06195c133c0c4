"""SyncTweedies against a literal loop, its attention against softmax written out, and MultiDiffusion as its limit."""

from contextlib import contextmanager

import pytest
import torch

from baselines.multidiffusion import METHOD as MULTIDIFFUSION
from baselines.multidiffusion import MultiDiffusionSettings
from baselines.released.literal import Ddim, cut, guided_noise, views_of
from baselines.sync_tweedies import METHOD, SyncTweediesSettings
from syncdiffusion.cost import Square
from syncdiffusion.errors import UsageError
from syncdiffusion.geometry.windows import place_windows
from syncdiffusion.joint.attention import attending, neighbours
from syncdiffusion.joint.noise import initial_noise, noise_generator
from tests.baselines.counting import check_calls
from tests.baselines.test_mad import layers

PROMPT = "a photo of a forest"
CANVAS = {"height": 64, "width": 128, "steps": 4, "guidance_scale": 3.0, "stride": 4}


def literal(tiny, seed: int, settings: SyncTweediesSettings) -> torch.Tensor:
    """One canvas without attention across windows; every window's latents in a list of their own."""
    size, ddim = tiny.window, Ddim(settings.steps)
    canvas = initial_noise([PROMPT], [seed], (4, settings.height // 8, settings.width // 8))
    width, views = canvas.shape[3], views_of(*canvas.shape[2:], size, settings.stride, settings.loop_closure)
    text, empty = tiny.encode_prompts([PROMPT]), tiny.encode_prompts([""])
    generator = noise_generator(PROMPT, seed, "windows")
    if settings.shared_start:
        own = [cut(canvas, *view, size) for view in views]
    else:
        own = list(torch.randn(len(views), 4, size, size, generator=generator).split(1))

    def mean(windows: list[torch.Tensor]) -> torch.Tensor:
        value, count = torch.zeros_like(canvas), torch.zeros_like(canvas)
        for (_, left), window in zip(views, windows, strict=True):
            for column in range(size):
                value[..., (left + column) % width] += window[..., column]
                count[..., (left + column) % width] += 1
        return value / count

    for t in ddim.timesteps:
        a = ddim.alpha_bar[t]
        with torch.no_grad():
            noises = [guided_noise(tiny, x, t, text, empty, settings.guidance_scale) for x in own]
        x0 = mean([ddim.foreseen(x, noise, t) for x, noise in zip(own, noises, strict=True)])
        implied = [(x - a.sqrt() * cut(x0, *view, size)) / (1 - a).sqrt() for x, view in zip(own, views, strict=True)]
        own = [ddim.previous(x, noise, t) for x, noise in zip(own, implied, strict=True)]
    return mean(own)


@pytest.mark.parametrize("changes", [{}, {"shared_start": False}, {"shared_start": False, "loop_closure": "full"}])
def test_without_attention_it_equals_the_literal_loop(tiny, changes):
    """Tolerance: float32 networks in batches sum in another order."""
    chosen = SyncTweediesSettings(**{**CANVAS, "attend": 0.0, **changes})
    ours = METHOD.sample_latents(tiny, [PROMPT], [3], chosen)
    assert (ours - literal(tiny, 3, chosen)).abs().max() <= 1e-4
    plain = MultiDiffusionSettings(**{key: getattr(chosen, key) for key in (*CANVAS, "loop_closure")})
    apart = (ours - MULTIDIFFUSION.sample_latents(tiny, [PROMPT], [3], plain)).abs().max()
    assert apart <= 1e-4 if chosen.shared_start else apart > 1e-2  # DDIM is linear: from one canvas it is the same


@pytest.mark.parametrize(("around", "reference"), [(False, 1.0), (True, 0.5), (True, 0.0)])
@torch.no_grad()
def test_attention_to_neighbours_equals_softmax_written_out(tiny, around, reference):
    windows = place_windows(8, 16, 8, 2)
    layer, count = layers(tiny.unet)["attn1"], len(windows)
    tokens = torch.randn(2 * count, 16, layer.to_q.in_features, generator=torch.Generator().manual_seed(0))
    with attending(tiny.unet, windows, neighbours(windows, around, reference)):
        ours = layer(tokens)
    for group in range(2):
        own = tokens[group * count : (group + 1) * count]
        for i in range(count):
            sides = [(i + away) % count if around else min(max(i + away, 0), count - 1) for away in (-1, 0, 1)]
            parts = []
            for seen in (torch.cat([own[j] for j in sides]), own[count // 2]):
                q, k, v = layer.to_q(own[i]), layer.to_k(seen), layer.to_v(seen)
                heads = zip(*(x.chunk(layer.heads, 1) for x in (q, k, v)), strict=True)
                parts.append(
                    torch.cat([torch.softmax(a @ b.T / a.shape[1] ** 0.5, dim=1) @ c for a, b, c in heads], dim=1)
                )
            expected = layer.to_out[0]((parts[0] + reference * parts[1]) / (1 + reference))
            torch.testing.assert_close(ours[group * count + i], expected, atol=1e-5, rtol=1e-4)


def test_neighbours_are_seen_in_all_steps_and_the_middle_window_in_the_first(tiny, monkeypatch):
    """What each call of a self-attention layer is told, step by step; a window has 4 tokens or fewer, neighbours 3."""
    rules = []

    def told(windows, around, reference):
        return reference

    @contextmanager
    def entered(unet, windows, rule):
        rules.append(rule)
        yield

    monkeypatch.setattr("syncdiffusion.joint.attention.neighbours", told)
    monkeypatch.setattr("syncdiffusion.joint.attention.attending", entered)

    def of(**changes):
        rules.clear()
        METHOD.sample_latents(tiny, [PROMPT], [1], SyncTweediesSettings(**{**CANVAS, "steps": 10, **changes}))
        return list(rules)

    assert of() == [1.0] * 2 + [0.0] * 8  # the released code's ref_weight, t > 800 of 1000, in ten steps
    assert of(reference=0.5, middle=0.5) == [0.5] * 5 + [0.0] * 5
    assert of(attend=0.4, middle=1.0) == [1.0] * 4 and of(attend=0.0) == []


def test_attention_changes_the_panorama(tiny):
    def sampled(**changes):
        return METHOD.sample_latents(tiny, [PROMPT], [1], SyncTweediesSettings(**{**CANVAS, **changes}))

    none = sampled(attend=0.0)
    assert (sampled() - none).abs().max() > 1e-3
    assert torch.equal(sampled(), sampled(middle=0.25))  # a fifth of four steps is the first
    assert (sampled() - sampled(attend=0.25)).abs().max() > 1e-4  # the neighbours are seen in the others, too
    assert (sampled() - sampled(middle=1.0)).abs().max() > 1e-4
    assert (sampled(around=True) - sampled()).abs().max() > 1e-5
    ring = {"loop_closure": "full"}  # whose first window and last are neighbours, whatever was asked
    assert torch.equal(sampled(**ring), sampled(**ring, around=True))
    # A window that is its own neighbour and the middle one sees itself, four times over.
    torch.testing.assert_close(sampled(width=64, middle=1.0), sampled(width=64, attend=0.0), atol=1e-4, rtol=0)


def test_company_changes_no_panorama(tiny):
    chosen = SyncTweediesSettings(**{**CANVAS, "steps": 2, "attend": 0.5, "shared_start": False})
    alone = [METHOD.sample_latents(tiny, [p], [s], chosen) for p, s in ((PROMPT, 0), ("a city", 7))]
    together = METHOD.sample_latents(tiny, [PROMPT, "a city"], [0, 7], chosen)
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=0)


def test_calls_and_refusals(tiny, monkeypatch):
    check_calls(tiny, monkeypatch, "sync_tweedies", {**CANVAS, "steps": 2})
    for changes, message in (({"width": 120}, "^width=120: "), ({"height": 128}, "^height=128: .*use 64")):
        chosen = SyncTweediesSettings(**{**CANVAS, **changes})
        with pytest.raises(UsageError, match=message):
            METHOD.corners(chosen, Square(8, 8))
        with pytest.raises(UsageError, match=message):
            METHOD.generate(tiny, [PROMPT], [0], chosen)
