"""SyncDiffusion as a diffusers pipeline, for those who work with diffusers already.

pipe = SyncDiffusionPipeline.from_pretrained(folder_or_hub_id)
image = pipe("a photo of a forest with a misty fog", width=3072, seed=1).images[0]
"""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDIMScheduler,
    DiffusionPipeline,
    ImagePipelineOutput,
    UNet2DConditionModel,
)
from transformers import CLIPTextModel, CLIPTokenizer

from syncdiffusion.backbones.backbone import PRECISIONS, Backbone
from syncdiffusion.backbones.loading import freeze
from syncdiffusion.errors import UsageError
from syncdiffusion.sync import METHOD, SyncDiffusionSettings

OUTPUT_TYPES = ("pil", "np", "pt")


class SyncDiffusionPipeline(DiffusionPipeline):
    """The method of syncdiffusion.sync behind diffusers' interface; the same images for the same settings.

    Opens any folder or repository in StableDiffusionPipeline's layout. Whatever the stored scheduler, the
    setting `sampler` says how steps are taken. Networks run in the precision that they were loaded in.
    """

    def __init__(
        self,
        vae: AutoencoderKL | AutoencoderTiny,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        unet: UNet2DConditionModel,
        scheduler: DDIMScheduler,
        safety_checker: Any = None,
        feature_extractor: Any = None,
    ):
        super().__init__()
        # Accepted, since StableDiffusionPipeline's index names them, and not used.
        del safety_checker, feature_extractor
        self.register_modules(vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler)

    def backbone(self) -> Backbone:
        """The pipeline's networks as the methods of this package take them."""
        for module in (self.vae, self.text_encoder, self.unet):
            freeze(module, module.device, module.dtype)
        return Backbone(
            model_id=str(self.config.get("_name_or_path", "")),
            revision=None,
            fingerprint="",
            tokenizer=self.tokenizer,
            text_encoder=self.text_encoder,
            unet=self.unet,
            vae=self.vae,
            scheduler=DDIMScheduler.from_config(self.scheduler.config),
            device=torch.device(self.device),
            precision=self.precision(),
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
        prompt: str | Sequence[str],
        height: int | None = None,
        width: int | None = None,
        seed: int | Sequence[int] = 0,
        output_type: str = "pil",
        **settings: Any,
    ) -> ImagePipelineOutput:
        """Panoramas, one for each prompt.

        Args:
            height, width: pixels; by default one window high and six windows wide, the paper's shape.
            seed: one for all prompts or one each; with the prompt it fixes the initial noise.
            output_type: "pil", "np" ([n, h, w, 3] in [0, 1]) or "pt" ([n, 3, h, w]).
            settings: fields of SyncDiffusionSettings: steps, stride, weight, first_n, ...

        Raises:
            UsageError: a setting or an output type that makes no sense, or a size that the windows cannot cover.
        """
        if output_type not in OUTPUT_TYPES:
            raise UsageError(f"output_type={output_type}: use one of {', '.join(OUTPUT_TYPES)}")
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        seeds = [int(seed)] * len(prompts) if isinstance(seed, int | Integral) else list(seed)
        backbone = self.backbone()
        side = backbone.window * backbone.factor
        chosen = {
            "stride": max(1, backbone.window // 4),
            "height": side if height is None else height,
            "width": 6 * side if width is None else width,
            **settings,
        }
        made = SyncDiffusionSettings(**chosen)
        with self.progress_bar(total=made.steps_taken) as bar:
            images = METHOD.generate(backbone, prompts, seeds, made, lambda step: bar.update())
        if output_type == "pt":
            return ImagePipelineOutput(images=images)
        arrays = images.permute(0, 2, 3, 1).numpy()
        return ImagePipelineOutput(images=arrays if output_type == "np" else self.numpy_to_pil(arrays))
