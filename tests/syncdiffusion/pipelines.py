"""Pipelines for tests, opened in silence."""

import warnings

import torch

from syncdiffusion.pipeline import SyncDiffusionPipeline


def opened(folder, **options) -> SyncDiffusionPipeline:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipe = SyncDiffusionPipeline.from_pretrained(folder, **options)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def of_diffusers(pipeline, ours: SyncDiffusionPipeline):
    """A pipeline of diffusers' own of the same networks."""
    made = pipeline(**ours.components, requires_safety_checker=False)
    made.set_progress_bar_config(disable=True)
    return made


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
