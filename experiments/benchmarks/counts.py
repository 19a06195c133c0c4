"""FLOPs of every sampler, by counting one evaluation of each network and adding up: needs neither a GPU nor weights."""

from collections.abc import Iterator
from dataclasses import astuple, replace
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from experiments.benchmarks.cases import Case
from experiments.benchmarks.compare import NETWORKS
from experiments.benchmarks.samplers import APPROXIMATIONS, LITERAL, MULTIDIFFUSION, SYNCDIFFUSION, Job, Sampler
from experiments.benchmarks.timing import flops_of_each
from syncdiffusion.backbones.backbone import Backbone
from syncdiffusion.cost import NetworkCalls
from syncdiffusion.perceptual.distances import load_perceptual
from syncdiffusion.sync import SyncDiffusionSettings


def counts(case: Case) -> list[dict[str, Any]]:
    """A row for each sampler and each of the case's timed settings, the canvas' last decoding left out."""
    backbone = case.load("meta", "float32")
    losses = {settings.loss for _, settings in counted_samplers(case)}
    networks = {name: load_perceptual(name) for name in losses}  # before: a file's bytes must be real
    with FakeTensorMode(allow_non_fake_inputs=True):
        backbone = without_values(backbone)
        each = {name: flops_of_each(backbone, network) for name, network in networks.items()}
        rows = [counted_row(backbone, case, *chosen, each) for chosen in counted_samplers(case)]
    plain = next(row["flops"] for row in rows if row["sampler"] == MULTIDIFFUSION.name)
    return [row | {"times_multidiffusion": row["flops"] / plain} for row in rows]


def counted_samplers(case: Case) -> Iterator[tuple[Sampler, SyncDiffusionSettings]]:
    """What is counted. What an approximation and MultiDiffusion cost does not depend on the gate."""
    first = case.timed[0]
    yield MULTIDIFFUSION, first
    for sampler in APPROXIMATIONS:
        yield sampler, first
    alex = replace(first, loss="lpips_alex")
    yield replace(SYNCDIFFUSION, name="syncdiffusion without Jacobian"), replace(alex, unet_gradient=False)
    yield replace(SYNCDIFFUSION, name="syncdiffusion, LPIPS-Alex"), alex
    for settings in case.timed:
        yield SYNCDIFFUSION, settings
        yield LITERAL, settings


def counted_row(
    backbone: Backbone,
    case: Case,
    sampler: Sampler,
    settings: SyncDiffusionSettings,
    each: dict[str, NetworkCalls],
) -> dict[str, Any]:
    calls = sampler.calls(Job(backbone, case.prompt, case.seed, settings))
    flops = [count * one for count, one in zip(astuple(calls), astuple(each[settings.loss]), strict=True)]
    return {
        "comparison": "counts",
        "sampler": sampler.name,
        "case": case.name,
        **{name: getattr(settings, name) for name in ("height", "width", "stride", "steps")},
        "first_n": settings.first_n if calls.loss else None,
        **dict(zip(NETWORKS, astuple(calls), strict=True)),
        **{f"flops_{name}": value for name, value in zip(NETWORKS, flops, strict=True)},
        "flops": sum(flops),
    }


def without_values(backbone: Backbone) -> Backbone:
    """The backbone, loaded on the device "meta", as one on the CPU whose tensors have shapes and no values.

    To be called, and used, in a FakeTensorMode. The device "meta" itself knows no autocast.
    """
    for network in (backbone.unet, backbone.vae, backbone.text_encoder):
        for module in () if network is None else network.modules():
            for name, value in module._parameters.items():
                if value is not None:
                    empty = torch.empty(value.shape, dtype=value.dtype)
                    module._parameters[name] = nn.Parameter(empty, requires_grad=False)
            for name, value in module._buffers.items():
                if value is not None:
                    module._buffers[name] = torch.empty(value.shape, dtype=value.dtype)
    return replace(backbone, device=torch.device("cpu"))
