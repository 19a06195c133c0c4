"""What stands around the methods in the diffusers pipeline: texts, callbacks, LoRA's strength, where networks are, and
what form images have.

`pipe` is a `syncdiffusion.pipeline.SyncDiffusionPipeline` throughout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.utils import scale_lora_layers, unscale_lora_layers
from torch import Tensor

from syncdiffusion.backbones.backbone import tell_cut
from syncdiffusion.backbones.kind import unlike
from syncdiffusion.conditioning.text import Conditioning
from syncdiffusion.errors import UsageError
from syncdiffusion.joint.task import OnCanvas, Step
from syncdiffusion.method import Method
from syncdiffusion.pipeline_arguments import shown

TENSORS = ("latents", "prompt_embeds", "negative_prompt_embeds")  # that a callback may see


class Interrupted(Exception):
    """A callback has set `pipe._interrupt`; `latents` are those of then."""

    def __init__(self, latents: Tensor) -> None:
        super().__init__()
        self.latents = latents


class Converting:
    """The pipeline's tokenizer, with a token for each vector of a word that textual inversion taught several."""

    converts = True

    def __init__(self, pipe: Any) -> None:
        self.pipe, self.model_max_length = pipe, pipe.tokenizer.model_max_length if pipe.tokenizer else 0

    def decode(self, tokens: Sequence[int]) -> str:
        return str(self.pipe.tokenizer.decode(tokens))

    def __call__(self, prompts: Sequence[str], **options: Any) -> Any:
        return self.pipe.tokenizer(self.pipe.maybe_convert_prompt(list(prompts), self.pipe.tokenizer), **options)


def check_unet(unet: Any, vae: Any) -> None:
    """UsageError for networks of another kind than Stable Diffusion 1's or 2's."""
    if unet.config.addition_embed_type not in (None, "text"):  # "text" is made of the prompt itself, as the miniature's
        kind = unet.config.addition_embed_type
        raise UsageError(
            f"unet: wants addition_embed_type={kind}; give a text-to-image model of Stable Diffusion 1 or 2"
        )
    if (words := unlike(unet, vae)) is not None:
        raise UsageError(f"unet: {words}")


@torch.no_grad()
def encoded(
    pipe: Any,
    prompt: str | Sequence[str] | None,
    prompt_embeds: Tensor | None,
    negative_prompt: str | Sequence[str] | None,
    negative_prompt_embeds: Tensor | None,
    each: int,
    clip_skip: int | None,
    layout: str | None,
) -> tuple[list[str], tuple[Tensor, Tensor]]:
    """The prompt of each image ("" where only its embedding is known); what the UNet is told of it, and negatively.

    Args:
        each: images of each prompt.
        layout: the setting, whose regions have texts of their own.

    Returns:
        texts, and two tensors [images, tokens, d].

    Raises:
        UsageError: texts and embeddings both, or neither; embeddings of a wrong shape; unequally many of a kind.
    """
    for name, text, embeds in (
        ("prompt", prompt, prompt_embeds),
        ("negative_prompt", negative_prompt, negative_prompt_embeds),
    ):
        if text is not None and embeds is not None:
            raise UsageError(f"{name}={shown(text)}, {name}_embeds: give one of them")
    if prompt is None and prompt_embeds is None:
        raise UsageError("prompt: none given; give a text, several, or prompt_embeds")
    if isinstance(each, bool) or not isinstance(each, int) or each < 1:
        raise UsageError(f"num_images_per_prompt={each}: use 1 or more")
    if layout is not None and (prompt_embeds is not None or clip_skip is not None):
        name = "prompt_embeds" if prompt_embeds is not None else f"clip_skip={clip_skip}"
        raise UsageError(f"{name}: does not go with a layout, whose regions are texts; give prompt alone")
    if prompt_embeds is not None:
        texts = [""] * len(prompt_embeds)
    else:
        texts = [prompt] if isinstance(prompt, str) else list(prompt or ())
    if not texts or not all(isinstance(text, str) for text in texts):
        raise UsageError(f"prompt={shown(prompt)}: give a text, or several")
    negatives = [negative_prompt] if isinstance(negative_prompt, str) else list(negative_prompt or [""])
    if len(negatives) not in (1, len(texts)):
        raise UsageError(f"negative_prompt: {len(negatives)} of them for {len(texts)} prompts; give one, or one each")
    negatives *= len(texts) if len(negatives) == 1 else 1
    _check_embeds(pipe, prompt_embeds, negative_prompt_embeds, len(texts))
    device = pipe._execution_device
    if clip_skip is not None:
        if prompt_embeds is not None:
            raise UsageError(
                f"clip_skip={clip_skip}: is of the text encoder, which prompt_embeds leave out; give prompt"
            )
        prompt_embeds = _without_last(pipe, texts, clip_skip, device)
    positive, negative = pipe.encode_prompt(
        texts if prompt_embeds is None else None,
        device,
        each,
        True,
        None if negative_prompt_embeds is not None else negatives,
        prompt_embeds=prompt_embeds,
        negative_prompt_embeds=negative_prompt_embeds,
    )
    if positive.shape != negative.shape:
        raise UsageError(
            f"{'prompt_embeds' if negative_prompt_embeds is None else 'negative_prompt_embeds'}: the prompt has "
            f"{positive.shape[1]} tokens, the negative one {negative.shape[1]}; give both as embeddings of one shape"
        )
    return [text for text in texts for _ in range(each)], (positive, negative)


