"""FLOPs of a panorama, before anything is computed: one call of each network counted on shapes, times the calls.

A model's architecture is read from its folder, from the hub's cache, or is one of the published ones; no weight is
looked at. A multiply-add counts two. What is left out (activations, norms, text encoding) is a few percent.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.common.architectures import PUBLISHED, Architecture
from syncdiffusion.backbones.model_files import EMBEDDED_FOLDER
from syncdiffusion.cost import NetworkCalls, Square
from syncdiffusion.files import EMBEDDED, place_of

if TYPE_CHECKING:
    import torch

QUICK = 1.0  # seconds for measuring a device's rate


def flops(method: str, settings: Mapping[str, Any], backbone: Mapping[str, Any]) -> float | None:
    """FLOPs of one panorama; None where the model's architecture is not known here."""
    counts = calls(method, settings, backbone)
    each = flops_per_call(backbone, settings["loss"] if counts.loss else None)
    return None if each is None else sum(a * b for a, b in zip(astuple(counts), astuple(each), strict=True))


def calls(method: str, settings: Mapping[str, Any], backbone: Mapping[str, Any]) -> NetworkCalls:
    """Network calls of one panorama."""
    from baselines import METHODS

    square = Square(backbone["window"] // backbone["factor"], backbone["factor"])
    return METHODS[method].network_calls(METHODS[method].settings(**settings), square)


def flops_per_call(backbone: Mapping[str, Any], loss: str | None) -> NetworkCalls | None:
    """FLOPs of one call of each network, in the fields of `NetworkCalls`: a window, the guidance pair included.

    backbone: a `backbone` section of the configuration.
    loss: the loss of a pull by name; None leaves its network at 0. None too where nobody knows a network's FLOPs.
    """
    architecture = architecture_of(backbone)
    if architecture is None:
        return None
    try:
        unet, decoder = _unet_and_decoder(_text(architecture), backbone["window"] // backbone["factor"])
    except (TypeError, ValueError, RuntimeError, AttributeError):  # a UNet that wants more than Stable Diffusion's
        return None
    from syncdiffusion.perceptual.distances import PERCEPTUAL_LOSSES

    if loss is not None and loss not in PERCEPTUAL_LOSSES:  # CLIP's, a colour's, a plugin's
        return None
    return NetworkCalls(*unet, *decoder, *((0, 0) if loss is None else _perceptual(loss, backbone["window"])))


def architecture_of(backbone: Mapping[str, Any]) -> Architecture | None:
    """As its own configuration files have it, else the published one of its name; None where neither is here."""
    if backbone["path"] is None and backbone["model_id"] != EMBEDDED:
        unet, vae = (_from_cache(backbone, f"{part}/config.json") for part in ("unet", "vae"))
    else:
        folder = EMBEDDED_FOLDER if backbone["path"] is None else place_of(backbone["path"])
        unet, vae = (folder / part / "config.json" for part in ("unet", "vae"))
    if unet is None or vae is None:
        name = backbone["model_id"].lower()
        return next((each for part, each in PUBLISHED.items() if part in name), None)
    try:
        described = [json.loads(path.read_text(encoding="utf-8")) for path in (unet, vae)]
        return Architecture(described[0], described[1], described[1].get("_class_name", "AutoencoderKL"))
    except (OSError, ValueError, AttributeError):
        return None


def _from_cache(backbone: Mapping[str, Any], name: str) -> Path | None:
    """A file of a hub repository where it was downloaded before."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(backbone["model_id"], name, revision=backbone["revision"])
    return Path(found) if isinstance(found, str) else None


def _text(architecture: Architecture) -> str:
    return json.dumps(
        [architecture.unet, architecture.vae, architecture.autoencoder, architecture.tokens], default=list
    )


@functools.cache
def _unet_and_decoder(architecture: str, window: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """FLOPs (forward, backward) of a guided noise prediction and of decoding, of a square of `window` latent cells."""
    import diffusers
    import torch

    from experiments.benchmarks.timing import forward_and_backward

    unet_config, vae_config, autoencoder, tokens = json.loads(architecture)
    diffusers.utils.logging.set_verbosity_error()  # which attribute of a configuration it does not expect
    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel.from_config(unet_config).eval().requires_grad_(False)
        vae = getattr(diffusers, autoencoder).from_config(vae_config).eval().requires_grad_(False)
        pair = torch.zeros(2, unet.config.in_channels, window, window)
        told = torch.zeros(2, tokens, unet.config.cross_attention_dim)
        more = _added(unet)

        def predict(x: torch.Tensor) -> list[torch.Tensor]:
            return [unet(x, 1, encoder_hidden_states=told, added_cond_kwargs=more).sample]

        def decode(x: torch.Tensor) -> list[torch.Tensor]:
            return [vae.decode(x).sample]

        return forward_and_backward(predict, pair), forward_and_backward(decode, pair[:1])


def _added(unet: Any) -> dict[str, torch.Tensor] | None:
    """What Stable Diffusion XL's UNet is told beside the prompt: a pooled text, and six numbers about sizes."""
    import torch

    if unet.config.addition_embed_type != "text_time":
        return None
    numbers = 6 * unet.config.addition_time_embed_dim
    width = unet.config.projection_class_embeddings_input_dim - numbers
    return {"text_embeds": torch.zeros(2, width), "time_ids": torch.zeros(2, 6)}


@functools.cache
def _perceptual(loss: str, pixels: int) -> tuple[int, int]:
    """FLOPs (forward, backward) of a perceptual network's convolutions on a square picture."""
    import torch

    from experiments.benchmarks.timing import forward_and_backward
    from syncdiffusion.perceptual.distances import empty_trunk

    with torch.device("meta"):
        return forward_and_backward(empty_trunk(loss), torch.zeros(1, 3, pixels, pixels))


@functools.cache
def matrix_rate(device: str, precision: str) -> float:
    """FLOP/s at which a device multiplies matrices in a precision, measured in about a second."""

    from experiments.benchmarks.timing import matmul_rate
    from syncdiffusion.backbones.backbone import PRECISIONS
    from syncdiffusion.backbones.loading import pick_device

    where = pick_device(device)
    sizes = None if where.type == "cuda" else (256, 512, 1024, 2048)
    return matmul_rate(where, PRECISIONS[precision], repeats=2, sizes=sizes, budget=QUICK)
