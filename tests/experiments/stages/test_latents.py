"""Latents of a panorama that could not be decoded are kept, and gone on from."""

import json

import pytest
import torch

from experiments.common.resources import Cost
from experiments.panoramas.latents import Latents, keep_latents, kept_latents
from experiments.stages.generate import generate
from syncdiffusion.errors import UsageError
from syncdiffusion.joint import decode
from syncdiffusion.method import Method

ONE = ["~baselines.blended_latent", "seeds.count=1", "prompts.texts=[hills]", "reference.count=0"]


def test_the_next_run_goes_on_from_what_was_sampled_and_makes_the_same_bytes(compose, monkeypatch, tmp_path):
    quiet = compose(*ONE, f"run_dir={tmp_path / 'quiet'}", "shared_dir=null")
    assert generate(quiet) == 1
    plan = compose(*ONE)
    png = plan.units[0].png(plan.folder)
    with monkeypatch.context() as scarce:
        scarce.setattr(decode, "unless_out_of_memory", lambda function, rows: None)
        with pytest.raises(
            UsageError, match="not even one window fits.* the latents are kept in .*0.latents.safetensors, and the next"
        ) as told:
            generate(plan)
    assert "\n" not in str(told.value)
    (kept,) = (path for path in png.parent.iterdir() if path.is_file())
    assert str(kept) in str(told.value) and kept.name == "0.latents.safetensors"

    def never(*arguments):
        raise AssertionError("sampled again")

    with monkeypatch.context() as decoding_alone:
        decoding_alone.setattr(Method, "sample_latents", never)
        assert generate(plan) == 1
    assert png.read_bytes() == quiet.units[0].png(quiet.folder).read_bytes()
    assert sorted(path.name for path in png.parent.iterdir()) == ["0.json", "0.png"]
    record = json.loads(png.with_suffix(".json").read_text())
    assert record["execution"] == {"memory_format": "channels_last", "tf32": False, "decoder": "float32"}
    assert record["seconds"] > 0 and record["peak_memory_bytes"] > 0


def test_latents_of_another_panorama_or_damaged_ones_are_none(tmp_path):
    path = tmp_path / "0.latents.safetensors"
    assert kept_latents(path, "key") is None
    sampled = Latents(torch.randn(1, 4, 8, 24, generator=torch.Generator().manual_seed(0)), Cost(1.5, 2**20))
    keep_latents(path, "key", sampled)
    found = kept_latents(path, "key")
    assert found is not None and torch.equal(found.latents, sampled.latents)
    assert found.cost == Cost(1.5, 2**20)
    assert kept_latents(path, "another key") is None
    path.write_bytes(path.read_bytes()[:100])
    assert kept_latents(path, "key") is None
