"""diffusers' arguments in the terms of this package: settings of a method, samplers, seeds. No network is run here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from syncdiffusion.cost import Square
from syncdiffusion.errors import UsageError
from syncdiffusion.method import Method

# What a user of diffusers calls a setting, and what it is here.
NAMES = {"num_inference_steps": "steps", "view_batch_size": "window_batch"}

# Arguments of diffusers' pipelines that are not there: the value at which they ask for nothing, and what to do.
REFUSED: dict[str, tuple[Any, str]] = {
    "timesteps": (None, "steps lie where the scheduler puts them; give num_inference_steps"),
    "sigmas": (None, "steps lie where the scheduler puts them; give num_inference_steps"),
    "guidance_rescale": (0.0, "is not there; leave it out, or lower guidance_scale"),
    "ip_adapter_image": (None, "IP-Adapters are not there; leave it out"),
    "ip_adapter_image_embeds": (None, "IP-Adapters are not there; leave it out"),
    "callback": (None, "was replaced in diffusers; give callback_on_step_end"),
    "callback_steps": (None, "was replaced in diffusers; give callback_on_step_end"),
}

SAMPLER_OF = {
    "DDIMScheduler": "ddim",
    "DDPMScheduler": "ddpm",
    "EulerDiscreteScheduler": "euler",
    "DPMSolverMultistepScheduler": "dpmpp",
}
# What a scheduler's configuration must say for the sampler to be its own.
NEEDED: dict[str, dict[str, Any]] = {
    "ddpm": {"variance_type": "fixed_small"},
    "dpmpp": {"solver_order": 2, "algorithm_type": "dpmsolver++"},
}


def refuse(given: Mapping[str, Any]) -> dict[str, Any]:
    """What is left of keyword arguments without those that ask for nothing.

    Raises:
        UsageError: one that asks for what is not there.
    """
    left = dict(given)
    for name, (nothing, words) in REFUSED.items():
        value = left.pop(name, nothing)
        if value is not nothing and not (isinstance(value, int | float) and value == nothing):
            raise UsageError(f"{name}={shown(value)}: {words}")
    return left


def shown(value: Any) -> str:
    """A value in an error's one line."""
    words = " ".join(str(value).split())
    return words if len(words) <= 40 else f"({type(value).__name__})"


def find_method(method: str | Method) -> Method:
    """The method of that name; UsageError where there is none."""
    from baselines import method_named

    return method if isinstance(method, Method) else method_named(method)


def sampler_of(scheduler: Any) -> str:
    """The sampler that takes a diffusers scheduler's steps.

    Raises:
        UsageError: none does.
    """
    name = type(scheduler).__name__
    if name not in SAMPLER_OF:
        raise UsageError(
            f"scheduler={name}: there is no such sampler; use one of {', '.join(SAMPLER_OF)}, "
            "as in pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)"
        )
    sampler = SAMPLER_OF[name]
    for key, wanted in NEEDED.get(sampler, {}).items():
        if scheduler.config[key] != wanted:
            found = scheduler.config[key]
            raise UsageError(f"scheduler={name}: with {key}={found} it is none of the samplers; use {wanted}")
    return sampler


