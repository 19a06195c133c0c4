"""DiffCollage's composition against a distribution whose score is known, and its parts against the network."""

import pytest
import torch

from baselines import METHODS
from baselines.diffcollage import DiffCollageSettings, compose
from syncdiffusion.errors import UsageError
from syncdiffusion.joint.noise import initial_noise
from syncdiffusion.joint.task import new_task
from tests.baselines.counting import check_calls

PROMPT, HALF = "a photo of a forest", 4
SIZE = {"height": 64, "guidance_scale": 2.0}


def test_a_markov_chain_s_score_is_composed_exactly():
    """Gaussian columns, each of which depends on its block of half a window and the block before alone."""
    blocks, count = 6, 6 * HALF
    generator = torch.Generator().manual_seed(0)
    precision = torch.zeros(count, count, dtype=torch.float64)
    for block in range(blocks - 1):  # a factor of each window: the graph is a chain
        columns = slice(block * HALF, (block + 2) * HALF)
        root = torch.randn(2 * HALF, 2 * HALF, generator=generator, dtype=torch.float64)
        precision[columns, columns] += root @ root.T + 0.1 * torch.eye(2 * HALF)
    covariance = torch.linalg.inv(precision)
    x = torch.randn(2, 3, 2 * HALF, count, generator=generator, dtype=torch.float64)

    def score(first, last):
        """Of the marginal of some columns."""
        columns = slice(first, last)
        return -x[..., columns] @ torch.linalg.inv(covariance[columns, columns])

    windows = torch.stack([score(j * HALF, (j + 2) * HALF) for j in range(blocks - 1)], dim=1)
    overlaps = torch.stack([score((j + 1) * HALF, (j + 2) * HALF) for j in range(blocks - 2)], dim=1)
    torch.testing.assert_close(compose(windows, overlaps, count), -x @ precision, rtol=1e-9, atol=1e-9)


def test_an_overlap_that_is_the_mean_of_its_windows_makes_an_average():
    generator = torch.Generator().manual_seed(1)
    for ring in (False, True):
        count, width = (5, 5 * HALF) if ring else (5, 6 * HALF)
        windows = torch.randn(1, count, 2, 8, 8, generator=generator)
        following = windows.roll(-1, dims=1)[:, : count - (not ring)]
        overlaps = (windows[:, : following.shape[1], ..., HALF:] + following[..., :HALF]) / 2
        total, seen = torch.zeros(1, 2, 8, width), torch.zeros(width)
        for j in range(count):
            columns = torch.arange(j * HALF, j * HALF + 8) % width
            total[..., columns] += windows[:, j]
            seen[columns] += 1
        torch.testing.assert_close(compose(windows, overlaps, width), total / seen, rtol=0, atol=1e-5)


@pytest.mark.parametrize("ring", [False, True])
def test_one_step_equals_the_formula_read_out(tiny, ring):
    chosen = DiffCollageSettings(**SIZE, width=160, steps=1, ring=ring)
    ours = METHODS["diffcollage"].sample_latents(tiny, [PROMPT], [2], chosen)
    task = new_task(tiny, [PROMPT], [2], chosen)
    x, step = initial_noise([PROMPT], [2], (4, 8, 20)), task.steps[0]
    noise = torch.zeros_like(x)
    with torch.no_grad():
        for j in range(5 if ring else 4):
            columns = torch.arange(4 * j, 4 * j + 8) % 20
            noise[..., columns] += tiny.predict_noise(x[..., columns], step.timestep, task.conditioning.text)
        for j in range(1, 6 if ring else 4):
            columns = torch.arange(4 * j, 4 * j + 4) % 20
            noise[..., columns] -= tiny.predict_noise(x[..., columns], step.timestep, task.conditioning.text)
    torch.testing.assert_close(ours, task.advance(step, x, noise), rtol=0, atol=1e-4)  # float32, other batches


@pytest.mark.parametrize("ring", [False, True])
def test_calls_are_counted(tiny, monkeypatch, ring):
    check_calls(tiny, monkeypatch, "diffcollage", {**SIZE, "width": 160, "steps": 2, "ring": ring})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"width": 72}, "width=72: "),
        ({"height": 128}, "height=128: this method.s windows lie in one row; use 64"),
        ({"width": 64, "ring": True}, "width=64"),
    ],
)
def test_a_canvas_that_is_no_chain_is_refused(tiny, changes, told):
    chosen = DiffCollageSettings(**{**SIZE, "width": 128, "steps": 1, **changes})
    with pytest.raises(UsageError, match=told):
        METHODS["diffcollage"].sample_latents(tiny, [PROMPT], [0], chosen)
