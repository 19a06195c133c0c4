"""A frozen latent diffusion model: what every method needs of Stable Diffusion, and nothing else."""

import contextlib
import functools
import logging
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from syncdiffusion.backbones import text_xl
from syncdiffusion.backbones.decoder import Decoder, measure_decoder
from syncdiffusion.backbones.offload import Offload
from syncdiffusion.errors import UsageError
from syncdiffusion.settings import PRECISION_NAMES

if TYPE_CHECKING:
    from diffusers import DDIMScheduler, UNet2DConditionModel

    from syncdiffusion.conditioning.text import Conditioning

logger = logging.getLogger(__name__)
_CUT: set[str] = set()  # texts that were told to be too long: every panorama encodes its own anew

# Of the arithmetic within networks. TF32: float32 whose products CUDA takes of numbers rounded to 10 bits of mantissa.
PRECISIONS: dict[str, torch.dtype] = {name: getattr(torch, name, torch.float32) for name in PRECISION_NAMES}


@dataclass(frozen=True)
class Backbone:
    """Networks with frozen weights in float32, run under autocast where `precision` is lower.

    "float64" widens everything; it is for proofs, since SyncDiffusion's gradient steps amplify rounding. Networks that
    were loaded in half precision (a diffusers pipeline may be) run in it; between networks all stays float32.

    model_id: hub repository, folder, or "embedded".
    revision: the commit of a hub repository, where it is known.
    fingerprint: hash of the weight files for a folder, "id@commit" for a hub repository; with adapters of both.
    window: side of the square that the model was trained on, in latent cells (64 for Stable Diffusion).
    factor: pixels of an image per latent cell (8).
    compiled_unet: the UNet through torch.compile, for predictions without a gradient; None: nothing is compiled.
    widen_decoder: the autoencoder runs in float32 under any lower precision: SDXL's overflows in float16.
    tokenizer_2, text_encoder_2: Stable Diffusion XL's second ones (`text_xl`); None for Stable Diffusion.
    zeros_for_empty: whether an empty negative prompt is zeros, as the model was trained, instead of an encoded text.
    adapters: what was loaded onto the model, as records hold it (`adapters.Adapters.record`); part of the fingerprint.
    offload: what moves networks to the device as they are used; None: they stay on it.
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
    widen_decoder: bool = False
    tokenizer_2: Any = None
    text_encoder_2: Any = None
    zeros_for_empty: bool = False
    adapters: dict[str, Any] = field(default_factory=dict)
    offload: Offload | None = None
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

    @functools.cached_property
    def decoder(self) -> Decoder:
        """How far the autoencoder's decoder sees and what memory it takes, measured once."""
        return measure_decoder(self)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """What all work with the networks stands in; nothing outlives it.

        TF32 is on for precision "tf32" and off for all others, whatever the process has set: by default PyTorch takes
        it for convolutions. Inference mode is left, for a perceptual gradient cannot be taken in it.
        """
        inference = torch.inference_mode(False) if torch.is_inference_mode_enabled() else contextlib.nullcontext()
        with inference, tf32(self.precision == "tf32"):
            yield

    @property
    def execution(self) -> dict[str, Any]:
        """How the networks run, for records."""
        kernel = next(weight for weight in self.unet.parameters() if weight.dim() == 4)
        channels_last = kernel.is_contiguous(memory_format=torch.channels_last)
        return {
            "memory_format": "channels_last" if channels_last else "contiguous",
            "tf32": self.precision == "tf32",
            "decoder": "float32" if self.widen_decoder and self.is_low else self.precision,
        }

    @property
    def is_low(self) -> bool:
        """Whether the precision is below float32, so that networks run under autocast."""
        return self.precision in ("float16", "bfloat16")

    def autocast(self) -> contextlib.AbstractContextManager:
        """The released code runs float32 weights under half-precision autocast; so do we."""
        return torch.autocast(
            self.device.type, PRECISIONS[self.precision] if self.is_low else None, enabled=self.is_low
        )

    @property
    def widened(self) -> "Backbone":
        """The same networks without autocast; the backbone itself where there is none, or the weights are narrow."""
        narrow = dtype_of(self.unet) in (torch.float16, torch.bfloat16)
        if narrow or not self.is_low:
            return self
        return replace(self, precision="float32")

    def steps(self, count: int, **changes: Any) -> "DDIMScheduler":
        """A DDIM scheduler of its own, with `count` timesteps set; changes: of the model's scheduler configuration.

        Raises:
            UsageError: more steps than the model was trained on.
        """
        most = self.scheduler.config.num_train_timesteps - self.scheduler.config.steps_offset
        if count > most:
            raise UsageError(f"steps={count}: this model's schedule has {most}; use 1 to {most}")
        # A copy: `set_timesteps` changes the scheduler, and a backbone is shared.
        scheduler = type(self.scheduler).from_config(self.scheduler.config, **changes)
        scheduler.alphas_cumprod = scheduler.alphas_cumprod.to(self.dtype)
        scheduler.final_alpha_cumprod = scheduler.final_alpha_cumprod.to(self.dtype)
        scheduler.set_timesteps(count)
        self.check_signal(float(scheduler.timesteps[0]))
        return scheduler

    def check_signal(self, first: float) -> None:
        """UsageError for a schedule that begins at this timestep without any signal: x0 of noise alone is 0 / 0."""
        whole = self.scheduler.config.rescale_betas_zero_snr
        if whole and float(self.scheduler.alphas_cumprod[int(first)]) == 0:
            raise UsageError(
                "scheduler: rescale_betas_zero_snr with timestep_spacing=trailing begins at a step without any signal, "
                "of which no noise can be told; use timestep_spacing=leading"
            )

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Text embeddings [n, tokens, d]; longer prompts are cut at the tokenizer's length.

        Of Stable Diffusion XL [n, tokens + 1, d]: the last row holds the pooled embedding (`text_xl`).
        """
        try:
            if self.text_encoder_2 is None:
                return self.text_encoder(self._tokens(self.tokenizer, prompts))[0].to(self.dtype)
            first, second = (
                encoder(self._tokens(tokenizer, prompts), output_hidden_states=True)
                for tokenizer, encoder in (
                    (self.tokenizer, self.text_encoder),
                    (self.tokenizer_2, self.text_encoder_2),
                )
            )
            states = [each.hidden_states[-2].to(self.dtype) for each in (first, second)]
            return text_xl.join(states, second.text_embeds.to(self.dtype))
        finally:
            if self.offload is not None:
                self.offload.leave("text_encoder", "text_encoder_2")

    def encode_negative(self, prompt: str) -> Tensor:
        """The embedding of a negative prompt, [1, tokens, d]; zeros for an empty one where the model has them so."""
        encoded = self.encode_prompts([prompt])
        return torch.zeros_like(encoded) if self.zeros_for_empty and not prompt else encoded

    def _tokens(self, tokenizer: Any, prompts: Sequence[str]) -> Tensor:
        """Numbers of tokens, [n, tokens]."""
        words = list(prompts)
        if not getattr(tokenizer, "converts", False):  # a word that stands for several vectors has a token for each
            from diffusers.loaders import TextualInversionLoaderMixin

            words = TextualInversionLoaderMixin().maybe_convert_prompt(words, tokenizer)
        tell_cut(tokenizer, words)
        options = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
        return tokenizer(words, max_length=tokenizer.model_max_length, **options).input_ids.to(self.device)

    def predict_noise(self, latents: Tensor, t: Tensor | float, conditioning: "Conditioning") -> Tensor:
        """The noise that the UNet predicts, with classifier-free guidance, whatever it predicts it by.

        Args:
            latents: [r, c, h, w], noisy, at timestep `t`.
            conditioning: a row for each of them.

        Returns:
            [r, c, h, w] of `dtype`. Differentiable in `latents`.
        """
        kind = self.scheduler.config.prediction_type
        signal = 0.0 if kind == "epsilon" else self._signal(float(t))
        t = torch.as_tensor(t, device=latents.device)  # of a number, torch.compile would compile for each anew
        unet = self.unet
        # Where a mode looks at every operation (memory.PeakMemory), torch.compile would give up for good.
        if self.compiled_unet is not None and not torch.is_grad_enabled() and _get_current_dispatch_mode() is None:
            unet = self.compiled_unet
        with self.autocast():
            told = self._told(torch.cat([conditioning.empty, conditioning.text]).to(dtype_of(self.unet)), conditioning)
            twice = torch.cat([latents, latents]).to(dtype_of(self.unet))
            both = unet(twice, t, **told, **control_residuals(conditioning, twice, t, told)).sample
        without, conditioned = both.to(self.dtype).chunk(2)
        found = without + conditioning.guidance_scale * (conditioned - without)
        if kind == "v_prediction":  # v = sqrt(a) · noise - sqrt(1 - a) · x0 (Salimans and Ho, ICLR 2022)
            return signal**0.5 * found + (1 - signal) ** 0.5 * latents
        if kind == "sample":
            return (latents - signal**0.5 * found) / (1 - signal) ** 0.5
        return found

    def _signal(self, t: float) -> float:
        """Alpha-bar at a timestep; between two of the model's, as Euler's scheduler has them, by their sigmas."""
        levels, below = self.scheduler.alphas_cumprod, int(t)
        if t == below:
            return float(levels[below])
        lower, upper = (float((1 - levels[i]) / levels[i]) ** 0.5 for i in (below, below + 1))
        return 1 / (1 + (lower + (t - below) * (upper - lower)) ** 2)

    def _told(self, prompts: Tensor, conditioning: "Conditioning") -> dict[str, Any]:
        """What the UNet, and a ControlNet beside it, is told of the guidance pair, as keywords."""
        if self.text_encoder_2 is None:
            return {"encoder_hidden_states": prompts}
        side = self.window * self.factor
        states, added = text_xl.told(self.unet, prompts, conditioning.size or (side, side))
        return {"encoder_hidden_states": states, "added_cond_kwargs": added}

    def _around_vae(self) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext() if self.widen_decoder else self.autocast()

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Latents [n, c, h, w] of images [n, 3, factor·h, factor·w] in [0, 1], whole as `decode` does.

        Of AutoencoderKL the mode of the distribution (which is its mean), so that nothing is drawn at random.
        """
        with self._around_vae():
            found = self.vae.encode((2 * images - 1).to(dtype_of(self.vae)))
        latents = found.latents if hasattr(found, "latents") else found.latent_dist.mode()
        return latents.to(self.dtype) * self.vae.config.scaling_factor

    def decode(self, latents: Tensor) -> Tensor:
        """Images [n, 3, factor·h, factor·w] in [0, 1], of latents [n, 4, h, w].

        Differentiable; the clamp passes no gradient where it saturates, as in the released code.
        """
        with self._around_vae():
            images = self.vae.decode((latents / self.vae.config.scaling_factor).to(dtype_of(self.vae))).sample
        return (images.to(self.dtype) / 2 + 0.5).clamp(0, 1)