def settings_of(
    method: Method,
    square: Square,
    scheduler: Any,
    given: Mapping[str, Any],
    guidance_scale: float,
    eta: float,
    circular_padding: bool,
) -> Any:
    """The method's settings object; what was not given is as it suits the model, else the method's default.

    Args:
        given: settings by diffusers' names or by the method's own; None means that it was not given, for those of NAMES
            and the sizes.

    Raises:
        UsageError: a setting that the method does not have, one given under two names, or what its settings refuse.
    """
    known = [each.name for each in fields(method.settings)]
    chosen: dict[str, Any] = {}
    for name, value in given.items():
        setting = NAMES.get(name, name)
        if value is None and (name in NAMES or name in ("height", "width")):
            continue
        if setting not in known:
            raise UsageError(f"{name}={shown(value)}: {method.name} has no such setting; it has {', '.join(known)}")
        if setting in chosen:
            both = ", ".join(f"{each}={shown(given[each])}" for each in given if NAMES.get(each, each) == setting)
            raise UsageError(f"{both}: are the same setting; give one of them")
        chosen[setting] = value
    if not isinstance(circular_padding, bool):
        raise UsageError(f"circular_padding={shown(circular_padding)}: use True or False")
    if "sampler" not in chosen:
        chosen["sampler"] = sampler_of(scheduler)
    if eta == 1 and chosen["sampler"] in ("ddim", "ddpm"):
        chosen["sampler"] = "ddpm"
    elif eta != 0:
        raise UsageError(f"eta={eta}: use 0, or with DDIMScheduler 1, which is the sampler ddpm")
    if circular_padding and "loop_closure" in known:
        if "loop_closure" in chosen:
            raise UsageError(
                f"circular_padding={circular_padding}, loop_closure={chosen['loop_closure']}: are the same setting; "
                "give one of them"
            )
        chosen["loop_closure"] = "full"
    # As in diffusers, where guidance is off up to 1.
    chosen["guidance_scale"] = max(1.0, guidance_scale) if _is_number(guidance_scale) else guidance_scale
    made = method.settings(**{**method.sizes(square), **chosen})
    if circular_padding and not method.closed(asdict(made)):
        raise UsageError(f"circular_padding={circular_padding}: {method.name} makes no closed panoramas; use False")
    return made


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def in_their_names(message: str, used: Mapping[str, Any]) -> str:
    """An error's line that begins with the name of a setting, with the name that the caller gave it.

    >>> in_their_names("steps=0: use 1 or more", {"num_inference_steps": 0})
    'num_inference_steps=0: use 1 or more'
    """
    for theirs, ours in NAMES.items():
        if used.get(theirs) is not None and message.startswith(f"{ours}="):
            return theirs + message.removeprefix(ours)
    return message


def drawn(
    seed: int | Sequence[int] | None,
    generator: torch.Generator | Sequence[torch.Generator] | None,
    shape: tuple[int, ...],
    each: int,
    latents: Tensor | None,
    like: Tensor,
) -> tuple[list[int], Tensor | None]:
    """A seed for each image, and the initial noise where it is not the seed's.

    Args:
        seed: one for all prompts, one for each, or one for each image; image k of a prompt has k more. None is 0.
        generator: one, or one for each image. Draws the initial noise as diffusers' pipelines do: of `like`'s dtype and
            on its device. The seeds are then drawn from copies, so that it goes on as in diffusers, and a series of
            calls makes the same series.
        shape: of the initial noise, [images, c, h, w].
        each: images of each prompt.
        latents: initial noise that there is already.

    Raises:
        UsageError: seed and generator both, not as many as images, latents of another shape.
    """
    from diffusers.utils.torch_utils import randn_tensor

    count, prompts = shape[0], shape[0] // each
    if latents is not None and tuple(latents.shape) != shape:
        raise UsageError(f"latents: their shape is {list(latents.shape)}; give {list(shape)}")
    if generator is None:
        if seed is None or isinstance(seed, int | Integral):
            return [int(seed or 0) + k for _ in range(prompts) for k in range(each)], latents
        if not isinstance(seed, Iterable) or not all(isinstance(one, int | Integral) for one in seed):
            raise UsageError(f"seed={shown(seed)}: give a whole number, or several")
        seeds = [int(one) for one in seed]
        if len(seeds) not in (count, prompts):
            raise UsageError(f"seed={shown(seed)}: give one, or one for each of {prompts} prompts or of {count} images")
        return (seeds if len(seeds) == count else [first + k for first in seeds for k in range(each)]), latents
    if seed is not None:
        raise UsageError(f"seed={shown(seed)}, generator: both say what noise is drawn; give one of them")
    if not isinstance(generator, torch.Generator | Iterable):
        raise UsageError(f"generator={shown(generator)}: give one torch.Generator, or one for each of {count} images")
    several = [generator] * count if isinstance(generator, torch.Generator) else list(generator)
    if len(several) != count or not all(isinstance(one, torch.Generator) for one in several):
        raise UsageError(f"generator={shown(generator)}: give one torch.Generator, or one for each of {count} images")
    if latents is None:
        # A list of one is drawn from as the one is.
        source = generator if isinstance(generator, torch.Generator) else several
        latents = randn_tensor(shape, source, like.device, like.dtype)
    copies = {id(one): torch.Generator(one.device).set_state(one.get_state()) for one in several}
    draws = [torch.randint(2**62, (1,), generator=copies[id(one)], device=one.device) for one in several]
    return [int(draw) for draw in draws], latents
