"""What is timed: a model, the canvas of the timing, and the small float64 canvas on which equality is proved."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from experiments.common.architectures import TEXT_TOKENS, UNET_2, VAE
from syncdiffusion.backbones.backbone import PRECISIONS, Backbone
from syncdiffusion.backbones.loading import freeze, load_backbone
from syncdiffusion.backbones.model_files import EMBEDDED_FOLDER
from syncdiffusion.backbones.sampling import sampling_defaults
from syncdiffusion.errors import UsageError
from syncdiffusion.joint.noise import noise_generator
from syncdiffusion.sync import SyncDiffusionSettings

PROMPT = "a photo of a mountain range at twilight"


@dataclass(frozen=True)
class Case:
    """One benchmark.

    load: (device, precision) -> model.
    precision: of the timing, unless told otherwise; one of PRECISIONS.
    timed: settings of the timing; one SyncDiffusion row each, the first for MultiDiffusion too.
    check: settings of the float64 check, a narrow canvas and few steps; latents may differ by `check_tolerance`.
    sync_tolerance, multi_tolerance: how far the timed latents may differ in float32; None where gradient steps
        amplify rounding so far that only the check can tell.
    needs_gpu: refused on a CPU unless told otherwise.
    """

    name: str
    load: Callable[[str, str], Backbone]
    precision: str
    timed: tuple[SyncDiffusionSettings, ...]
    check: SyncDiffusionSettings
    check_tolerance: float
    sync_tolerance: float | None
    multi_tolerance: float
    needs_gpu: bool = False
    prompt: str = PROMPT
    seed: int = 0


def mini_case() -> Case:
    """The embedded miniature on its full canvas, with what its sampling.json has.

    Its gradient steps amplify float32's rounding, so SyncDiffusion's equality is proved in float64 alone.
    """
    suited = sampling_defaults(EMBEDDED_FOLDER, "syncdiffusion", SyncDiffusionSettings)
    timed = SyncDiffusionSettings(height=128, width=768, stride=4, **suited)
    return Case(
        name="mini",
        load=lambda device, precision: load_backbone(device=device, precision=precision),
        precision="float32",
        timed=(timed,),
        check=replace(timed, width=timed.height * 3 // 2, steps=3, first_n=2),
        check_tolerance=1e-9,
        sync_tolerance=None,
        multi_tolerance=1e-4,
    )


def sd2_case() -> Case:
    """Stable Diffusion 2.0's architecture with random weights at the paper's canvas, first_n 10 and 50.

    Random weights cost what trained ones do. The tolerance of the float64 check leaves room for a network of 100
    layers; float64's rounding is 1e-16.
    """
    timed = SyncDiffusionSettings(height=512, width=3072, stride=16, steps=50, weight=20.0)
    return Case(
        name="sd2",
        load=random_stable_diffusion_2,
        precision="bfloat16",
        timed=(replace(timed, first_n=10), replace(timed, first_n=50)),
        check=replace(timed, width=768, steps=3, first_n=2),
        check_tolerance=1e-6,
        sync_tolerance=None,
        multi_tolerance=1e-3,
        needs_gpu=True,
    )


CASES: dict[str, Callable[[], Case]] = {"mini": mini_case, "sd2": sd2_case}


SCHEDULE: dict[str, Any] = {  # scheduler/scheduler_config.json
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


class RandomTextBackbone(Backbone):
    """A model without a text encoder: a prompt's states are random, and the same wherever the prompt is."""

    def encode_prompts(self, prompts) -> Tensor:
        """Random states [n, 77, d], fixed by the prompts' text."""
        shape = (TEXT_TOKENS, self.unet.config.cross_attention_dim)
        states = [torch.randn(shape, generator=noise_generator(prompt, 0, "text")) for prompt in prompts]
        return torch.stack(states).to(self.device, self.dtype)


def random_stable_diffusion_2(device: str, precision: str) -> Backbone:
    """Stable Diffusion 2.0's UNet and autoencoder with random weights, made in memory on `device`."""
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

    where = torch.device(device)
    dtype = torch.float64 if precision == "float64" else torch.float32
    with torch.random.fork_rng(devices=[where] if where.type == "cuda" else []), where:
        torch.manual_seed(0)
        networks = [UNet2DConditionModel(**UNET_2), AutoencoderKL(**VAE)]
    unet, vae = (freeze(network, where, dtype) for network in networks)
    parts = {"tokenizer": None, "text_encoder": None, "scheduler": DDIMScheduler(**SCHEDULE), "unet": unet, "vae": vae}
    return RandomTextBackbone(
        "stable-diffusion-2 (random weights)", None, "seed 0", device=where, precision=precision, **parts
    )


def find_case(name: str, device: str, precision: str | None, allow_cpu: bool) -> Case:
    """The case `name` for a device and a precision (None for the case's own).

    Raises:
        UsageError: a precision that does not exist, or a case too large for a CPU on a CPU.
    """
    case = CASES[name]()
    if precision is not None and precision not in PRECISIONS:
        raise UsageError(f"--precision {precision}: use one of {', '.join(PRECISIONS)}")
    if case.needs_gpu and device == "cpu" and not allow_cpu:
        raise UsageError(
            f"--case {name}: would take days on a CPU; use --device cuda, or --allow-cpu to do it all the same"
        )
    return replace(case, precision=precision or case.precision)
