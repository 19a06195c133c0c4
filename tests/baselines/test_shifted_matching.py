"""Shifted profile matching against a literal, unbatched loop, and what its limits must give."""

import math

import pytest
import torch
import yaml

from baselines.multidiffusion import METHOD as MULTIDIFFUSION
from baselines.multidiffusion import MultiDiffusionSettings
from baselines.released.literal import Ddim, guided_noise
from baselines.shifted_matching import METHOD, ShiftedMatchingSettings, corners, places, toward_profile
from syncdiffusion.cost import Square
from syncdiffusion.errors import UsageError
from syncdiffusion.geometry.weights import faded
from syncdiffusion.joint.noise import initial_noise
from tests.baselines.counting import check_calls
from tests.experiments.composing import REPOSITORY, compose_plan

PROMPT = "a photo of a forest"
CANVAS = {"height": 64, "width": 168, "steps": 4, "guidance_scale": 3.0}  # 21 cells, which no two windows of 8 tile


def starts(length: int, size: int, stride: int, shift: int) -> list[int]:
    """From the middle to either end, stride by stride."""
    last = length - size
    found = {min(last // 2 + shift, last)}
    while max(found) < last:
        found.add(min(max(found) + stride, last))
    left = last // 2 + shift
    while left > 0:
        left = max(0, left - stride)
        found.add(min(left, last))
    return sorted(found)


def weight(cell: int, size: int, fade: float) -> float:
    return 1.0 if fade == 0 else min(1.0, (min(cell, size - 1 - cell) + 0.5) / (fade * size))


def average(seen: list, size: int, like: torch.Tensor, fade: float) -> torch.Tensor:
    """Canvas of windows, (top, left, [1, c, size, size]) each, cell by cell."""
    value, total = torch.zeros_like(like), torch.zeros_like(like)
    for top, left, x in seen:
        for row in range(size):
            for column in range(size):
                share = weight(row, size, fade) * weight(column, size, fade)
                value[..., top + row, left + column] += share * x[..., row, column]
                total[..., top + row, left + column] += share
    return value / total


def moved_rows(x0: torch.Tensor, anchor: torch.Tensor, share: float) -> torch.Tensor:
    """The module's goal_u, row by row and column by column."""
    (width, size), move = (x0.shape[-1], anchor.shape[-1]), torch.zeros_like(x0)
    for channel in range(x0.shape[1]):
        for row in range(x0.shape[2]):
            values, theirs = x0[0, channel, row].double(), anchor[0, channel, row].double()
            for column in range(width):
                begin = min(max(column - size // 2, 0), width - size)
                part = values[begin : begin + size]
                wider = min(2.0, max(0.5, theirs.std(unbiased=False) / part.std(unbiased=False)))
                goal = theirs.mean() + (values[column] - part.mean()) * wider
                move[0, channel, row, column] = share * (goal - values[column])
    return move


def literal(tiny, prompt: str, seed: int, settings: ShiftedMatchingSettings) -> torch.Tensor:
    size, ddim = tiny.window, Ddim(settings.steps)
    canvas = initial_noise([prompt], [seed], (4, settings.height // 8, settings.width // 8))
    text, empty = tiny.encode_prompts([prompt]), tiny.encode_prompts([""])
    stride = math.floor(size * (1 - settings.overlap))
    for i, t in enumerate(ddim.timesteps):
        across, down = i * 0.6180339887, i * 0.4142135624
        tops = starts(canvas.shape[2], size, stride, math.floor((down - math.floor(down)) * stride))
        lefts = starts(canvas.shape[3], size, stride, math.floor((across - math.floor(across)) * stride))
        seen = []
        for top in tops:
            for left in lefts:
                x = canvas[..., top : top + size, left : left + size]
                with torch.no_grad():
                    seen.append((top, left, x, guided_noise(tiny, x, t, text, empty, settings.guidance_scale)))
        foreseen = [(top, left, ddim.foreseen(x, noise, t)) for top, left, x, noise in seen]
        move = torch.zeros_like(canvas)
        if settings.first_n is None or i < settings.first_n:
            share = settings.strength * settings.decay**i
            middle = min(lefts, key=lambda left: abs(left - (canvas.shape[3] - size) // 2))
            x0 = average(foreseen, size, canvas, settings.fade)
            move = moved_rows(x0, x0[..., middle : middle + size], share) * ddim.alpha_bar[t].sqrt()
        stepped = [
            (top, left, ddim.previous(x + move[..., top : top + size, left : left + size], noise, t))
            for top, left, x, noise in seen
        ]
        canvas = average(stepped, size, canvas, settings.fade)
    return canvas


@pytest.mark.parametrize(
    "changes",
    [{}, {"strength": 1.0, "overlap": 0.5, "steps": 3}, {"first_n": 2, "decay": 0.8, "fade": 0.0}]
    + [{"height": 104, "width": 104, "steps": 2}],
    ids=str,
)
def test_it_equals_the_literal_loop(tiny, changes):
    """Tolerance: float32 networks in batches sum in another order; see test_sync."""
    chosen = ShiftedMatchingSettings(**{**CANVAS, "window_batch": 3, **changes})
    ours = METHOD.sample_latents(tiny, [PROMPT], [3], chosen)
    assert (ours - literal(tiny, PROMPT, 3, chosen)).abs().max() <= 1e-4
    for other in ({"strength": 0.0}, {"shifted": False}):  # the comparison can fail: both are seen in the result
        without = ShiftedMatchingSettings(**{**CANVAS, **changes, **other})
        assert (ours - METHOD.sample_latents(tiny, [PROMPT], [3], without)).abs().max() > 1e-2


@pytest.mark.parametrize("none", [{"strength": 0.0}, {"first_n": 0}])
@pytest.mark.parametrize(("stride", "overlap"), [(2, 0.75), (8, 0.0)])
def test_windows_that_stay_weigh_alike_and_match_nothing_are_multidiffusions(tiny, none, stride, overlap):
    canvas = {**CANVAS, "width": 192}
    chosen = ShiftedMatchingSettings(**canvas, overlap=overlap, shifted=False, fade=0.0, **none)
    plain = MultiDiffusionSettings(**canvas, stride=stride)
    ours, theirs = (m.sample_latents(tiny, [PROMPT], [1], s) for m, s in ((METHOD, chosen), (MULTIDIFFUSION, plain)))
    assert torch.equal(ours, theirs)


def test_one_window_has_nothing_to_match(tiny):
    """A column's profile is then that of all columns. Tolerance: rounding of the matching's sums."""
    square = {**CANVAS, "width": 64}
    ours = METHOD.sample_latents(tiny, [PROMPT], [1], ShiftedMatchingSettings(**square, strength=1.0))
    theirs = MULTIDIFFUSION.sample_latents(tiny, [PROMPT], [1], MultiDiffusionSettings(**square, stride=8))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_places_cover_every_length_with_few_windows():
    for size in (8, 16):
        for stride in range(1, size + 1):
            for length in range(size, 5 * size):
                for shift in range(stride):
                    found = places(length, size, stride, shift)
                    assert found == starts(length, size, stride, shift)
                    assert found[0] == 0 and found[-1] == length - size
                    assert all(1 <= b - a <= stride for a, b in zip(found, found[1:], strict=False))
                    assert len(found) <= math.ceil((length - size) / stride) + 2


def test_windows_begin_at_every_cell_before_long():
    """Every 56 of 384 cells: in 48 steps no gap between borders is wider than 3 cells (three-gap theorem)."""
    square, canvas = Square(64, 8), ShiftedMatchingSettings()
    lefts = [[left for _, left in corners(canvas, square, step)] for step in range(48)]
    second = sorted({each[1] for each in lefts})
    assert second[-1] - second[0] >= 53 and max(b - a for a, b in zip(second, second[1:], strict=False)) <= 3
    assert {len(each) for each in lefts} == {7, 8}
    assert 160 in lefts[0]  # the middle of 384 cells: where MultiDiffusion's and SyncDiffusion's centre window is


def test_weights_fall_to_the_sides():
    expected = torch.tensor([0.125, 0.375, 0.625, 0.875] + [1.0] * 8 + [0.875, 0.625, 0.375, 0.125])
    torch.testing.assert_close(faded(16, 0.25), expected[:, None] * expected)
    assert torch.equal(faded(8, 0.0), torch.ones(8, 8))


def test_columns_far_from_the_centre_get_the_anchors_profile():
    """A pattern that repeats every 8 columns has one profile; a part of another level and contrast gets it."""
    pattern = torch.randn(1, 2, 3, 8, generator=torch.Generator().manual_seed(0)).repeat(1, 1, 1, 6)
    anchor = pattern[..., 3:11]
    assert toward_profile(pattern, anchor, 1.0).abs().max() < 1e-5
    changed = pattern.clone()
    changed[..., 32:] = 1.5 * changed[..., 32:] + 3
    matched = changed + toward_profile(changed, anchor, 1.0)
    torch.testing.assert_close(matched[..., 36:], pattern[..., 36:], atol=1e-4, rtol=0)
    assert toward_profile(changed, anchor, 1.0)[..., :28].abs().max() < 1e-5
    half = toward_profile(changed.half(), anchor.half(), 1.0)  # tolerance: float16 has 11 bits, values are below 10
    torch.testing.assert_close(half.float(), toward_profile(changed, anchor, 1.0), atol=2e-2, rtol=0)


def test_company_and_the_global_generator_change_no_panorama(tiny):
    chosen = ShiftedMatchingSettings(**CANVAS)
    alone = [METHOD.sample_latents(tiny, [p], [s], chosen) for p, s in ((PROMPT, 0), ("a city", 7))]
    together = METHOD.sample_latents(tiny, [PROMPT, "a city"], [0, 7], chosen)
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=0)
    torch.manual_seed(5)
    assert torch.equal(METHOD.sample_latents(tiny, [PROMPT], [0], chosen), alone[0])


def test_its_calls_are_counted_step_by_step(tiny, monkeypatch):
    check_calls(tiny, monkeypatch, "shifted_matching", CANVAS)
    check_calls(tiny, monkeypatch, "shifted_matching", {**CANVAS, "height": 104, "window_batch": 4})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 160 + 3}, "^width=163: .*nearest that they can: 160"),
        ({"height": 32}, "^height=32: .*: 64"),
    ],
)
def test_a_canvas_of_parts_of_cells_or_of_windows_is_refused(tiny, changes, message):
    with pytest.raises(UsageError, match=message):
        METHOD.generate(tiny, [PROMPT], [0], ShiftedMatchingSettings(**{**CANVAS, **changes}))


@pytest.mark.parametrize("changes", [{"overlap": 1.0}, {"fade": 0.6}, {"strength": -0.1}, {"shifted": 1}])
def test_bad_settings_are_refused_by_name(changes):
    with pytest.raises(UsageError, match=f"^{next(iter(changes))}="):
        ShiftedMatchingSettings(**changes)


def test_it_is_tuned_on_prompts_and_seeds_that_judge_nothing():
    plan = compose_plan(["experiment=ablation_fastest"])
    assert {unit.method for unit in plan.units} >= {"shifted_matching", "multidiffusion"}
    judged = {text for name in ("paper", "heldout", "demo", "one") for text in texts(name)}
    assert set(texts("tuning")) == {unit.prompt for unit in plan.units} and not set(texts("tuning")) & judged
    assert min(unit.seed for unit in plan.units) >= 300  # tables have seeds below


def texts(name: str) -> list[str]:
    return yaml.safe_load((REPOSITORY / "conf" / "prompts" / f"{name}.yaml").read_text())["texts"]
