"""The settings that methods have in common: of sampling, of windows, of what a canvas is told and starts from.

A method's own settings dataclass inherits what it has of these and adds its own. Nothing here imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from syncdiffusion.errors import UsageError
from syncdiffusion.geometry.sizes import LOOP_CLOSURES
from syncdiffusion.settings import AUTO, check_settings, each_of, facts_of, setting

LONGEST = 2**17  # pixels: beyond any panorama, and short of what would end in a lack of memory without a word
MOST_STEPS = 1000  # what Stable Diffusion's models are trained on
SAMPLERS = ("ddim", "ddpm", "euler", "dpmpp")
BOOTSTRAPPING = 0.4  # MultiDiffusion's 20 of 50 steps


def window_batch_setting() -> Any:
    """The same in every method with windows."""
    return setting(AUTO, "windows through the UNet at once", choices=(AUTO,), least=1, speed_only=True, shared=True)


@dataclass(frozen=True)
class SamplingSettings:
    """What every method has. Defaults are the paper's: Stable Diffusion 2.0 at 512x3072 px."""

    height: int = setting(512, "pixels", least=1, most=LONGEST, shared=True)
    width: int = setting(3072, "pixels", least=1, most=LONGEST, shared=True)
    steps: int = setting(50, "denoising steps", least=1, most=MOST_STEPS, shared=True)
    guidance_scale: float = setting(7.5, "of classifier-free guidance; 1 is none", least=0, shared=True)
    negative_prompt: str = setting("", "what guidance leads away from", shared=True)
    sampler: str = setting(
        "ddim", "how a step goes from noise to less: DDIM, DDPM, Euler, DPM-Solver++ 2M", choices=SAMPLERS,
        added=("ddim",), shared=True,
    )  # fmt: skip
    size_conditioning: str = setting(
        "window", "the image's size that Stable Diffusion XL is told: the window's, as trained, or the canvas's",
        choices=("window", "canvas"), added=("window",), shared=True,
    )  # fmt: skip

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def steps_taken(self) -> int:
        """Denoising steps of a canvas: all of them, unless it starts from a picture."""
        return self.steps

    @property
    def passes(self) -> Sequence[int]:
        """The numbers of the steps in the order in which a canvas takes them; some again where it goes back."""
        return range(self.steps_taken)


def without_effect(settings: SamplingSettings) -> str | None:
    """A line on what was set and changes nothing; None where there is no such thing."""
    if settings.guidance_scale == 1 and settings.negative_prompt:
        return (
            f"negative_prompt={settings.negative_prompt}: changes nothing at guidance_scale=1, which is no guidance; "
            "give a higher one, or leave it out"
        )
    return None


def controlnet_files(value: str) -> Sequence[Path] | None:
    """The files of a ControlNet's folder, but for those that tell of it; None of a hub id."""
    from syncdiffusion.files import ABOUT, controlnet_place

    folder = controlnet_place(value)
    if not folder.is_dir():
        return None
    return sorted(each for each in folder.iterdir() if each.is_file() and each.name not in ABOUT)


def layout_files(value: str) -> Sequence[Path]:
    from syncdiffusion.conditioning.layout import files_named

    return files_named(value)


@dataclass(frozen=True)
class JointSettings(SamplingSettings):
    """What a method has that makes a canvas of windows: what the canvas is told besides the prompt.

    Not those whose windows attend to each other inside the UNet: there each window has one row, and a window of a
    layout has one for each of its prompts.
    """

    layout: str | None = setting(
        None, "a file with a prompt for each region, or a folder of them; see syncdiffusion/conditioning/layout.py",
        null="the prompt everywhere", added=(None,), shared=True, file=True, names=layout_files,
    )  # fmt: skip
    bootstrapping: float = setting(
        BOOTSTRAPPING, "share of the steps, the first, in which a region of the layout does not see what is around it",
        least=0, most=1, added=(BOOTSTRAPPING,), shared=True,
    )  # fmt: skip

    control_image: str | Sequence[str] | None = setting(
        None, "a picture of the panorama's size that a ControlNet steers by; a list for several",
        null="none", added=(None,), shared=True, file=True, picture=True, many=True,
    )  # fmt: skip
    controlnet: str | Sequence[str] | None = setting(
        None, "the ControlNet of each control_image: embedded (the miniature's, of land and sky), a folder, or a hub "
        "id (owner/name or owner/name@revision)",
        null="none", added=(None,), shared=True, file=True, names=controlnet_files, many=True,
    )  # fmt: skip
    control_scale: float | Sequence[float] = setting(
        1.0, "strength of each ControlNet", least=0, added=(1.0,), shared=True, many=True
    )
    control_start: float | Sequence[float] = setting(
        0.0, "share of the steps before each ControlNet begins", least=0, most=1, added=(0.0,), shared=True, many=True
    )
    control_end: float | Sequence[float] = setting(
        1.0, "share of the steps when each ControlNet has ended", least=0, most=1, added=(1.0,), shared=True, many=True
    )

    def controls(self) -> list[tuple[str, str, float, float, float]]:
        """(ControlNet, picture, scale, start, end) of each; see `conditioning.control_settings`."""
        from syncdiffusion.conditioning.control_settings import paired

        names = ("controlnet", "control_image", "control_scale", "control_start", "control_end")
        facts = facts_of(type(self))
        return paired({name: each_of(getattr(self, name)) for name in names}, {n: facts[n].added[0] for n in names})

    def __post_init__(self) -> None:
        from syncdiffusion.conditioning.control_settings import lies_between

        super().__post_init__()
        for _, _, _, start, end in self.controls():
            count = self.steps_taken
            if count and not any(lies_between(index, count, start, end) for index in range(count)):
                raise UsageError(
                    f"control_start={start}, control_end={end}: none of {count} steps lies wholly between them; "
                    "give them further apart"
                )
        if self.layout is None and self.bootstrapping != BOOTSTRAPPING:
            raise UsageError(f"bootstrapping={self.bootstrapping}: is of a layout's regions; give layout=FILE as well")


