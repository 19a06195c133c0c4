"""Loading LoRAs, Custom Diffusion and textual inversion onto the networks of a model, once, before anything runs.

- A LoRA (Hu et al., ICLR 2022) is added to the weights that it is of, W + scale · (alpha / rank) · B A, in float32. So
  predictions cost what they did, and differ from those of layers beside the weights by rounding alone.
- Custom Diffusion (Kumari et al., CVPR 2023) trains the keys and values of cross-attention, some also its queries and
  its output. At inference that is these layers with other weights, and they are put there. diffusers has an attention
  processor for it, which stands where attention across windows has its own, and which `load_attn_procs` leaves out
  without a word unless it is told the pipeline (huggingface/diffusers, issue 9320).
- Textual inversion (Gal et al., ICLR 2023) adds rows to the text encoder's embedding.

The formats are those of diffusers' training scripts and of what its pipelines load. Only tensors are unpacked.
"""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import ParameterDict

from syncdiffusion.backbones.adapters import Adapters, custom_diffusion_files, is_hub_id
from syncdiffusion.backbones.model_files import PARTS, SECOND_PARTS
from syncdiffusion.errors import UsageError
from syncdiffusion.files import place_of, read_pickled

LAYERS = {  # of a cross-attention, and what diffusers' training script calls what replaces its weights
    "to_k_custom_diffusion": "to_k",
    "to_v_custom_diffusion": "to_v",
    "to_q_custom_diffusion": "to_q",
    "to_out_custom_diffusion.0": "to_out.0",
}
HUB_FILES = {"lora": "pytorch_lora_weights", "textual_inversion": "learned_embeds"}


def adapt(parts: dict[str, Any], adapters: Adapters) -> None:
    """Load `adapters` onto a model's parts (by their names in Backbone), in float32.

    Raises:
        UsageError: a file that is no such thing, or another model's.
    """
    if adapters.loras and importlib.util.find_spec("peft") is None:
        raise UsageError(f"backbone.lora={adapters.lora}: needs peft; pip install 'syncdiffusion[lora]'")
    pipe = _pipeline(parts)
    if (folder := adapters.custom_diffusion) is not None:
        weights, *tokens = custom_diffusion_files(folder)
        with _refused("custom_diffusion", folder):
            replace_attention(parts["unet"], read_weights(weights))
            for path in tokens:
                add_tokens(pipe, path)
    for name in adapters.inversions:
        with _refused("textual_inversion", name):
            add_tokens(pipe, _file_of("textual_inversion", name))
    for name, scale in zip(adapters.loras, adapters.scales, strict=True):
        with _refused("lora", name):
            add_lora(pipe, _file_of("lora", name), scale)


def _pipeline(parts: Mapping[str, Any]) -> Any:
    """diffusers' pipeline of the parts: its loaders are what is wanted of it."""
    import diffusers

    named = {name: part for name, part in parts.items() if name in (*PARTS, *SECOND_PARTS)}
    if "text_encoder_2" in named:
        return diffusers.StableDiffusionXLPipeline(**named, add_watermarker=False)
    nothing = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return diffusers.StableDiffusionPipeline(**named, **nothing)


def _file_of(kind: str, name: str) -> Path:
    """The file itself, or the hub repository's of the name that diffusers gives them, safetensors first."""
    if not is_hub_id(name):
        return place_of(name)
    repository, _, revision = name.partition("@")
    try:
        return Path(hf_hub_download(repository, f"{HUB_FILES[kind]}.safetensors", revision=revision or None))
    except EntryNotFoundError:
        return Path(hf_hub_download(repository, f"{HUB_FILES[kind]}.bin", revision=revision or None))


def read_weights(path: Path) -> dict[str, Any]:
    """What a file of weights holds, tensors alone unpacked; ValueError where they have no names."""
    found = load_file(path) if path.suffix == ".safetensors" else read_pickled(path)
    if not isinstance(found, Mapping) or not all(isinstance(name, str) for name in found):
        raise ValueError("holds no weights by name")
    return dict(found)


def replace_attention(unet: Any, weights: Mapping[str, Any]) -> None:
    """Put Custom Diffusion's weights where those of the layers are that it replaces.

    weights: by "<attention>.processor.to_k_custom_diffusion.weight" and so on; of layers that were not trained there
        may be an empty entry, as in files that PyTorch wrote, or none, as in safetensors.

    Raises:
        ValueError: no such weights, or another model's.
    """
    replaced = 0
    for name, value in weights.items():
        if not isinstance(value, Tensor):
            if value:
                raise ValueError(f"its {name} is no tensor; give what diffusers' train_custom_diffusion.py wrote")
            continue
        layer, processor, own = name.partition(".processor.")
        own, _, kind = own.rpartition(".")
        if not processor or own not in LAYERS:
            raise ValueError(
                f"its {name} is not Custom Diffusion's; give what diffusers' train_custom_diffusion.py wrote"
            )
        target = _parameter(unet, f"{layer}.{LAYERS[own]}.{kind}")
        if target is None or target.shape != value.shape:
            raise ValueError(f"is another model's: {layer} here does not have its {own}")
        target.data.copy_(value)
        replaced += 1
    if not replaced:
        raise ValueError("holds no weights")


