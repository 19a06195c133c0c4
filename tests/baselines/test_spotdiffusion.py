"""SpotDiffusion against a literal loop that rolls the canvas, as the official code does, and then rolls it back."""

import pytest
import torch

from baselines.released.literal import Ddim, guided_noise
from baselines.spotdiffusion import METHOD, SpotDiffusionSettings
from syncdiffusion.errors import UsageError
from syncdiffusion.joint.noise import initial_noise, noise_generator
from tests.baselines.counting import check_calls

PROMPT = "a photo of a forest"
CANVAS = {"height": 64, "width": 192, "steps": 4, "guidance_scale": 3.0}


def literal(tiny, prompt: str, seed: int, settings: SpotDiffusionSettings, still: bool = False) -> torch.Tensor:
    """One canvas [1, 4, h, w]; a tile at a time, DDIM written out; `still` never rolls."""
    size, ddim, rolled = tiny.window, Ddim(settings.steps), 0
    canvas = initial_noise([prompt], [seed], (4, settings.height // 8, settings.width // 8))
    generator = noise_generator(prompt, seed, "shift")
    text, empty = tiny.encode_prompts([prompt]), tiny.encode_prompts([""])
    with torch.no_grad():
        for i, t in enumerate(ddim.timesteps):
            if i > 0 and not still:
                shift = int(torch.randint(canvas.shape[3], (), generator=generator))
                canvas, rolled = torch.roll(canvas, -shift, dims=3), rolled + shift
            moved = torch.empty_like(canvas)
            for top in range(0, canvas.shape[2], size):
                for left in range(0, canvas.shape[3], size):
                    x = canvas[:, :, top : top + size, left : left + size]
                    noise = guided_noise(tiny, x, t, text, empty, settings.guidance_scale)
                    moved[:, :, top : top + size, left : left + size] = ddim.previous(x, noise, t)
            canvas = moved
    return torch.roll(canvas, rolled, dims=3)


@pytest.mark.parametrize("changes", [{}, {"width": 128, "steps": 3}, {"width": 64}, {"window_batch": 2}], ids=str)
def test_it_equals_the_literal_loop(tiny, changes):
    """Tolerance: float32 networks in batches sum in another order; see test_sync."""
    chosen = SpotDiffusionSettings(**{**CANVAS, **changes})
    ours = METHOD.sample_latents(tiny, [PROMPT], [3], chosen)
    assert (ours - literal(tiny, PROMPT, 3, chosen)).abs().max() <= 1e-4
    # The comparison can fail: without shifts the result is another.
    assert (ours - literal(tiny, PROMPT, 3, chosen, still=True)).abs().max() > 1e-2


def test_every_panorama_has_shifts_of_its_own(tiny):
    chosen = SpotDiffusionSettings(**CANVAS)
    alone = [METHOD.sample_latents(tiny, [p], [s], chosen) for p, s in ((PROMPT, 0), (PROMPT, 1), ("a city", 0))]
    together = METHOD.sample_latents(tiny, [PROMPT, PROMPT, "a city"], [0, 1, 0], chosen)
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=0)
    torch.manual_seed(5)  # the global generator has no say
    assert torch.equal(METHOD.sample_latents(tiny, [PROMPT], [0], chosen), alone[0])


def test_its_calls_are_a_fraction(tiny, monkeypatch):
    check_calls(tiny, monkeypatch, "spotdiffusion", CANVAS)
    check_calls(tiny, monkeypatch, "spotdiffusion", {**CANVAS, "width": 256, "window_batch": 3})


def test_a_canvas_that_squares_do_not_tile_is_refused(tiny):
    with pytest.raises(UsageError, match="^width=160: .*nearest that they can: 192"):
        METHOD.generate(tiny, [PROMPT], [0], SpotDiffusionSettings(**{**CANVAS, "width": 160}))
    with pytest.raises(UsageError, match="^height=128: .* use 64"):  # two rows that would never meet
        METHOD.generate(tiny, [PROMPT], [0], SpotDiffusionSettings(**{**CANVAS, "height": 128}))
