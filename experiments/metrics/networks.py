"""The networks behind the metrics, loaded together for one scoring pass."""

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import syncdiffusion
from syncdiffusion.errors import UsageError
from syncdiffusion.perceptual import PerceptualLoss, load_perceptual

from .clip_score import ClipNetwork, load_clip_folder, load_openai_clip
from .config import MetricsConfig, check_config
from .inception import FeatureNetwork, load_inception

logger = logging.getLogger(__name__)

MINI_CLIP = Path(syncdiffusion.__file__).parent / "weights" / "mini_clip"


@dataclass(frozen=True)
class MetricNetworks:
    """What a scoring pass needs; None where no chosen metric looks through it."""

    lpips: PerceptualLoss | None
    style: PerceptualLoss | None
    inception: FeatureNetwork | None
    clip: ClipNetwork | None


def load_networks(config: MetricsConfig) -> MetricNetworks:
    """Load what `config.metrics` needs, from the set `config.networks`.

    "paper": LPIPS-VGG and clean-fid's Inception (their registry copies where the official hosts
    cannot be reached; each score names its network), torchvision's VGG-19 and OpenAI's CLIP, which
    have no copy elsewhere. "mini": LPIPS-VGG, FID Inception or, without it, the mini-CLIP's image
    tower, the style term through VGG-16, which every machine can have, and the mini-CLIP.

    Raises:
        UsageError: a bad setting, or weights that cannot be had.
    """
    check_config(config)
    device = _device(config.device)
    wanted, paper = set(config.metrics), config.networks == "paper"
    return MetricNetworks(
        lpips=load_perceptual("lpips_vgg", device) if "intra_lpips" in wanted else None,
        style=load_perceptual("style_vgg19" if paper else "style", device) if "intra_style" in wanted else None,
        inception=_inception(config, device) if wanted & {"fid", "kid", "giqa"} else None,
        clip=_clip(config, device) if "clip_score" in wanted else None,
    )


def _clip(config: MetricsConfig, device: torch.device) -> ClipNetwork:
    if config.clip_folder is not None:
        return load_clip_folder(Path(config.clip_folder), device)
    if config.networks == "paper":
        return load_openai_clip(device)
    return load_clip_folder(MINI_CLIP, device)


def _inception(config: MetricsConfig, device: torch.device) -> FeatureNetwork:
    try:
        return load_inception(device)
    except UsageError as error:
        if config.networks == "paper":
            raise
        logger.warning("%s; FID, KID and GIQA use the mini-CLIP's image tower", error)
    clip = load_clip_folder(Path(config.clip_folder or MINI_CLIP), device)

    def embed(crops: list) -> Tensor:
        return clip.embed_images(crops)

    return FeatureNetwork(f"{clip.network} image tower, not Inception", embed)


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
