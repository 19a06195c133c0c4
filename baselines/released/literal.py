"""The joint-diffusion methods as literal, unbatched loops, written from PROTOCOL.md for comparison.

Nothing of the product is called here but its networks, one window at a time. DDIM is written out
(Song et al., ICLR 2021, Eq. 12 with eta = 0) rather than taken from a scheduler.

It works as the released code does (PROTOCOL.md, section 1), so that its time can be compared too: the guidance pair
goes through the UNet in one call of batch 2, and its waste is kept. That is, at every synchronised step the anchor's
own gradient is computed and then not used, and the distance, a function of two images, looks at the anchor's image
again for every window.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from syncdiffusion.backbones.backbone import Backbone

Distance = Callable[[Tensor, Tensor], Tensor]  # images in [-1, 1], [1, 3, h, w] each -> one number


class Ddim:
    """Alpha-bar of Stable Diffusion's schedule and its timesteps, from the definition."""

    def __init__(self, steps: int, dtype: torch.dtype = torch.float32):
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float32) ** 2
        self.alpha_bar = torch.cumprod(1 - betas, 0).to(dtype)
        self.gap = 1000 // steps
        self.timesteps = [i * self.gap + 1 for i in reversed(range(steps))]

    def foreseen(self, x: Tensor, noise: Tensor, t: int) -> Tensor:
        a = self.alpha_bar[t]
        return (x - (1 - a).sqrt() * noise) / a.sqrt()

    def previous(self, x: Tensor, noise: Tensor, t: int) -> Tensor:
        # set_alpha_to_one=False: the last step ends at alpha-bar of timestep 0, not at 1
        before = self.alpha_bar[max(t - self.gap, 0)]
        return before.sqrt() * self.foreseen(x, noise, t) + (1 - before).sqrt() * noise


def views_of(height: int, width: int, size: int, stride: int, loop_closure: str = "off") -> list[tuple[int, int]]:
    rows, columns = (height - size) // stride + 1, (width - size) // stride + 1
    views = [((i // columns) * stride, (i % columns) * stride) for i in range(rows * columns)]
    extra = {"off": 0, "released": size // stride - 2, "full": size // stride - 1}[loop_closure]
    return views + [(0, width - size + (i + 1) * stride) for i in range(extra)]


def cut(canvas: Tensor, top: int, left: int, size: int) -> Tensor:
    around = torch.cat([canvas, canvas[..., :size]], dim=-1)
    return around[:, :, top : top + size, left : left + size].clone()


def guided_noise(backbone: Backbone, x: Tensor, t: int, text: Tensor, empty: Tensor, scale: float) -> Tensor:
    both = backbone.unet(torch.cat([x, x]), t, encoder_hidden_states=torch.cat([empty, text])).sample
    unconditioned, conditioned = both.chunk(2)
    return unconditioned + scale * (conditioned - unconditioned)


def decoded(backbone: Backbone, latents: Tensor) -> Tensor:
    images = backbone.vae.decode(latents / backbone.vae.config.scaling_factor).sample
    return (images / 2 + 0.5).clamp(0, 1)


def literal_sample(
    backbone: Backbone,
    prompt: str,
    canvas: Tensor,
    *,
    stride: int,
    steps: int,
    guidance_scale: float,
    distance: Distance | None = None,
    weight: float = 0.0,
    decay: float = 0.95,
    every_n: int = 1,
    first_n: int = 10**9,
    anchor: int | None = None,
    loop_closure: str = "off",
    unet_gradient: bool = True,
) -> Tensor:
    """PROTOCOL.md, section 1, steps 1 to 5, for one canvas [1, 4, h, w]; MultiDiffusion where `distance` is None.

    Without `unet_gradient` a window's noise is predicted once in a synchronised step and held constant.
    """
    size = backbone.window
    height, width = canvas.shape[2:]
    text, empty = backbone.encode_prompts([prompt]), backbone.encode_prompts([""])
    ddim = Ddim(steps, canvas.dtype)
    views = views_of(height, width, size, stride, loop_closure)
    anchor = len(views) // 2 if anchor is None else anchor

    for i, t in enumerate(ddim.timesteps):
        active = (i + 1) % every_n == 0 and i < first_n
        if distance is not None and active:
            with torch.no_grad():
                x = cut(canvas, *views[anchor], size)
                noise = guided_noise(backbone, x, t, text, empty, guidance_scale)
                anchor_image = decoded(backbone, ddim.foreseen(x, noise, t))
        value, count = torch.zeros_like(canvas), torch.zeros_like(canvas)
        for j, (top, left) in enumerate(views):
            x = cut(canvas, top, left, size)
            if distance is not None and active:
                leaf = x.clone().requires_grad_()
                with torch.set_grad_enabled(unet_gradient):
                    noise = guided_noise(backbone, leaf, t, text, empty, guidance_scale)
                image = decoded(backbone, ddim.foreseen(leaf, noise, t))
                loss = distance(2 * image - 1, 2 * anchor_image - 1)
                gradient = torch.autograd.grad(loss.sum(), leaf)[0]
                if j != anchor:
                    x = x - weight * decay**i * gradient
            with torch.no_grad():
                if unet_gradient or not active:
                    noise = guided_noise(backbone, x, t, text, empty, guidance_scale)
                x = ddim.previous(x, noise, t)
            for column in range(size):
                value[:, :, top : top + size, (left + column) % width] += x[:, :, :, column]
                count[:, :, top : top + size, (left + column) % width] += 1
        canvas = value / count
    return canvas