def _check_embeds(pipe: Any, embeds: Tensor | None, negative: Tensor | None, count: int) -> None:
    """UsageError for embeddings that the UNet cannot read, or texts without an encoder."""
    width = pipe.unet.config.cross_attention_dim
    for name, given in (("prompt_embeds", embeds), ("negative_prompt_embeds", negative)):
        if given is None and pipe.text_encoder is None:
            raise UsageError(f"{name}: are needed, as the pipeline has no text encoder")
        if given is not None and (given.dim() != 3 or given.shape[0] != count or given.shape[2] != width):
            raise UsageError(f"{name}: their shape is {list(given.shape)}; give [{count}, tokens, {width}]")
    if embeds is not None and negative is not None and embeds.shape != negative.shape:
        raise UsageError(
            f"prompt_embeds, negative_prompt_embeds: their shapes are {list(embeds.shape)} and {list(negative.shape)}; "
            "give two of one shape"
        )


def _without_last(pipe: Any, texts: list[str], clip_skip: int, device: torch.device) -> Tensor:
    """Embeddings [n, tokens, d] of the text encoder without its last layers, through its last norm all the same."""
    encoder = pipe.text_encoder
    most = encoder.config.num_hidden_layers
    if isinstance(clip_skip, bool) or not isinstance(clip_skip, int) or not 0 <= clip_skip <= most:
        raise UsageError(f"clip_skip={clip_skip}: use 0 to {most}, the text encoder's layers, or None")
    tell_cut(Converting(pipe), texts)
    tokens = Converting(pipe)(
        texts, padding="max_length", max_length=pipe.tokenizer.model_max_length, truncation=True, return_tensors="pt"
    )
    states = encoder(tokens.input_ids.to(device), output_hidden_states=True).hidden_states
    # transformers 5 has the norm in the encoder itself, earlier versions in its text_model.
    return getattr(encoder, "text_model", encoder).final_layer_norm(states[-(clip_skip + 1)])


