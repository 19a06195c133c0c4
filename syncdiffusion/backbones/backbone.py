"""A frozen latent diffusion model: what every method needs of Stable Diffusion, and nothing else."""

import contextlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from syncdiffusion.errors import UsageError
from syncdiffusion.settings import PRECISION_NAMES

if TYPE_CHECKING:
    from diffusers import DDIMScheduler, UNet2DConditionModel

    from syncdiffusion.conditioning.text import Conditioning

PRECISIONS: dict[str, torch.dtype] = {name: getattr(torch, name) for name in PRECISION_NAMES}


@dataclass(frozen=True)
class Backbone:
    """Networks with frozen weights in float32, run under autocast where `precision` is lower.

    "float64" widens everything; it is for proofs, since SyncDiffusion's gradient steps amplify rounding. Networks that
    were loaded in half precision (a diffusers pipeline may be) run in it; between networks all stays float32.

    model_id: hub repository, folder, or "embedded".
    fingerprint: hash of the weight files for a folder, "id@revision" for a hub repository.
    window: side of the square that the model was trained on, in latent cells (64 for Stable Diffusion).
    factor: pixels of an image per latent cell (8).
    compiled_unet: the UNet through torch.compile, for predictions without a gradient; None: nothing is compiled.
    row_bytes: memory that a window takes in these networks by kind of work, as far as measured (`memory.Batch`).
    """

    model_id: str
    revision: str | None
    fingerprint: str
    tokenizer: Any
    text_encoder: torch.nn.Module
    unet: "UNet2DConditionModel"
    vae: Any  # AutoencoderKL or AutoencoderTiny
    scheduler: "DDIMScheduler"
    device: torch.device
    precision: str
    compiled_unet: Any = None
    row_bytes: dict[tuple[Hashable, ...], int] = field(default_factory=dict, compare=False, repr=False)

    @property
    def window(self) -> int:
        return int(self.unet.config.sample_size)

    @property
    def channels(self) -> int:
        return int(self.unet.config.in_channels)

    @property
    def factor(self) -> int:
        stages = getattr(self.vae.config, "block_out_channels", None) or self.vae.config.encoder_block_out_channels
        return 2 ** (len(stages) - 1)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights and of everything between networks: float32, or float64."""
        return torch.float64 if self.precision == "float64" else torch.float32

    def autocast(self) -> contextlib.AbstractContextManager:
        """The released code runs float32 weights under half-precision autocast; so do we."""
        low = self.precision not in ("float32", "float64")
        return torch.autocast(self.device.type, PRECISIONS[self.precision] if low else None, enabled=low)

    @property
    def widened(self) -> "Backbone":
        """The same networks without autocast; the backbone itself where there is none, or the weights are narrow."""
        narrow = dtype_of(self.unet) in (torch.float16, torch.bfloat16)
        if narrow or self.precision not in ("float16", "bfloat16"):
            return self
        return replace(self, precision="float32")

    def steps(self, count: int) -> "DDIMScheduler":
        """A DDIM scheduler of its own, with `count` timesteps set.

        Raises:
            UsageError: more steps than the model was trained on.
        """
        most = self.scheduler.config.num_train_timesteps - self.scheduler.config.steps_offset
        if count > most:
            raise UsageError(f"steps={count}: this model's schedule has {most}; use 1 to {most}")
        # A copy: `set_timesteps` changes the scheduler, and a backbone is shared.
        scheduler = type(self.scheduler).from_config(self.scheduler.config)
        scheduler.alphas_cumprod = scheduler.alphas_cumprod.to(self.dtype)
        scheduler.final_alpha_cumprod = scheduler.final_alpha_cumprod.to(self.dtype)
        scheduler.set_timesteps(count)
        return scheduler

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Text embeddings [n, tokens, d]; longer prompts are cut at the tokenizer's length."""
        tokens = self.tokenizer(
            list(prompts),
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        return self.text_encoder(tokens.input_ids.to(self.device))[0].to(self.dtype)

    def predict_noise(self, latents: Tensor, t: Tensor | int, conditioning: "Conditioning") -> Tensor:
        """The UNet's prediction with classifier-free guidance.

        Args:
            latents: [r, c, h, w], noisy, at timestep `t`.
            conditioning: a row for each of them.

        Returns:
            [r, c, h, w] of `dtype`. Differentiable in `latents`.
        """
        t = torch.as_tensor(t, device=latents.device)  # of a number, torch.compile would compile for each anew
        unet = self.unet
        # Where a mode looks at every operation (memory.PeakMemory), torch.compile would give up for good.
        if self.compiled_unet is not None and not torch.is_grad_enabled() and _get_current_dispatch_mode() is None:
            unet = self.compiled_unet
        with self.autocast():
            states = torch.cat([conditioning.empty, conditioning.text]).to(dtype_of(self.unet))
            twice = torch.cat([latents, latents]).to(dtype_of(self.unet))
            added = control_residuals(conditioning, twice, t, states)
            both = unet(twice, t, encoder_hidden_states=states, **added).sample
        without, conditioned = both.to(self.dtype).chunk(2)
        return without + conditioning.guidance_scale * (conditioned - without)

    def encode(self, images: Tensor) -> Tensor:
        """Latents [n, 4, h, w] of images [n, 3, factor·h, factor·w] in [0, 1]; the mean, where there is a variance."""
        with self.autocast():
            found = self.vae.encode((2 * images - 1).to(dtype_of(self.vae)))
        latents = found.latents if hasattr(found, "latents") else found.latent_dist.mode()
        return latents.to(self.dtype) * self.vae.config.scaling_factor

    def decode(self, latents: Tensor) -> Tensor:
        """Images [n, 3, factor·h, factor·w] in [0, 1], of latents [n, 4, h, w].

        Differentiable; the clamp passes no gradient where it saturates, as in the released code.
        """
        with self.autocast():
            images = self.vae.decode((latents / self.vae.config.scaling_factor).to(dtype_of(self.vae))).sample
        return (images.to(self.dtype) / 2 + 0.5).clamp(0, 1)


def control_residuals(conditioning: "Conditioning", twice: Tensor, t: Tensor, states: Tensor) -> dict[str, Any]:
    """What ControlNets add inside the UNet, summed over them, as arguments of it; none where there are none.

    twice, states: latents and text of the guidance pair; both halves see the picture.
    """
    total: list[Tensor] = []
    for control in conditioning.controls:
        images = torch.cat([control.images, control.images]).to(dtype_of(control.network))
        down, middle = control.network(
            twice, t, encoder_hidden_states=states, controlnet_cond=images, conditioning_scale=control.scale,
            return_dict=False,
        )  # fmt: skip
        found = [*down, middle]
        total = [a + b for a, b in zip(total, found, strict=True)] if total else found
    if not total:
        return {}
    return {"down_block_additional_residuals": tuple(total[:-1]), "mid_block_additional_residual": total[-1]}


def dtype_of(network: torch.nn.Module) -> torch.dtype:
    """The dtype of a network's weights."""
    return next(network.parameters()).dtype
