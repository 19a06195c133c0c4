"""CLIP through open_clip: its models from a folder or OpenAI's, and the loss of an image's embedding."""

from __future__ import annotations

import functools
import json
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize

from syncdiffusion.errors import UsageError, first_line
from syncdiffusion.files import WEIGHTS
from syncdiffusion.perceptual.pretrained import reachable

MINI_CLIP = WEIGHTS / "mini_clip"
# the configuration with the activation that OpenAI trained with
OPENAI_MODEL, OPENAI_TAG = "ViT-B-16-quickgelu", "openai"


class OpenClip(NamedTuple):
    """What open_clip gives for one model."""

    model: nn.Module
    preprocess: Callable[[Any], Tensor]  # of a PIL image
    tokenizer: Callable[[list[str]], Tensor]


def load_clip_folder(folder: Path, device: torch.device | str, setting: str = "metrics.clip_folder") -> OpenClip:
    """A CLIP from an open_clip folder; UsageError, which names `setting`, where open_clip cannot open it."""
    import open_clip

    try:
        model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}", device=device)
        tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}", **_no_code(folder))
    except pickle.UnpicklingError:
        raise UsageError(
            f"{setting}={folder}: its weights file holds more than weights, which is not opened; "
            "give open_clip_model.safetensors, or a file that torch.load opens with weights_only=True"
        ) from None
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise UsageError(f"{setting}={folder}: open_clip cannot open it ({first_line(error)})") from error
    return OpenClip(model.eval().requires_grad_(False), preprocess, tokenizer)


def _no_code(folder: Path) -> dict[str, Any]:
    """Options by which a tokenizer of transformers neither runs code of the folder nor asks whether it may."""
    text = json.loads((folder / "open_clip_config.json").read_text(encoding="utf-8"))["model_cfg"]["text_cfg"]
    return {"trust_remote_code": False} if text.get("hf_tokenizer_name") else {}


def load_openai_clip(
    device: torch.device | str,
    setting: str = "metrics.networks=paper",
    instead: str = "name an open_clip folder as metrics.clip_folder, or leave clip_score out of metrics.metrics",
) -> OpenClip:
    """OpenAI's CLIP through open_clip's own loader.

    Raises:
        UsageError: neither cached nor downloadable; names `setting`, and `instead` as what else would do.
    """
    import open_clip
    from huggingface_hub import constants, try_to_load_from_cache

    repository = open_clip.get_pretrained_cfg(OPENAI_MODEL, OPENAI_TAG)["hf_hub"].rstrip("/")
    names = (open_clip.constants.HF_SAFE_WEIGHTS_NAME, open_clip.constants.HF_WEIGHTS_NAME)
    cached = any(isinstance(try_to_load_from_cache(repository, name), str) for name in names)
    reason = None if cached or reachable(constants.ENDPOINT) else f"{constants.ENDPOINT} does not answer"
    if reason is None:
        try:
            model, preprocess = open_clip.create_model_from_pretrained(
                OPENAI_MODEL, pretrained=OPENAI_TAG, device=device
            )
        except (OSError, RuntimeError, SafetensorError) as error:
            reason = first_line(error)
    if reason is not None:
        raise UsageError(
            f"{setting}: CLIP ViT-B/16 ({repository}) cannot be had ({reason}); "
            f"fill the hub's cache elsewhere, {instead}"
        )
    return OpenClip(model.eval().requires_grad_(False), preprocess, open_clip.get_tokenizer(OPENAI_MODEL))


class ClipLoss:
    """1 - cosine of CLIP's image embeddings; or of an image's and a direction between two texts.

    The direction from the panorama's own prompt to the words (Gal et al., SIGGRAPH 2022, StyleGAN-NADA, whose loss
    compares a direction between images with it) rather than the words alone: what both texts have in common, such as
    "a photo of a lake", asks for nothing.
    """

    def __init__(self, name: str, network: str, clip: OpenClip, device: torch.device | str) -> None:
        self.name, self.network, self.device, self.tokenizer = name, network, device, clip.tokenizer
        self.model: Any = clip.model
        visual: Any = self.model.visual
        side = visual.image_size
        self.side = int(side[0] if isinstance(side, Sequence) else side)
        self.weight = next(self.model.parameters())
        self.mean, self.deviation = (
            torch.tensor(each, device=device, dtype=self.weight.dtype)[:, None, None]
            for each in (visual.image_mean, visual.image_std)
        )

    def features(self, images: Tensor) -> list[Tensor]:
        """(n, 3, h, w) in [0, 1] -> (n, d) of unit length. Without autocast: a small network, and a faint gradient."""
        with torch.autocast(images.device.type, enabled=False):
            images = images.to(self.weight.dtype)
            if images.shape[-2:] != (self.side, self.side):
                images = interpolate(images, (self.side, self.side), mode="bicubic", antialias=True).clamp(0, 1)
            return [self._unit(self.model.encode_image((images - self.mean) / self.deviation))]

    def distance(self, a: list[Tensor], b: list[Tensor]) -> Tensor:
        """In [0, 2]."""
        return 1 - (a[0] * b[0]).sum(dim=1)

    @torch.no_grad()
    def features_of(self, words: str, prompts: Sequence[str]) -> list[Tensor]:
        """Unit directions from each prompt's embedding to that of `words`, (n, d)."""
        same = next((prompt for prompt in prompts if prompt == words), None)
        if same is not None:
            raise UsageError(f"toward={words}: is the prompt itself, which leads nowhere; give another text")
        goal, *starts = self._unit(self.model.encode_text(self.tokenizer([words, *prompts]).to(self.device)))
        return [self._unit(goal - torch.stack(starts))]

    @staticmethod
    def _unit(rows: Tensor) -> Tensor:
        return normalize(rows if rows.dtype == torch.float64 else rows.float(), dim=-1)


@functools.cache
def load_clip_loss(name: str, device: torch.device | str, dtype: torch.dtype) -> ClipLoss:
    """`mini_clip`, the embedded miniature's, which knows the miniature's world alone; or `clip`, OpenAI's ViT-B/16.

    Raises:
        UsageError: open_clip is not installed, or weights cannot be had.
    """
    setting = f"loss={name}"
    try:
        if name == "mini_clip":
            clip, network = load_clip_folder(MINI_CLIP, device, setting), "mini-CLIP (mini_clip)"
        else:
            clip = load_openai_clip(device, setting, "or use another loss")
            network = "clip ViT-B/16 openai (open_clip)"
    except ModuleNotFoundError:
        raise UsageError(f"{setting}: needs open_clip; pip install 'syncdiffusion[metrics]'") from None
    if dtype == torch.float64:
        clip.model.double()
    return ClipLoss(name, network, clip, device)
