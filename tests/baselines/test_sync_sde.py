"""SyncSDE against a literal loop over windows that each keep their own latents."""

import pytest
import torch

from baselines.multidiffusion import METHOD as MULTIDIFFUSION
from baselines.multidiffusion import MultiDiffusionSettings
from baselines.released.literal import Ddim, guided_noise
from baselines.sync_sde import METHOD, SyncSdeSettings
from syncdiffusion.cost import Square
from syncdiffusion.errors import UsageError
from syncdiffusion.joint.noise import initial_noise
from syncdiffusion.joint.task import Given
from tests.baselines.counting import check_calls

PROMPT = "a photo of a forest"
CANVAS = {"height": 64, "width": 128, "steps": 4, "guidance_scale": 3.0, "stride": 2}


def literal(tiny, seed: int, settings: SyncSdeSettings) -> torch.Tensor:
    size, ddim, stride = tiny.window, Ddim(settings.steps), settings.stride
    canvas = initial_noise([PROMPT], [seed], (4, size, settings.width // 8))
    lefts = range(0, canvas.shape[3] - size + 1, stride)
    own = [canvas[..., left : left + size].clone() for left in lefts]
    text, empty = tiny.encode_prompts([PROMPT]), tiny.encode_prompts([""])
    for t in ddim.timesteps:
        now, then = ddim.alpha_bar[t], ddim.alpha_bar[max(t - ddim.gap, 0)]
        gamma = (then / now) ** 0.5 - ((1 - then) / (1 - now)) ** 0.5
        after = []
        for j, x in enumerate(own):
            with torch.no_grad():
                moved = ddim.previous(x, guided_noise(tiny, x, t, text, empty, settings.guidance_scale), t)
            for column in range(size - stride) if j > 0 else ():
                apart = x[..., column] - own[j - 1][..., column + stride]
                moved[..., column] -= gamma * settings.kappa * (t / ddim.timesteps[0]) * apart
            after.append(moved)
        own = after
    for left, x in zip(lefts, own, strict=True):
        canvas[..., left : left + size] = x
    return canvas


@pytest.mark.parametrize("changes", [{}, {"kappa": 2.0, "stride": 4}, {"steps": 3, "window_batch": 2}], ids=str)
def test_it_equals_the_literal_loop(tiny, changes):
    """Tolerance: float32 networks in batches sum in another order."""
    chosen = SyncSdeSettings(**{**CANVAS, **changes})
    ours = METHOD.sample_latents(tiny, [PROMPT], [3], chosen)
    assert (ours - literal(tiny, 3, chosen)).abs().max() <= 1e-4
    free = METHOD.sample_latents(tiny, [PROMPT], [3], SyncSdeSettings(**{**CANVAS, **changes, "kappa": 0.0}))
    assert (ours - free).abs().max() > 1e-3  # the windows are drawn to each other


def test_windows_side_by_side_are_multidiffusions(tiny):
    canvas = {**CANVAS, "stride": 8}
    ours = METHOD.sample_latents(tiny, [PROMPT], [1], SyncSdeSettings(**canvas))
    assert torch.equal(ours, MULTIDIFFUSION.sample_latents(tiny, [PROMPT], [1], MultiDiffusionSettings(**canvas)))


def test_calls_and_refusals(tiny, monkeypatch):
    check_calls(tiny, monkeypatch, "sync_sde", {**CANVAS, "steps": 2})
    for changes, message in (
        ({"width": 120, "stride": 4}, "^width=120: "),
        ({"height": 128}, "^height=128: .*use 64"),
    ):
        chosen = SyncSdeSettings(**{**CANVAS, **changes})
        with pytest.raises(UsageError, match=message):
            METHOD.corners(chosen, Square(8, 8))
        with pytest.raises(UsageError, match=message):
            METHOD.generate(tiny, [PROMPT], [0], chosen)


@pytest.mark.parametrize("sampler", ["euler", "dpmpp"])
def test_windows_that_are_not_drawn_are_what_each_is_alone(tiny, sampler):
    """The last window, which lies over all others, against a canvas of its noise; float32 in other batches."""
    free = SyncSdeSettings(**CANVAS | {"kappa": 0.0, "sampler": sampler})
    found = METHOD.sample_latents(tiny, [PROMPT], [3], free)[..., -8:]
    noise = initial_noise([PROMPT], [3], (4, 8, 16))[..., -8:]
    alone = MULTIDIFFUSION.sample_latents(
        tiny,
        [PROMPT],
        [3],
        MultiDiffusionSettings(**CANVAS | {"width": 64, "sampler": sampler}),
        given=Given(noise=noise),
    )
    torch.testing.assert_close(found, alone, rtol=0, atol=1e-4)
