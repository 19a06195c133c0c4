"""SaFa against a literal loop that copies columns and rows one at a time."""

import pytest
import torch

from baselines.multidiffusion import METHOD as MULTIDIFFUSION
from baselines.multidiffusion import MultiDiffusionSettings
from baselines.released.literal import Ddim, guided_noise
from baselines.safa import METHOD, SafaSettings, swap_masks
from syncdiffusion.cost import Square
from syncdiffusion.errors import UsageError
from syncdiffusion.geometry.windows import place_windows
from syncdiffusion.joint.noise import initial_noise, noise_generator
from tests.baselines.counting import check_calls

PROMPT = "a photo of a forest"
CANVAS = {"height": 64, "width": 144, "steps": 4, "guidance_scale": 3.0}  # windows of 8 cells every 5


def literal(tiny, seed: int, settings: SafaSettings) -> torch.Tensor:
    size, ddim = tiny.window, Ddim(settings.steps)
    overlap = 3 if settings.overlap is None else round(settings.overlap * size)
    hop = size - overlap
    canvas = initial_noise([PROMPT], [seed], (4, size, settings.width // 8))
    lefts = list(range(0, canvas.shape[3] - size + 1, hop))
    reference = torch.randn(1, 4, size, size, generator=noise_generator(PROMPT, seed, "reference"))
    text, empty = tiny.encode_prompts([PROMPT]), tiny.encode_prompts([""])

    def stepped(x: torch.Tensor, t: int) -> torch.Tensor:
        with torch.no_grad():
            return ddim.previous(x, guided_noise(tiny, x, t, text, empty, settings.guidance_scale), t)

    def from_left(m: int) -> bool:
        """v_m of the formula, m from 1."""
        return (1 - (-1) ** ((m - 1) // settings.swap_width)) / 2 == 1

    for i, t in enumerate(ddim.timesteps):
        views = [stepped(canvas[..., left : left + size], t) for left in lefts]
        if i < settings.guided * settings.steps:
            reference = stepped(reference, t)
            for j, view in enumerate(views):
                for column in range(size):
                    shared = (j > 0 and column < overlap) or (j < len(views) - 1 and column >= hop)
                    for row in range(size):
                        if not shared and from_left(row + 1):
                            view[..., row, column] = reference[..., row, column]
        canvas = torch.full_like(canvas, torch.nan)
        for left, view in zip(lefts, views, strict=True):
            for column in range(size):
                if left == 0 or column >= overlap or not from_left(column + 1):
                    canvas[..., left + column] = view[..., column]
    return canvas


@pytest.mark.parametrize(
    "changes",
    [{}, {"swap_width": 2, "overlap": 0.5, "width": 160}, {"guided": 1.0}, {"guided": 0.0, "window_batch": 2}],
    ids=str,
)
def test_it_equals_the_literal_loop(tiny, changes):
    """Tolerance: float32 networks in batches sum in another order."""
    chosen = SafaSettings(**{**CANVAS, **changes})
    ours = METHOD.sample_latents(tiny, [PROMPT], [3], chosen)
    assert (ours - literal(tiny, 3, chosen)).abs().max() <= 1e-4
    other = SafaSettings(**{**CANVAS, **changes, "guided": 0.0 if chosen.guided else 1.0})
    assert (ours - METHOD.sample_latents(tiny, [PROMPT], [3], other)).abs().max() > 1e-2


def test_every_cell_comes_from_one_window():
    windows = place_windows(8, 18, 8, 5)
    taken, alone = swap_masks(windows, 1)
    total = torch.zeros(18)
    for mask, (_, left) in zip(taken, windows.corners, strict=True):
        total[left : left + 8] += mask[3]
    assert torch.equal(total, torch.ones(18))
    assert [int(each.any(0).sum()) for each in alone] == [5, 2, 5]  # columns that a window shares with no other
    one, rest = swap_masks(place_windows(8, 8, 8, 5), 1)
    assert one.all() and rest[0].any(0).all()


def test_company_changes_no_panorama(tiny):
    chosen = SafaSettings(**{**CANVAS, "steps": 2})
    alone = [METHOD.sample_latents(tiny, [p], [s], chosen) for p, s in ((PROMPT, 0), ("a city", 7))]
    together = METHOD.sample_latents(tiny, [PROMPT, "a city"], [0, 7], chosen)
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=0)


def test_calls_and_refusals(tiny, monkeypatch):
    for guided in (0.3, 0.5, 0.0):
        check_calls(tiny, monkeypatch, "safa", {**CANVAS, "guided": guided})
    for changes, message in (({"width": 152}, "^width=152: .*: 144"), ({"height": 104}, "^height=104: .*use 64")):
        chosen = SafaSettings(**{**CANVAS, **changes})
        with pytest.raises(UsageError, match=message):
            METHOD.corners(chosen, Square(8, 8))
        with pytest.raises(UsageError, match=message):
            METHOD.generate(tiny, [PROMPT], [0], chosen)
    with pytest.raises(UsageError, match=r"^overlap=0\.6"):
        SafaSettings(overlap=0.6)


@pytest.mark.parametrize(
    ("square", "width", "overlap"),
    [
        (Square(64, 8), 3072, 0.375),  # 320 cells beyond a window: 50 and 51 of the 64 do not divide them, 40 does
        (Square(16, 8), 768, 0.375),
        (Square(128, 8), 4096, 0.25),  # 384 = 4 · 96; 97 to 102 do not divide it
        (Square(128, 8), 1024, 26 / 128),  # a window alone: the first from a fifth on
        (Square(64, 8), 512 + 8 * 51, 13 / 64),
    ],
)
def test_the_overlap_is_the_least_from_a_fifth_on_that_covers_the_canvas(square, width, overlap):
    settings = SafaSettings(height=square.pixels, width=width)
    hop = square.window - round(overlap * square.window)
    lefts = [left for _, left in METHOD.corners(settings, square)]
    assert lefts == list(range(0, width // square.factor - square.window + 1, hop))
    given = SafaSettings(height=square.pixels, width=width, overlap=overlap)
    assert METHOD.corners(given, square) == METHOD.corners(settings, square)
    assert METHOD.calls(given, square) == METHOD.calls(settings, square)


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp"])
def test_a_reference_of_which_nothing_is_copied_changes_nothing(tiny, sampler):
    """One window, and swaps so wide that all rows are its own: MultiDiffusion's square."""
    square = {"height": 64, "width": 64, "steps": 4, "guidance_scale": 3.0, "sampler": sampler}
    found = METHOD.sample_latents(tiny, [PROMPT], [2], SafaSettings(**square, guided=1.0, swap_width=8))
    plain = MULTIDIFFUSION.sample_latents(tiny, [PROMPT], [2], MultiDiffusionSettings(**square, stride=4))
    torch.testing.assert_close(found, plain, rtol=0, atol=1e-5)