def stride_setting() -> Any:
    """The same in every method with overlapping windows."""
    return setting(16, "latent cells from one window to the next", least=1, axis="stride (latent cells)", shared=True)


@dataclass(frozen=True)
class StartSettings(SamplingSettings):
    """What a method has whose windows share one canvas throughout.

    `syncdiffusion.joint.start` tells what a picture does.
    """

    start_image: str | None = setting(
        None, "picture that the canvas starts from, resized to it", file=True, picture=True, null="noise alone",
        added=(None,), shared=True,
    )  # fmt: skip
    start_strength: float | None = setting(
        None, "share of the steps that are taken from a start image on; 1 changes it most", above=0, most=1,
        null="0.8, or 1 with a mask", added=(None,), shared=True,
    )  # fmt: skip
    mask: str | None = setting(
        None, "picture, white where the start image is made new; the rest stays", file=True, picture=True,
        null="all of it", added=(None,), shared=True,
    )  # fmt: skip
    # RePaint's own has the same two, of its windows.
    jump_length: int = setting(10, "with a mask: steps that a canvas goes back at once", least=1, added=(10,))
    jump_n_sample: int = setting(
        1, "with a mask: how often each stretch of steps is gone down, as in RePaint; 1 never goes back", least=1,
        added=(1,),
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mask is None and (self.jump_length, self.jump_n_sample) != (10, 1):
            name = "jump_n_sample" if self.jump_n_sample != 1 else "jump_length"
            raise UsageError(f"{name}={getattr(self, name)}: is of a mask; give start_image=FILE and mask=FILE as well")
        for name in ("start_strength", "mask"):
            if self.start_image is None and getattr(self, name) is not None:
                raise UsageError(f"{name}={getattr(self, name)}: needs a picture; give start_image=FILE as well")
        if self.jump_n_sample > 1 and self.steps_taken <= self.jump_length:
            raise UsageError(
                f"jump_n_sample={self.jump_n_sample}: never goes back: only {self.steps_taken} steps are taken, and a "
                f"jump is {self.jump_length} long; use a jump_length below {self.steps_taken}"
            )
        if not self.steps_taken:
            least = f"{1 / self.steps:.2g}"
            raise UsageError(
                f"start_strength={self.start_strength}: takes none of {self.steps} steps; use {least} or more"
            )

    @property
    def steps_taken(self) -> int:
        if self.start_image is None:
            return self.steps
        strength = self.start_strength or (0.8 if self.mask is None else 1.0)
        taken = whole_steps(strength, self.steps)
        return max(1, taken) if self.start_strength is None else taken  # without a strength at least one step is left

    @property
    def passes(self) -> Sequence[int]:
        from syncdiffusion.joint.resampling import levels, passes

        visited = levels(self.steps_taken, self.jump_length, self.jump_n_sample)
        return [self.steps_taken - 1 - level for level, _ in passes(visited)]


def refuse_jumps(settings: StartSettings) -> None:
    """For methods whose windows keep latents of their own: what climbs is the canvas, of which they would not know."""
    if settings.jump_n_sample != 1:
        raise UsageError(
            f"jump_n_sample={settings.jump_n_sample}: windows of this method keep latents of their own, which do not "
            "go back up; use 1, or a method whose windows share one canvas"
        )


def first_steps(share: float, steps: int) -> int:
    """How many of the steps are among the first `share` of them: those whose number from 0 is less than share · steps.

    >>> first_steps(0.3, 25), first_steps(0.28, 50), first_steps(0.2, 50)
    (8, 14, 10)
    """
    return math.ceil(round(share * steps, 6))  # rounded first: 0.28 · 50 is 14.000000000000002


def whole_steps(share: float, steps: int) -> int:
    """share · steps, rounded down to a whole number of them, or of whatever else has a share taken of it.

    >>> whole_steps(0.58, 50), whole_steps(0.3, 25)
    (29, 7)
    """
    return int(round(share * steps, 6))  # rounded first: 0.58 · 50 is 28.999...


def loop_closure_setting() -> Any:
    """The same in every method whose windows may go around the right edge."""
    return setting(
        "off",
        "windows that wrap around the right edge: none, the released code's, or as many as cover any other place",
        choices=LOOP_CLOSURES,
    )


@dataclass(frozen=True)
class WindowedSettings(StartSettings, JointSettings):
    """What every method with overlapping windows has."""

    stride: int = stride_setting()
    loop_closure: str = loop_closure_setting()
    window_batch: int | str = window_batch_setting()


def decay_setting() -> Any:
    """The same in every method that pulls."""
    return setting(0.95, "the pull of step i is times decay^i", above=0, most=1, axis="decay of w per step")


def first_n_setting() -> Any:
    return setting(
        None, "pull in the first n steps only", least=0, null="all", symbol="first N", axis="gradient steps:\nfirst N"
    )


def anchor_setting() -> Any:
    return setting(
        None, "number of the window that the others are pulled toward", least=0, null="centre",
        axis="anchor window,\nnumber",
    )  # fmt: skip
