"""The miniature CLIP itself: architecture, tokens, accuracy, the folder it ships as."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from experiments.common.files import replacing, write_json
from experiments.mini.captions import PAPER_PROMPTS
from experiments.mini.tokenizer import distinct_captions
from experiments.mini.training import to_unit

# Most parameters are the embedding of open_clip's own vocabulary of 49,408 tokens, hence the narrow text tower.
MODEL: dict[str, Any] = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 128, "patch_size": 16, "width": 128, "layers": 4, "head_width": 32},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 48, "heads": 3, "layers": 2},
}
# Mean and deviation 0.5 make pixels run from -1 to 1, as in the rest of the training.
PREPROCESS: dict[str, Any] = {
    "mean": [0.5] * 3,
    "std": [0.5] * 3,
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}


def build_clip(seed: int) -> nn.Module:
    """open_clip's CLIP with random weights."""
    from open_clip import CLIP

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CLIP(**MODEL)


def tokenize(captions: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Tokens [distinct captions, context length] by open_clip's standard tokenizer, and the row [n] of each caption."""
    from open_clip import SimpleTokenizer

    distinct, rows = distinct_captions(captions)
    return SimpleTokenizer(context_length=MODEL["text_cfg"]["context_length"])(distinct), torch.tensor(rows)


def export(model: nn.Module, folder: Path) -> None:
    """Writes the folder that open_clip opens as `local-dir:FOLDER`; weights in half precision."""
    from safetensors.torch import save_file

    write_json(folder / "open_clip_config.json", {"model_cfg": MODEL, "preprocess_cfg": PREPROCESS})
    weights = {name: value.half().cpu().contiguous() for name, value in model.state_dict().items()}
    with replacing(folder / "open_clip_model.safetensors") as temporary:
        save_file(weights, temporary)
        temporary.chmod(0o644)


def retrieval_accuracy(image_features: Tensor, text_features: Tensor, captions: Sequence[str], group: int) -> float:
    """Share of pictures whose own caption is the nearest of `group` distinct captions.

    Args:
        image_features, text_features: [n, d], of unit length, row i of the pair i.
        captions: n captions. Pairs are dealt into groups in order, a repeated caption waiting for the next one;
            the last, incomplete groups are left out.
    """
    groups: list[dict[str, int]] = []
    for row, caption in enumerate(captions):
        place = next((g for g in groups if len(g) < group and caption not in g), None)
        if place is None:
            groups.append(place := {})
        place[caption] = row
    hits = [
        (image_features[rows] @ text_features[rows].T).argmax(1) == torch.arange(group)
        for rows in (list(g.values()) for g in groups if len(g) == group)
    ]
    if not hits:
        raise ValueError(f"fewer than {group} distinct captions")
    return torch.cat(hits).float().mean().item()


@torch.no_grad()
def evaluate(
    model: nn.Module, images: np.ndarray, captions: Sequence[Sequence[str]], device: torch.device, group: int = 64
) -> dict[str, float]:
    """Accuracy on pictures uint8 [n, h, w, 3] with captions.

    Returns:
        "grammar": top-1 of 64 distinct captions, with each picture's last caption (always one of the grammar);
        "paper": top-1 of the paper's six prompts, where a prompt is the picture's first caption.
    """

    def read(texts: Sequence[str]) -> Tensor:
        tokens, rows = tokenize(texts)
        return normalize(model.encode_text(tokens.to(device)).float(), dim=-1).cpu()[rows]

    seen = [model.encode_image(to_unit(np.array(images[i : i + 64]), device)) for i in range(0, len(images), 64)]
    features = normalize(torch.cat(seen).float(), dim=-1).cpu()
    last = [texts[-1] for texts in captions]
    rows = [i for i, texts in enumerate(captions) if texts[0] in PAPER_PROMPTS]
    nearest = (features[rows] @ read(PAPER_PROMPTS).T).argmax(1).tolist()
    paper = [PAPER_PROMPTS[n] == captions[i][0] for n, i in zip(nearest, rows, strict=True)]
    return {"grammar": retrieval_accuracy(features, read(last), last, group), "paper": float(np.mean(paper))}
