"""What a method is to the rest of the house: one description, in the method's own file. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from syncdiffusion.cost import NetworkCalls, Square
from syncdiffusion.geometry.sizes import check_one_row, check_pixels, check_stride, window_corners

if TYPE_CHECKING:
    from torch import Tensor

    from syncdiffusion.backbones.backbone import Backbone
    from syncdiffusion.joint.task import Given, OnStep, Task

WINDOWS_WIDE = 6  # the paper's shape: one window high and six wide

Corners = tuple[tuple[int, int], ...]  # (top, left) of windows in latent cells


def overlapping_corners(settings: Any, square: Square) -> Corners:
    """The windows of settings with a stride, and with a loop closure or without.

    Raises:
        UsageError: they cannot cover the canvas.
    """
    check_stride(settings.stride, square.window)
    height, width = (
        check_pixels(name, getattr(settings, name), square.factor, square.window, settings.stride)
        for name in ("height", "width")
    )
    loop_closure = getattr(settings, "loop_closure", "off")
    return window_corners(height, width, square.window, settings.stride, loop_closure)


def one_row_corners(settings: Any, square: Square) -> Corners:
    """The same of a method that knows one row of windows alone; UsageError for a higher canvas as well."""
    corners = overlapping_corners(settings, square)
    check_one_row(settings.height, square.pixels)
    return corners


def no_corners(settings: Any, square: Square) -> Corners:
    """For a method without windows."""
    return ()


def no_calls(settings: Any, square: Square) -> float:
    return 0


def closes_loop(settings: Mapping[str, Any]) -> bool:
    """Whether windows wrap around the right edge, by WindowedSettings' own setting."""
    return settings.get("loop_closure", "off") != "off"


@dataclass(frozen=True)
class Method:
    """A method, told without torch.

    name: in configurations, and the name of its file.
    title: in tables and figures.
    settings: the frozen dataclass of its settings.
    sample: makes latents: (task, settings) -> denoised canvases [n, c, h, w].
    calls: the network calls of one panorama: (settings, square) -> NetworkCalls. Those of a prompt for all;
        `network_calls` knows what a layout adds.
    calls_of_first, calls_of_none: how many UNet calls of those are of the first window alone, and of no window.
    corners: where its windows lie; raises UsageError for a canvas that they cannot cover.
    source: what it is and where it is from.
    mark: colour and matplotlib marker in every figure; None takes what is left.
    moving: its windows lie elsewhere at every step, so that `corners` are those of the first step alone.
    closed: whether its panoramas are rings, whose last column is the neighbour of the first, told by the settings'
        names and values; rings are decoded as rings.
    version: raise it when the method's result changes for the same settings: its panoramas are then made again.
    own_latents: its windows keep latents of their own, so that nothing comes of what is done to the canvas between
        two steps.
    """

    name: str
    title: str
    settings: type
    sample: Callable[[Task, Any], Tensor]
    calls: Callable[[Any, Square], NetworkCalls]
    source: str
    corners: Callable[[Any, Square], Corners] = overlapping_corners
    mark: tuple[str, str] | None = None
    moving: bool = False
    closed: Callable[[Mapping[str, Any]], bool] = closes_loop
    own_latents: bool = False
    version: int = 1
    calls_of_first: Callable[[Any, Square], float] = no_calls
    calls_of_none: Callable[[Any, Square], float] = no_calls

    def sizes(self, square: Square) -> dict[str, int]:
        """Those of the settings height, width and stride that there are, as they suit a model of these squares.

        One window high and six wide, a quarter of a window from one to the next; without windows a square.
        """
        wide = 1 if self.corners is no_corners else WINDOWS_WIDE
        found = {"height": square.pixels, "width": wide * square.pixels, "stride": max(1, square.window // 4)}
        known = {each.name for each in fields(self.settings)}
        return {name: value for name, value in found.items() if name in known}

    def network_calls(self, settings: Any, square: Square) -> NetworkCalls:
        """The network calls of one panorama, with what its conditioning adds.

        A layout takes a noise prediction for each prompt that holds in a window (of moving windows: in their first
        places; of a folder of layouts: their mean). Those of a gradient are reckoned by the mean window.

        Raises:
            UsageError: windows that cannot cover the canvas, a layout that cannot be read or does not suit it.
        """
        plain, layout = self.calls(settings, square), getattr(settings, "layout", None)
        if layout is None:
            return plain
        from syncdiffusion.conditioning.layout import evaluations, read_layouts

        corners, size = self.corners(settings, square), (settings.height, settings.width)

        def prompts_of(these: Corners) -> float:
            return evaluations(read_layouts(layout), *size, square.factor, these, square.window) / len(these)

        each, first = prompts_of(corners), prompts_of(corners[:1])
        of_first, of_none = self.calls_of_first(settings, square), self.calls_of_none(settings, square)
        unet = each * (plain.unet - of_first - of_none) + first * of_first + of_none
        return replace(plain, unet=unet, unet_backward=each * plain.unet_backward)

    def sample_latents(
        self,
        backbone: Backbone,
        prompts: Sequence[str],
        seeds: Sequence[int],
        settings: Any,
        on_step: OnStep | None = None,
        on_pull: Callable[[Any], None] | None = None,
        given: Given | None = None,
    ) -> Tensor:
        """Denoised canvases [n, c, h, w] on the backbone's device; arguments as in `generate`.

        given: what the caller has made already (`syncdiffusion.joint.task.Given`).
        """
        from syncdiffusion.joint.task import new_task

        with backbone.running():
            return self.sample(new_task(backbone, prompts, seeds, settings, on_step, on_pull, given), settings)

    def decode(self, backbone: Backbone, latents: Tensor, settings: Any) -> Tensor:
        """Images [n, 3, height, width] of `sample_latents`; UsageError where not even a window fits into memory."""
        from syncdiffusion.joint.decode import decode_canvas

        with backbone.running():
            return decode_canvas(backbone, latents, circular=self.closed(asdict(settings)))

    def generate(
        self,
        backbone: Backbone,
        prompts: Sequence[str],
        seeds: Sequence[int],
        settings: Any,
        on_step: OnStep | None = None,
        on_pull: Callable[[Any], None] | None = None,
    ) -> Tensor:
        """Panoramas.

        Args:
            prompts, seeds: one of each per panorama; together they fix the initial noise.
            settings: an object of the method's settings dataclass.
            on_step: called after every step of the sampler.
            on_pull: called at every step that pulls, with what it saw (`syncdiffusion.joint.foresee.Pull`); only
                methods with a gradient do. A look inside changes no latent.

        Returns:
            images [n, 3, height, width] in [0, 1], float32 on the CPU.

        Raises:
            UsageError: no prompt, lists of unequal length, a canvas that the windows cannot cover, an anchor that does
                not exist, too little memory.
        """
        latents = self.sample_latents(backbone, prompts, seeds, settings, on_step, on_pull)
        return self.decode(backbone, latents, settings)
