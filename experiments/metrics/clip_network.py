"""The CLIP models that the CLIP score looks through, by open_clip."""

import json
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import normalize

from syncdiffusion.backbones.model_files import fingerprint_folder
from syncdiffusion.errors import UsageError
from syncdiffusion.perceptual.pretrained import reachable

# the configuration with the activation that OpenAI trained with
OPENAI_MODEL, OPENAI_TAG = "ViT-B-16-quickgelu", "openai"


class OpenClip(NamedTuple):
    """What open_clip gives for one model."""

    model: nn.Module
    preprocess: Callable[[Image.Image], Tensor]
    tokenizer: Callable[[list[str]], Tensor]


@dataclass(frozen=True)
class ClipNetwork:
    """An open_clip model with its own preprocessing and tokenizer, loaded when it is first looked through.

    metric: the name its score goes by, "clip_score" for OpenAI's CLIP only; network: provenance;
    fingerprint: a hash of the weights where the provenance does not tell them.
    """

    metric: str
    network: str
    fingerprint: str
    device: torch.device
    load: Callable[[], OpenClip]
    texts: dict[str, Tensor] = field(default_factory=dict, compare=False, repr=False)  # those embedded so far

    @cached_property
    def loaded(self) -> OpenClip:
        """Raises UsageError where the weights cannot be had or opened."""
        return self.load()

    def embed_images(self, crops: Sequence[np.ndarray]) -> Tensor:
        """(height, width, 3) uint8 crops -> (n, d), of unit length."""
        images = torch.stack([self.loaded.preprocess(Image.fromarray(crop)) for crop in crops])
        with torch.inference_mode():
            return normalize(self.loaded.model.encode_image(images.to(self.device)).float(), dim=-1)

    def embed_texts(self, prompts: Sequence[str]) -> Tensor:
        """n prompts -> (n, d), of unit length."""
        with torch.inference_mode():
            tokens = self.loaded.tokenizer(list(prompts)).to(self.device)
            return normalize(self.loaded.model.encode_text(tokens).float(), dim=-1)

    def embed_text(self, prompt: str) -> Tensor:
        """A prompt -> (d,), of unit length: embedded alone and once, so that it does not depend on other prompts."""
        if prompt not in self.texts:
            self.texts[prompt] = self.embed_texts([prompt])[0]
        return self.texts[prompt]


def openai_clip(device: torch.device) -> ClipNetwork:
    """OpenAI's CLIP ViT-B/16, the paper's."""
    network = "clip ViT-B/16 openai (open_clip)"
    return ClipNetwork("clip_score", network, "", device, partial(load_openai_clip, device))


def load_openai_clip(device: torch.device) -> OpenClip:
    """OpenAI's CLIP through open_clip's own loader.

    Raises:
        UsageError: neither cached nor downloadable.
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
        except (OSError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
    if reason is not None:
        raise UsageError(
            f"metrics.networks=paper: CLIP ViT-B/16 ({repository}) cannot be had ({reason}); fill the "
            "hub's cache elsewhere, name an open_clip folder as metrics.clip_folder, or leave "
            "clip_score out of metrics.metrics"
        )
    return OpenClip(model.eval().requires_grad_(False), preprocess, open_clip.get_tokenizer(OPENAI_MODEL))


def folder_clip(folder: Path, device: torch.device) -> ClipNetwork:
    """A CLIP from a folder with open_clip_config.json and weights, such as the embedded mini-CLIP.

    Its score is called `mini_clip_score`: it must never pass for OpenAI's.

    Raises:
        UsageError: no such folder.
    """
    if not (folder / "open_clip_config.json").is_file():
        raise UsageError(f"metrics.clip_folder={folder}: no open_clip_config.json there; name an open_clip folder")
    network, fingerprint = f"mini-CLIP ({folder.name})", fingerprint_folder(folder)
    return ClipNetwork("mini_clip_score", network, fingerprint, device, partial(load_clip_folder, folder, device))


def load_clip_folder(folder: Path, device: torch.device) -> OpenClip:
    """Raises UsageError where open_clip cannot open the folder."""
    import open_clip

    try:
        model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}", device=device)
        tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}", **_no_code(folder))
    except pickle.UnpicklingError:
        raise UsageError(
            f"metrics.clip_folder={folder}: its weights file holds more than weights, which is not opened; "
            "give open_clip_model.safetensors, or a file that torch.load opens with weights_only=True"
        ) from None
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        line = str(error).splitlines()[0]
        raise UsageError(f"metrics.clip_folder={folder}: open_clip cannot open it ({line})") from error
    return OpenClip(model.eval().requires_grad_(False), preprocess, tokenizer)


def _no_code(folder: Path) -> dict[str, Any]:
    """Options by which a tokenizer of transformers neither runs code of the folder nor asks whether it may."""
    text = json.loads((folder / "open_clip_config.json").read_text(encoding="utf-8"))["model_cfg"]["text_cfg"]
    return {"trust_remote_code": False} if text.get("hf_tokenizer_name") else {}
