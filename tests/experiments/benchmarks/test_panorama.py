"""Diffusers' pipeline with our windows against our MultiDiffusion, which shares no loop with it."""

import pytest

from experiments.benchmarks import samplers
from experiments.benchmarks.panorama import panorama_pipeline, views_of
from experiments.benchmarks.samplers import MULTIDIFFUSION, Job, panorama, panoramas


@pytest.mark.parametrize("view_batch_size", [1, 2])
def test_the_pipeline_with_our_windows_gives_our_latents(tiny, tiny_case, view_batch_size, monkeypatch):
    task = Job(tiny, tiny_case.prompt, tiny_case.seed, tiny_case.timed[0])
    ours = MULTIDIFFUSION.latents(task)
    theirs = panorama(view_batch_size).latents(task)
    assert ours.shape == theirs.shape == (1, 4, 8, 16)
    assert (ours - theirs).abs().max() <= 1e-4  # float32 in other batches
    apart = ((0, 0), (0, 8))  # other windows that cover the canvas too: the views do matter
    monkeypatch.setattr(samplers, "windows_for", lambda *sizes: type("Placed", (), {"corners": apart}))
    assert (ours - panorama(view_batch_size).latents(task)).abs().max() > 1e-2


def test_the_pipeline_asks_for_the_views_that_were_put_in(tiny):
    views = views_of([(0, 0), (2, 4)], 8)
    assert views == [(0, 8, 0, 8), (2, 10, 4, 12)]
    assert panorama_pipeline(tiny, 2, views).get_views(64, 128, circular_padding=False) == views


def test_view_batch_sizes_end_at_all_views(tiny, tiny_case):
    task = Job(tiny, tiny_case.prompt, tiny_case.seed, tiny_case.timed[0])
    assert [each.window_batch for each in panoramas(task)] == [1, 2, 3]  # three windows
