"""Every method as a diffusers pipeline, for those who work with diffusers already; in place of its deprecated
StableDiffusionPanoramaPipeline. `pipeline.md` beside this file tells how to move from that one."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, DDIMScheduler, DiffusionPipeline, UNet2DConditionModel
from diffusers.loaders import StableDiffusionLoraLoaderMixin, TextualInversionLoaderMixin
from diffusers.pipelines.pipeline_utils import StableDiffusionMixin
from diffusers.pipelines.stable_diffusion import StableDiffusionPipeline, StableDiffusionPipelineOutput
from diffusers.utils import logging
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from syncdiffusion.backbones.backbone import PRECISIONS, Backbone
from syncdiffusion.backbones.kind import ddim
from syncdiffusion.backbones.loading import freeze
from syncdiffusion.conditioning.text import Conditioning
from syncdiffusion.cost import Square
from syncdiffusion.errors import ArgumentError, UsageError
from syncdiffusion.joint.task import Given, Step
from syncdiffusion.method import Method
from syncdiffusion.pipeline_arguments import (
    drawn,
    find_method,
    in_their_names,
    refuse,
    settings_of,
)
from syncdiffusion.pipeline_parts import (
    TENSORS,
    Converting,
    Interrupted,
    check_unet,
    checked,
    encoded,
    in_form,
    lora_scaled,
    on_device,
    steering,
)

logger = logging.get_logger(__name__)

OUTPUT_TYPES = ("pil", "np", "pt", "latent")
OFFLOAD = "UNet and autoencoder work together in some methods; use enable_model_cpu_offload()"


class SyncDiffusionPipeline(
    DiffusionPipeline, StableDiffusionMixin, TextualInversionLoaderMixin, StableDiffusionLoraLoaderMixin
):
    """Panoramas by any method of this package behind diffusers' interface; the same images for the same settings.

    Opens any folder or repository in StableDiffusionPipeline's layout. Networks run in the precision that they were
    loaded in. `scheduler` decides the sampler: DDIM, DDPM, Euler or DPM-Solver++ 2M; PNDM, which Stable Diffusion's
    repositories name, becomes DDIM on the same schedule.

    Examples:
        ```python
        from syncdiffusion.pipeline import SyncDiffusionPipeline

        pipe = SyncDiffusionPipeline.from_pretrained(model)  # a folder, or a hub id
        image = pipe("a photo of a forest with a misty fog", seed=1).images[0]  # the paper's method
        ring = pipe("a photo of a lake", method="multidiffusion", circular_padding=True).images[0]
        ```
    """

    model_cpu_offload_seq = "text_encoder->unet->vae"
    _optional_components = ["safety_checker", "feature_extractor", "image_encoder"]
    _exclude_from_cpu_offload = ["safety_checker"]
    _callback_tensor_inputs = list(TENSORS)

    encode_prompt = StableDiffusionPipeline.encode_prompt

    def __init__(
        self,
        vae: AutoencoderKL | AutoencoderTiny,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        unet: UNet2DConditionModel,
        scheduler: DDIMScheduler,
        safety_checker: Any = None,
        feature_extractor: Any = None,
        image_encoder: Any = None,
        requires_safety_checker: bool = True,
    ):
        super().__init__()
        if safety_checker is not None and feature_extractor is None:
            raise ArgumentError("feature_extractor=None: the safety checker sees through it; give both, or neither")
        if type(scheduler).__name__ == "PNDMScheduler":
            logger.warning("PNDMScheduler is no sampler of this pipeline; it takes DDIM's steps on the same schedule")
            scheduler = ddim(scheduler.config)
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=unet,
            scheduler=scheduler,
            safety_checker=safety_checker,
            feature_extractor=feature_extractor,
            image_encoder=image_encoder,  # IP-Adapters', named by StableDiffusionPipeline's index
        )
        self.register_to_config(requires_safety_checker=requires_safety_checker)
        self._interrupt, self._guidance_scale, self._num_timesteps = False, 1.0, 0

    @property
    def guidance_scale(self) -> float:
        """Of the call that runs, or ran last."""
        return self._guidance_scale

    @property
    def num_timesteps(self) -> int:
        """Of the call that runs, or ran last."""
        return self._num_timesteps

    @property
    def interrupt(self) -> bool:
        """A callback that sets `pipe._interrupt = True` ends sampling; the picture is that of the latents of then."""
        return self._interrupt

    @property
    def offloads(self) -> bool:
        """Whether `enable_model_cpu_offload` is on."""
        return bool(getattr(self, "_all_hooks", None))

    def enable_vae_tiling(self) -> None:
        """Canvases larger than the autoencoder was trained on are decoded in its own tiles, which it blends.

        Rarely needed: where a canvas does not fit into memory it is decoded in tiles by itself.
        """
        self.vae.enable_tiling()

    def disable_vae_tiling(self) -> None:
        self.vae.disable_tiling()

    def enable_vae_slicing(self) -> None:
        """Images one by one through the autoencoder; canvases are decoded one by one without it."""
        self.vae.enable_slicing()

    def disable_vae_slicing(self) -> None:
        self.vae.disable_slicing()

    def load_ip_adapter(self, *args: Any, **options: Any) -> None:
        raise ArgumentError("load_ip_adapter: IP-Adapters are not there; condition by prompt, layout or control_image")

    def enable_sequential_cpu_offload(self, *args: Any, **options: Any) -> None:
        raise ArgumentError(f"enable_sequential_cpu_offload: {OFFLOAD}")

    def enable_group_offload(self, *args: Any, **options: Any) -> None:
        raise ArgumentError(f"enable_group_offload: {OFFLOAD}")

    def backbone(self) -> Backbone:
        """The pipeline's networks as the methods of this package take them.

        Raises:
            UsageError: networks of two dtypes, on two devices, or of another kind than Stable Diffusion's.
        """
        # Gradients do not go through what torch.compile makes (`loading.compile_unet`).
        unet = getattr(self.unet, "_orig_mod", self.unet)
        check_unet(unet, self.vae)
        networks = [each for each in (self.vae, self.text_encoder, unet) if each is not None]
        kind = type(self.scheduler).__name__
        try:
            schedule = ddim(self.scheduler.config, kind)
        except ValueError as error:
            raise UsageError(f"scheduler={kind}: {error}; give the model's own, or DDIMScheduler") from None
        device = torch.device(self._execution_device)
        for network in networks:
            if network.device != device and not self.offloads:
                raise UsageError(f"device: networks on {device} and {network.device}; move all by pipe.to(device)")
            freeze(network, network.device, network.dtype)
        return Backbone(
            model_id=str(self.config.get("_name_or_path", "")),
            revision=None,
            fingerprint="",
            tokenizer=Converting(self),
            text_encoder=self.text_encoder,
            unet=unet,
            vae=self.vae,
            scheduler=schedule,
            device=device,
            precision=self.precision(),
            compiled_unet=None if unet is self.unet else self.unet,
        )

    def precision(self) -> str:
        """The name of the dtype that the networks were loaded in.

        Raises:
            UsageError: the networks are of two dtypes, or of one that no diffusion model runs in.
        """
        dtypes = {module.dtype for module in (self.vae, self.unet)}
        names = [name for name, dtype in PRECISIONS.items() if dtypes == {dtype} and name != "tf32"]
        if not names:
            found = ", ".join(sorted(str(each).removeprefix("torch.") for each in dtypes))
            raise UsageError(
                f"torch_dtype: UNet and autoencoder in {found}; load both in one of "
                f"{', '.join(name for name in PRECISIONS if name != 'tf32')}"
            )
        return names[0]

    def __call__(
        self,
        prompt: str | Sequence[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        *,
        method: str | Method = "syncdiffusion",
        guidance_scale: float = 7.5,
        negative_prompt: str | Sequence[str] | None = None,
        num_images_per_prompt: int = 1,
        eta: float = 0.0,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        seed: int | Sequence[int] | None = None,
        latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[..., Any] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        circular_padding: bool = False,
        view_batch_size: int | str | None = None,
        clip_skip: int | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        **settings: Any,
    ) -> StableDiffusionPipelineOutput | tuple[Any, Any]:
        """Panoramas, of each prompt one or several.

        Args:
            height, width: pixels; by default one window high and six windows wide, the paper's shape.
            num_inference_steps: by default the method's, 50.
            method: a name in `baselines.METHODS`, or a Method; its settings are further keywords (weight, stride, ...).
            guidance_scale: up to 1 there is no guidance.
            negative_prompt: one for all prompts, or one each.
            eta: 0; or 1 with DDIMScheduler, which is the sampler ddpm.
            generator: one, or one for each image: draws the initial latents as diffusers' pipelines do. All further
                draws of a method belong to (prompt, seed), with a seed drawn from a copy of the generator.
            seed: in place of a generator, and 0 without one: with the prompt it fixes all noise, as everywhere in this
                package. One, or one for each prompt or image; image k of a prompt has k more.
            latents: initial noise, standard normal [n, c, height / 8, width / 8].
            prompt_embeds, negative_prompt_embeds: encoded texts [n, tokens, d], in place of the texts.
            output_type: "pil", "np" ([n, h, w, 3] in [0, 1]), "pt" ([n, 3, h, w] on the CPU), or "latent".
            return_dict: False returns a tuple of the output's two fields.
            callback_on_step_end: called with (pipe, index of the step, its timestep, tensors); what it returns of
                "latents", "prompt_embeds" and "negative_prompt_embeds" is gone on with. Latents are variance-preserving
                with every sampler.
            circular_padding: a panorama whose ends meet.
            view_batch_size: windows through the UNet at once; by default as many as fit into the free memory.
            clip_skip: layers of the text encoder that are left out for the prompt.
            cross_attention_kwargs: {"scale": strength of LoRA layers}, or None.
            settings: any setting of the method.

        Raises:
            ArgumentError (a ValueError): an argument that makes no sense or is not there, a size that the windows
                cannot cover, too little memory.
        """
        given = {
            "height": height,
            "width": width,
            "num_inference_steps": num_inference_steps,
            "view_batch_size": view_batch_size,
            **({"negative_prompt": negative_prompt} if isinstance(negative_prompt, str) else {}),
        }
        try:
            if output_type not in OUTPUT_TYPES:
                raise UsageError(f"output_type={output_type}: use one of {', '.join(OUTPUT_TYPES)}")
            chosen, backbone = find_method(method), self.backbone()
            square = Square(backbone.window, backbone.factor)
            given |= refuse(settings)
            made = settings_of(chosen, square, self.scheduler, given, guidance_scale, eta, circular_padding)
            self._interrupt, self._guidance_scale, self._num_timesteps = False, guidance_scale, len(made.passes)
            with lora_scaled(self, cross_attention_kwargs):
                texts = (prompt, prompt_embeds, negative_prompt, negative_prompt_embeds)
                layout = getattr(made, "layout", None)
                prompts, text = encoded(self, *texts, num_images_per_prompt, clip_skip, layout)
                cells = (made.height // backbone.factor, made.width // backbone.factor)
                shape = (len(prompts), backbone.channels, *cells)
                seeds, noise = drawn(seed, generator, shape, num_images_per_prompt, latents, text[0])
                with torch.inference_mode(False):  # a callback may change them, which tensors made in it forbid
                    own, empty = (each.clone().to(backbone.dtype) for each in text)
                told = Conditioning(own, empty, made.guidance_scale)
                looked_at = callback_on_step_end_tensor_inputs
                steered = steering(self, chosen, told, callback_on_step_end, looked_at, layout)
                with on_device(self, backbone.device, "unet", "vae"), self.progress_bar(total=len(made.passes)) as bar:

                    def on_step(step: Step) -> None:
                        bar.total = step.count  # of some methods not the sampler's
                        bar.update()

                    brought = Given(told, noise, steered)
                    try:
                        found = chosen.sample_latents(backbone, prompts, seeds, made, on_step, given=brought)
                    except Interrupted as stop:
                        found = stop.latents
            images, unsafe = found, None
            if output_type != "latent":
                with on_device(self, backbone.device, "vae"):
                    images, unsafe = checked(self, chosen.decode(backbone, found, made))
                images = in_form(images, output_type)
        except UsageError as error:
            raise ArgumentError(in_their_names(str(error), given)) from error
        finally:
            self.maybe_free_model_hooks()
        return StableDiffusionPipelineOutput(images, unsafe) if return_dict else (images, unsafe)