def _parameter(network: Any, name: str) -> Tensor | None:
    try:
        return network.get_parameter(name)
    except AttributeError:
        return None


def add_tokens(pipe: Any, path: Path) -> None:
    """Add the tokens in a file to tokenizers and text encoders.

    In diffusers' format (a tensor by its token), AUTOMATIC1111's (the token is the file's name), or of Stable
    Diffusion XL's two encoders, clip_l and clip_g.

    Raises:
        ValueError: none of these formats, another model's, or a token that is there already.
    """
    found, encoders = read_weights(path), [("", pipe.tokenizer, pipe.text_encoder)]
    if getattr(pipe, "text_encoder_2", None) is not None:
        encoders = [("clip_l", pipe.tokenizer, pipe.text_encoder), ("clip_g", pipe.tokenizer_2, pipe.text_encoder_2)]
    if {"clip_l", "clip_g"} <= set(found) or len(encoders) == 2:
        if not all(part in found for part, _, _ in encoders):
            raise ValueError("is another model's: of Stable Diffusion XL it holds clip_l and clip_g, of others one")
        given = [{path.stem: found[part]} for part, _, _ in encoders]
    elif "string_to_param" in found:
        by_name = found["string_to_param"]
        vectors = by_name.get("*") if isinstance(by_name, Mapping | ParameterDict) else None
        if not isinstance(vectors, Tensor):
            raise ValueError("holds no embedding of a token by string_to_param")
        given = [{path.stem: vectors.detach()}]
    elif set(found) == {"emb_params"}:
        given = [{path.stem: found["emb_params"]}]
    else:
        given = [found]
    for tokens, (_, tokenizer, encoder) in zip(given, encoders, strict=True):
        width = encoder.get_input_embeddings().weight.shape[1]
        for token, vectors in tokens.items():
            if not isinstance(vectors, Tensor) or vectors.ndim not in (1, 2) or not vectors.numel():
                raise ValueError(f"its {token} is no embedding of a token")
            if vectors.shape[-1] != width:
                raise ValueError(f"is another model's: its {token} has {vectors.shape[-1]} numbers, not {width}")
            with _silence():
                pipe.load_textual_inversion({token: vectors}, tokenizer=tokenizer, text_encoder=encoder)


def add_lora(pipe: Any, path: Path, scale: float) -> None:
    """Add a LoRA to the weights, whatever of the formats that diffusers reads.

    Raises:
        ValueError: no LoRA, or another model's, part of which has no place here.
    """
    # From the file where it is safetensors, for these may tell ranks and alphas beside the weights.
    named = path.suffix == ".safetensors"
    weights = read_weights(path)
    if any("dora_scale" in name for name in weights):  # which diffusers leaves out, and only logs that it does
        raise ValueError("is a DoRA, whose magnitudes are not applied here")
    source: Any = str(path.parent) if named else weights
    options: dict[str, Any] = {"weight_name": path.name, "use_safetensors": True} if named else {}
    try:
        with _silence():
            expected, _ = pipe.lora_state_dict(source, **options, unet_config=pipe.unet.config)
            pipe.load_lora_weights(source, **options)
        networks = [network for network in (pipe.unet, *_text_encoders(pipe)) if network is not None]
        there = sum(".lora_" in name for network in networks for name, _ in network.named_parameters())
    except (RuntimeError, KeyError) as error:  # sizes that differ, told in many lines
        raise ValueError(f"is another model's, or no LoRA: {_first_line(error)}") from None
    if there != len(expected):
        raise ValueError(
            f"is another model's: {len(expected) - there} of its {len(expected)} weights have no place here"
        )
    pipe.fuse_lora(components=list(pipe._lora_loadable_modules), lora_scale=scale, safe_fusing=True)
    pipe.unload_lora_weights()


@contextmanager
def _silence() -> Iterator[None]:
    """The libraries tell at length of what has no place, which is counted and told in a line, and of new rows."""
    import diffusers
    import transformers

    logs = [diffusers.utils.logging, transformers.utils.logging]
    before = [each.get_verbosity() for each in logs]
    try:
        for each in logs:
            each.set_verbosity(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for each, level in zip(logs, before, strict=True):
            each.set_verbosity(level)


def _text_encoders(pipe: Any) -> Iterator[Any]:
    yield pipe.text_encoder
    yield getattr(pipe, "text_encoder_2", None)


@contextmanager
def _refused(setting: str, value: str) -> Iterator[None]:
    """Have a mistake in a file named in a line."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        words = _first_line(error)
        raise UsageError(f"backbone.{setting}={value}: {words}; give one that was made for this model") from None


def _first_line(error: Exception) -> str:
    lines = (line.strip().rstrip(".:;") for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)
