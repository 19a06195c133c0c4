"""Region-based generation (Bar-Tal et al., ICML 2023, MultiDiffusion, section 4.2): a prompt for each region.

In every window the noise is predicted once for each prompt that holds in it, the background's and the regions', and
each cell takes the prediction of the prompt that it belongs to. MultiDiffusion steps each prediction with DDIM and then
averages by masks; as DDIM works cell by cell and a cell belongs to one prompt, that is the same. A window that a region
does not touch is not predicted for it: the official code predicts all for all, and masks it away.

Bootstrapping: in the first steps a region's prediction does not see what is around the region, but a constant colour,
noised to the step's level with the canvas' own initial noise. So the region is begun as a whole thing in its place. In
the cells that it is asked for the latents are the canvas' own, hence nothing else changes. The official code draws a
colour of 20 anew for each view, step and region; so is it here, from generators of the panorama's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from syncdiffusion.conditioning.layout import layout_for
from syncdiffusion.conditioning.text import Conditioning
from syncdiffusion.conditioning.windows import Parts, WindowConditioning
from syncdiffusion.joint.noise import noise_generator, noised

if TYPE_CHECKING:
    from syncdiffusion.backbones.backbone import Backbone
    from syncdiffusion.geometry.windows import Windows
    from syncdiffusion.joint.task import Step, Task

COLOURS = 20  # of a panorama, to bootstrap against


@dataclass(frozen=True)
class Regions:
    """The regions of n canvases, the background first; P is the largest number of them.

    text: embeddings of their prompts, [n, P, tokens, d], 0 where a canvas has fewer.
    cells: whose each latent cell is, booleans [n, P, h, w].
    bootstrapping: share of the steps, from the first on.
    counts: how many each canvas has.
    """

    text: Tensor
    cells: Tensor
    bootstrapping: float
    counts: tuple[int, ...]
    _colours: dict[str, Tensor] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def read(
        cls, backbone: Backbone, layout: str, prompts: Sequence[str], height: int, width: int, bootstrapping: float
    ) -> Regions:
        """Of the layout, or of the folder's, for canvases of height x width pixels with these prompts.

        Raises:
            UsageError: see `layout.layout_for` and `Layout.cells`.
        """
        texts, cells = [], []
        for prompt in prompts:
            found = layout_for(layout, prompt)
            texts.append(backbone.encode_prompts(found.prompts(prompt)))
            cells.append(torch.from_numpy(found.cells(height, width, backbone.factor)).to(backbone.device))
        pad = torch.nn.utils.rnn.pad_sequence
        return cls(pad(texts, batch_first=True), pad(cells, batch_first=True), bootstrapping, tuple(map(len, cells)))

    def at(self, task: Task, step: Step, windows: Windows, common: Conditioning) -> WindowConditioning:
        """What the UNet is told of the windows at a step; `common` has what all regions of a canvas share."""
        masks = windows.crop(self.cells)  # [n, N, P, s, s]
        canvas, window, region = torch.nonzero(masks.flatten(3).any(dim=3), as_tuple=True)
        told = replace(common, text=self.text[canvas, region], empty=common.empty[canvas])
        mine = masks[canvas, window, region][:, None]
        owner = canvas * len(windows) + window
        if step.index >= round(self.bootstrapping * step.count):
            return WindowConditioning(told, Parts(owner, mine))
        shown = mine | (region == 0)[:, None, None, None]
        colours = self._noised(task, step, windows)[canvas, window, region]
        return WindowConditioning(told, Parts(owner, mine, shown, colours))

    def _noised(self, task: Task, step: Step, windows: Windows) -> Tensor:
        """Constant colours at the step's level of noise, one for each window and region: [n, N, P, c, s, s]."""
        drawn = []
        for i, (prompt, seed) in enumerate(zip(task.prompts, task.seeds, strict=True)):
            # The step in the stream's name: whoever asks for it, in whatever order, sees the same colours.
            generator = noise_generator(prompt, seed, f"bootstrapping {step.index}")
            # As many as the canvas has regions: what it is made together with draws none of its colours.
            chosen = torch.randint(COLOURS, (len(windows), self.counts[i]), generator=generator)
            chosen = torch.nn.functional.pad(chosen, (0, self.text.shape[1] - self.counts[i]))
            drawn.append(self._palettes(task)[i, chosen])
        return noised(torch.stack(drawn), windows.crop(task.pure_noise)[:, :, None], task.signal(step))

    def _palettes(self, task: Task) -> Tensor:
        """Latents of each panorama's colours, [n, COLOURS, c, s, s], encoded once."""
        if "latents" not in self._colours:
            side, encode = task.backbone.window * task.backbone.factor, task.backbone.encode
            with torch.no_grad():
                self._colours["latents"] = torch.stack([
                    torch.cat([encode(rgb[None, :, None, None].expand(1, 3, side, side)) for rgb in colours])
                    for colours in (
                        torch.rand(COLOURS, 3, generator=each).to(task.backbone.device, task.backbone.dtype)
                        for each in task.generators("bootstrapping colours")
                    )
                ])  # fmt: skip
        return self._colours["latents"]