@contextlib.contextmanager
def tf32(on: bool) -> Iterator[None]:
    """CUDA's float32 convolutions and matrix products in TF32, or in full float32, within the block."""
    products: Any = torch.backends.cuda.matmul
    convolutions: Any = torch.backends.cudnn
    name: str = "allow_tf32"
    value: bool | str = on
    if hasattr(products, "fp32_precision"):  # since PyTorch 2.9
        name, value, convolutions = "fp32_precision", "tf32" if on else "ieee", convolutions.conv
    before = getattr(products, name), getattr(convolutions, name)
    try:
        setattr(products, name, value)
        setattr(convolutions, name, value)
        yield
    finally:
        setattr(products, name, before[0])
        setattr(convolutions, name, before[1])


def control_residuals(conditioning: "Conditioning", twice: Tensor, t: Tensor, told: dict[str, Any]) -> dict[str, Any]:
    """What ControlNets add inside the UNet, summed over them, as arguments of it; none where there are none.

    twice, told: latents of the guidance pair and what the UNet is told of it; both halves see the picture.
    """
    total: list[Tensor] = []
    for control in conditioning.controls:
        images = torch.cat([control.images, control.images]).to(dtype_of(control.network))
        down, middle = control.network(
            twice, t, **told, controlnet_cond=images, conditioning_scale=control.scale, return_dict=False
        )  # fmt: skip
        found = [*down, middle]
        if control.network.config.global_pool_conditions:  # as shuffle's: only the half that is told the prompt
            found = [torch.cat([torch.zeros_like(half), told_half]) for half, told_half in map(halves, found)]
        total = [a + b for a, b in zip(total, found, strict=True)] if total else found
    if not total:
        return {}
    return {"down_block_additional_residuals": tuple(total[:-1]), "mid_block_additional_residual": total[-1]}


def halves(both: Tensor) -> tuple[Tensor, Tensor]:
    """Of the guidance pair: without the prompt, and with it."""
    without, conditioned = both.chunk(2)
    return without, conditioned


def tell_cut(tokenizer: Any, texts: Sequence[str]) -> None:
    """Tell of each text, once, that is longer than the text encoder reads, and what of it is left out."""
    most = tokenizer.model_max_length
    for text in texts:
        tokens = tokenizer([text], truncation=False, verbose=False).input_ids[0]
        if len(tokens) > most and text not in _CUT:
            _CUT.add(text)
            rest = tokenizer.decode(tokens[most - 1 : -1]).strip()  # the last that is read marks the end
            logger.warning(f"prompt: {len(tokens)} tokens, of which the model reads {most}; left out: '{rest}'")


def dtype_of(network: torch.nn.Module) -> torch.dtype:
    """The dtype of a network's weights."""
    return next(network.parameters()).dtype