def steering(
    pipe: Any,
    method: Method,
    told: Conditioning,
    callback: Callable[..., Any] | None,
    names: Sequence[str],
    layout: str | None,
) -> OnCanvas | None:
    """A callback of diffusers' kind as what looks at canvases after every step; None where there is none.

    layout: the setting; with one the texts cannot be changed.

    Raises:
        UsageError: tensors that there are not; when called, a change that cannot be taken up.
    """
    if callback is None:
        return None
    if isinstance(callback, PipelineCallback | MultiPipelineCallbacks):
        names = callback.tensor_inputs
    for name in names:
        if name not in TENSORS:
            raise UsageError(f"callback_on_step_end_tensor_inputs={name}: use one of {', '.join(TENSORS)}")
    texts, guidance_scale = {"prompt_embeds": told.text, "negative_prompt_embeds": told.empty}, pipe.guidance_scale

    @torch.no_grad()
    def on_canvas(step: Step, x: Tensor) -> Tensor:
        before = x.clone() if method.own_latents else x
        seen = {"latents": x, **texts}
        changed = callback(pipe, step.index, step.timestep, {name: seen[name] for name in names}) or {}
        if pipe.guidance_scale != guidance_scale:
            raise UsageError("callback_on_step_end: changes guidance_scale, which is the same in all steps")
        for name, value in texts.items():
            new = changed.get(name, value)
            if new.shape != value.shape:
                raise UsageError(f"callback_on_step_end: {name} become {list(new.shape)}; return {list(value.shape)}")
            if layout and not torch.equal(new.to(value), value):
                raise UsageError(
                    f"callback_on_step_end: changes {name}, and a layout's regions have texts of their own; look at "
                    "them only"
                )
            value.copy_(new)  # what all later steps read
        now = changed.get("latents", x)
        if now.shape != x.shape:
            raise UsageError(f"callback_on_step_end: latents become {list(now.shape)}; return {list(x.shape)}")
        if method.own_latents and not torch.equal(now, before):
            raise UsageError(
                f"callback_on_step_end: changes latents, and windows of {method.name} keep latents of their own; "
                "look at them only"
            )
        if pipe.interrupt:
            raise Interrupted(now.to(x))
        return now.to(x)

    return on_canvas


@contextmanager
def lora_scaled(pipe: Any, options: dict[str, Any] | None) -> Iterator[None]:
    """Within, LoRA layers have the strength that `cross_attention_kwargs` asks for.

    Raises:
        UsageError: they ask for anything else, or there are no such layers.
    """
    if not options:
        yield
        return
    scale = options.get("scale")
    if set(options) != {"scale"} or isinstance(scale, bool) or not isinstance(scale, int | float):
        raise UsageError(f"cross_attention_kwargs={shown(options)}: use {{'scale': strength of LoRA layers}}, or None")
    if not pipe.get_active_adapters():
        raise UsageError(f"cross_attention_kwargs={shown(options)}: no LoRA is loaded; load one, or use None")
    networks = [each for each in (pipe.unet, pipe.text_encoder) if each is not None]
    for network in networks:
        scale_lora_layers(network, scale)
    try:
        yield
    finally:
        for network in networks:
            unscale_lora_layers(network, scale)


@contextmanager
def on_device(pipe: Any, device: torch.device, *names: str) -> Iterator[None]:
    """Where networks are offloaded: within, the named ones are on the device and the others not.

    diffusers' hooks would move a network out as the next is used, and break a gradient that goes through both; so those
    of UNet and autoencoder are taken off for the call, and put back by `maybe_free_model_hooks` at its end.
    """
    if pipe.offloads:
        from accelerate.hooks import remove_hook_from_module

        for name in ("unet", "vae"):
            network = getattr(pipe, name)
            remove_hook_from_module(network, recurse=True)
            network.to(device if name in names else "cpu")
        if pipe.text_encoder is not None:
            pipe.text_encoder.to("cpu")  # its hook brings it back, where a layout has texts to encode
    yield


def checked(pipe: Any, images: Tensor) -> tuple[Tensor, list[bool] | None]:
    """Images [n, 3, h, w] with those black that the pipeline's safety checker finds unsafe, and which; None without."""
    if pipe.safety_checker is None:
        return images, None
    seen = pipe.feature_extractor(in_form(images, "pil"), return_tensors="pt").pixel_values
    weights = next(pipe.safety_checker.parameters())
    return pipe.safety_checker(images=images, clip_input=seen.to(weights.device, weights.dtype))


def in_form(images: Tensor, output_type: str) -> Any:
    """Images [n, 3, h, w] in [0, 1] as diffusers' output type "pt", "np" or "pil" has them."""
    if output_type == "pt":
        return images
    arrays = images.permute(0, 2, 3, 1).numpy()
    return arrays if output_type == "np" else DiffusionPipeline.numpy_to_pil(arrays)
