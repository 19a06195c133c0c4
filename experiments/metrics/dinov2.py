"""DINOv2 features by transformers, from a folder or the hub."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from experiments.metrics.inception import FeatureNetwork
from syncdiffusion.backbones.model_files import fingerprint_folder
from syncdiffusion.errors import UsageError, first_line
from syncdiffusion.files import place_of

if TYPE_CHECKING:
    from transformers import Dinov2Model

SIZE = 224  # pixels, whatever the network was trained at: as in the paper's own evaluation
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def load_dinov2(source: str, device: torch.device) -> FeatureNetwork:
    """DINOv2's class token behind the last normalisation (Stein et al., NeurIPS 2023, whose network is `large`).

    source: a folder with config.json and model.safetensors, or a hub repository such as facebook/dinov2-large.

    Raises:
        UsageError: a folder without them; when first looked through, weights that cannot be had.
    """
    folder = place_of(source)
    is_folder = folder.is_dir()
    if is_folder and not (folder / "config.json").is_file():
        raise UsageError(f"metrics.dino={source}: no config.json there; name a DINOv2 folder in transformers' layout")
    load = cache(partial(_model, str(folder) if is_folder else source, device))

    def embed(crops: Sequence[np.ndarray]) -> torch.Tensor:
        images = torch.stack([prepared(crop) for crop in crops]).to(device)
        return load()(images).last_hidden_state[:, 0]

    network = f"dinov2 ({folder.name if is_folder else source})"
    return FeatureNetwork(network, embed, fingerprint_folder(folder) if is_folder else "")


def prepared(crop: np.ndarray) -> torch.Tensor:
    """(height, width, 3) uint8 -> (3, 224, 224), PIL's bicubic filter, ImageNet's normalisation."""
    image = Image.fromarray(crop).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    values = (np.asarray(image, dtype=np.float32) / 255 - np.float32(MEAN)) / np.float32(DEVIATION)
    return torch.from_numpy(values).permute(2, 0, 1)


def _model(source: str, device: torch.device) -> Dinov2Model:
    from transformers import Dinov2Model

    try:
        model = Dinov2Model.from_pretrained(source, use_safetensors=True)
    except (OSError, ValueError, RuntimeError) as error:
        line = first_line(error)
        raise UsageError(
            f"metrics.dino={source}: cannot be had ({line}); name a folder, or leave out fd_dinov2 and kd_dinov2"
        ) from error
    return model.eval().requires_grad_(False).to(device)
