"""TwinDiffusion against a literal loop, and against the fixed weights that its crop fusion amounts to."""

import pytest
import torch

from baselines.multidiffusion import METHOD as MULTIDIFFUSION
from baselines.multidiffusion import MultiDiffusionSettings
from baselines.released.literal import Ddim, guided_noise, views_of
from baselines.twindiffusion import METHOD, TwinDiffusionSettings, crop_fused
from syncdiffusion.cost import Square
from syncdiffusion.errors import UsageError
from syncdiffusion.geometry.windows import place_windows
from syncdiffusion.joint.noise import initial_noise
from tests.baselines.counting import check_calls

PROMPT = "a photo of a forest"
CANVAS = {"height": 64, "width": 128, "steps": 4, "guidance_scale": 3.0, "stride": 2}


def literal(tiny, seed: int, settings: TwinDiffusionSettings) -> torch.Tensor:
    """One canvas, a window at a time; fused cell by cell with what the left neighbour has become."""
    size, ddim = tiny.window, Ddim(settings.steps)
    canvas = initial_noise([PROMPT], [seed], (4, settings.height // 8, settings.width // 8))
    text, empty = tiny.encode_prompts([PROMPT]), tiny.encode_prompts([""])
    last = canvas.shape[3] - size
    for i, t in enumerate(ddim.timesteps):
        value, count = torch.zeros_like(canvas), torch.zeros_like(canvas)
        before: tuple[int, torch.Tensor] | None = None
        for top, left in views_of(*canvas.shape[2:], size, settings.stride):
            if left not in (0, last):
                left += settings.stride // settings.sets * (i % settings.sets)
            x = canvas[..., top : top + size, left : left + size]
            with torch.no_grad():
                x = ddim.previous(x, guided_noise(tiny, x, t, text, empty, settings.guidance_scale), t)
            if left > 0 and i < settings.crop * settings.steps:
                for column in range(size):
                    theirs = column + left - before[0]
                    if theirs < size:
                        x[..., column] = (before[1][..., theirs] + settings.own * x[..., column]) / (1 + settings.own)
            before = (left, x)
            value[..., top : top + size, left : left + size] += x
            count[..., top : top + size, left : left + size] += 1
        canvas = value / count
    return canvas


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"stride": 4, "sets": 4},
        {"stride": 4, "own": 0.5, "crop": 1.0},
        {"height": 128, "stride": 4, "steps": 2},
        {"width": 80},
    ],
    ids=str,
)
def test_it_equals_the_literal_loop(tiny, changes):
    """Tolerance: float32 networks in batches sum in another order."""
    chosen = TwinDiffusionSettings(**{**CANVAS, **changes})
    ours = METHOD.sample_latents(tiny, [PROMPT], [3], chosen)
    assert (ours - literal(tiny, 3, chosen)).abs().max() <= 1e-4
    plain = MultiDiffusionSettings(**{key: getattr(chosen, key) for key in CANVAS})
    assert (ours - MULTIDIFFUSION.sample_latents(tiny, [PROMPT], [3], plain)).abs().max() > 1e-3


def test_without_both_changes_it_is_multidiffusion(tiny):
    ours = METHOD.sample_latents(tiny, [PROMPT], [1], TwinDiffusionSettings(**CANVAS, sets=1, crop=0.0))
    assert torch.equal(ours, MULTIDIFFUSION.sample_latents(tiny, [PROMPT], [1], MultiDiffusionSettings(**CANVAS)))


def test_crop_fusion_is_an_average_with_fixed_weights():
    """By hand: a, (a+b)/2, a/4+b/4+c/2, a/8+b/8+c/4+d/2, and their mean."""
    windows = place_windows(64, 192, 64, 16)
    found = []
    for j in range(2, 6):  # of the windows at 32, 48, 64, 80 the ones that cover columns 80 to 95
        views = torch.zeros(1, len(windows), 1, 64, 64)
        views[:, j] = 1
        found.append(windows.fuse(crop_fused(windows, views, 1.0))[0, 0, 5, 80:96])
    weights = torch.stack(found)
    expected = torch.tensor([1.875, 0.875, 0.75, 0.5])[:, None].expand(4, 16) / 4
    torch.testing.assert_close(weights, expected)
    torch.testing.assert_close(expected[:, 0], torch.tensor([0.469, 0.219, 0.188, 0.125]), atol=5e-4, rtol=0)


def test_calls_and_refusals(tiny, monkeypatch):
    check_calls(tiny, monkeypatch, "twindiffusion", {**CANVAS, "steps": 2})
    square = Square(64, 8)
    with pytest.raises(UsageError, match="^width=520: "):
        METHOD.corners(TwinDiffusionSettings(width=520), square)
    with pytest.raises(UsageError, match="^sets=2: with stride=64 "):
        METHOD.corners(TwinDiffusionSettings(stride=64, width=1536), square)
    with pytest.raises(UsageError, match="^sets=17: "):
        METHOD.corners(TwinDiffusionSettings(sets=17), square)
    assert len(METHOD.corners(TwinDiffusionSettings(stride=64, width=1024), square)) == 2
