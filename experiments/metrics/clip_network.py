"""The CLIP models that the CLIP score looks through, by open_clip."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from syncdiffusion.backbones.model_files import fingerprint_folder
from syncdiffusion.errors import UsageError, first_line
from syncdiffusion.files import content_of, read_pickled
from syncdiffusion.perceptual.clip import OpenClip, load_clip_folder, load_openai_clip


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


def preference_clip(file: Path | None, device: torch.device, architecture: str = "ViT-H-14") -> ClipNetwork:
    """HPSv2's CLIP from its checkpoint.

    Raises:
        UsageError: no file was named, or it is none.
    """
    if file is None or not file.is_file():
        raise UsageError(
            f"metrics.hps_file={'null' if file is None else file}: name HPSv2's checkpoint (HPS_v2.1_compressed.pt of "
            "the hub repository xswu/HPSv2), or leave hps out of metrics.metrics"
        )
    network = f"HPSv2 {architecture} ({file.name})"
    return ClipNetwork("hps", network, content_of(file), device, partial(_load_preference, file, device, architecture))


def _load_preference(file: Path, device: torch.device, architecture: str) -> OpenClip:
    """Raises UsageError for a file that holds other weights, or more than weights."""
    import open_clip

    model, _, preprocess = open_clip.create_model_and_transforms(architecture, pretrained=None, device=device)
    try:
        content = read_pickled(file, device)
        model.load_state_dict(content.get("state_dict", content))
    except (OSError, RuntimeError, AttributeError, ValueError) as error:
        line = first_line(error)
        raise UsageError(f"metrics.hps_file={file}: holds no weights of {architecture} ({line})") from error
    return OpenClip(model.eval().requires_grad_(False), preprocess, open_clip.get_tokenizer(architecture))
