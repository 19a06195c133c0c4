"""What canvases are told: their text, a layout of regions with prompts of their own, pictures that ControlNets read.

The one place that methods and the loop ask: `at` says it of any windows at any step. So layouts and ControlNets go with
every method that takes its noise predictions from `Task.predict_noise`, and with SyncDiffusion's foreseen images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from syncdiffusion.conditioning.control import CanvasControl, read_controls
from syncdiffusion.conditioning.regions import Regions
from syncdiffusion.conditioning.text import Conditioning, encode
from syncdiffusion.conditioning.windows import WindowConditioning
from syncdiffusion.errors import UsageError
from syncdiffusion.method_settings import JointSettings

if TYPE_CHECKING:
    from syncdiffusion.backbones.backbone import Backbone
    from syncdiffusion.geometry.windows import Windows
    from syncdiffusion.joint.task import Step, Task


@dataclass(frozen=True)
class CanvasConditioning:
    """text: a row for each canvas, all that a method without windows is told."""

    text: Conditioning
    regions: Regions | None = None
    controls: tuple[CanvasControl, ...] = ()

    @property
    def kind(self) -> tuple[str, ...]:
        """What of it decides how much memory a window takes."""
        controls = (f"{len(self.controls)} controls",) if self.controls else ()
        return controls if self.regions is None else ("regions", *controls)

    def at(self, task: Task, step: Step, windows: Windows) -> WindowConditioning:
        """What the UNet is told of the n · N windows of n canvases at a step, canvas by canvas."""
        found = self._texts_at(task, step, windows)
        controls = [each for each in self.controls if each.active(step)]
        if not controls:
            return found
        canvases, factor = len(task.prompts), task.backbone.factor
        seen = [each.at(windows, canvases, factor) for each in controls]
        if found.parts is not None:
            seen = [replace(each, images=each.images[found.parts.owner]) for each in seen]
        return replace(found, told=replace(found.told, controls=tuple(seen)))

    def _texts_at(self, task: Task, step: Step, windows: Windows) -> WindowConditioning:
        if self.regions is not None:
            return self.regions.at(task, step, windows, self.text)
        count, text = len(windows), self.text
        told, empty = (value.repeat_interleave(count, 0) for value in (text.text, text.empty))
        return WindowConditioning(replace(text, text=told, empty=empty))


def condition(
    backbone: Backbone, prompts: Sequence[str], settings: Any, text: Conditioning | None = None
) -> CanvasConditioning:
    """What a method's settings say, for panoramas of these prompts.

    text: what is told of them, encoded already; None encodes them.

    Raises:
        UsageError: a size for a model that is told none; a layout that cannot be read or does not suit the canvas or a
            prompt; what `read_controls` refuses.
    """
    size = None
    if settings.size_conditioning == "canvas":
        if backbone.text_encoder_2 is None:
            raise UsageError("size_conditioning=canvas: this model is told no size, as SDXL is; use window")
        size = (settings.height, settings.width)
    if text is None:
        text = encode(backbone, prompts, settings.negative_prompt, settings.guidance_scale, size)
    if not isinstance(settings, JointSettings):  # a method without windows
        return CanvasConditioning(text)
    controls, regions = read_controls(backbone, settings), None
    if settings.layout is not None:
        size = (settings.height, settings.width)
        regions = Regions.read(backbone, settings.layout, prompts, *size, settings.bootstrapping)
    return CanvasConditioning(text, regions, controls)
