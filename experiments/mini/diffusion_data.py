"""What the UNet trains on: pictures encoded once to latents, captions as tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from experiments.mini.dataset import load_pictures, source_hash
from experiments.mini.files import load_or_make
from experiments.mini.tokenizer import distinct_captions, load_tokenizer, train_tokenizer, write_tokenizer
from experiments.mini.training import Progress, to_unit
from syncdiffusion.errors import UsageError

if TYPE_CHECKING:
    from transformers import CLIPTokenizer


@dataclass(frozen=True)
class DiffusionData:
    """Encoded pictures and their captions.

    latents: [n, 2, 4, h, w] float16, the picture and its mirror image, times the scaling factor.
    tokens: [n, captions, MAX_TOKENS] int16, padded.
    empty: [MAX_TOKENS] int64, the tokens of the empty prompt.
    identity: hash of pictures and captions.
    encoder: hash of the encoder.
    """

    latents: Tensor
    tokens: Tensor
    empty: Tensor
    identity: str
    encoder: str


def picture_batches(name: str, images: np.ndarray, device: torch.device, batch: int) -> Iterator[tuple[int, Tensor]]:
    """Batches [b, 3, h, w] in [-1, 1], channels last, of pictures uint8 [n, h, w, 3], each after its first's index."""
    progress = Progress(name, 0, len(images), every=batch * 20)
    for begin in range(0, len(images), batch):
        pictures = to_unit(np.array(images[begin : begin + batch]), device)
        yield begin, pictures.contiguous(memory_format=torch.channels_last)
        progress.add(begin + len(pictures))


@torch.no_grad()
def encode_pictures(
    vae: nn.Module, images: np.ndarray, device: torch.device, bfloat16: bool = True, batch: int = 32
) -> np.ndarray:
    """Pictures and their mirror images to scaled latents.

    Args:
        images: uint8 [n, h, w, 3].
        bfloat16: autocast, three times as fast where the CPU computes in bfloat16; moves the latents by
            0.5 % of their standard deviation, a tenth of the noise the decoder was trained to stand.

    Returns:
        float16 [n, 2, 4, h/8, w/8]. The mirror image is encoded for itself: the encoder is not symmetric.
    """
    encoder = vae.encoder.to(memory_format=torch.channels_last)
    parts = []
    for _, pictures in picture_batches("latents", images, device, batch):
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            both = torch.stack([encoder(pictures), encoder(pictures.flip(-1))], 1)
        parts.append((both.float() * vae.config.scaling_factor).half().cpu().numpy())
    return np.concatenate(parts)


def load_vae(folder: Path, device: torch.device) -> nn.Module:
    from diffusers import AutoencoderTiny

    if not (folder / "config.json").is_file():
        raise UsageError(f"vae={folder}: no autoencoder there; run experiments.mini.train_autoencoder first")
    vae = AutoencoderTiny.from_pretrained(folder, dtype=torch.float32).to(device)
    return vae.eval().requires_grad_(False)


def encoder_hash(vae: nn.Module) -> str:
    """Hash of what latents depend on: the encoder and the scaling factor. The decoder may be trained further."""
    digest = hashlib.sha256(repr(vae.config.scaling_factor).encode())
    for name, value in sorted(vae.encoder.state_dict().items()):
        digest.update(name.encode() + value.float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def picture_hash(count: int, seed: int) -> str:
    return hashlib.sha256(f"{source_hash()} {seed} {count}".encode()).hexdigest()[:16]


def load_latents(
    work: Path, vae: nn.Module, images: np.ndarray, seed: int, device: torch.device, bfloat16: bool = True
) -> np.ndarray:
    """`encode_pictures` of the first training pictures, from `work/latents` when it is there already."""
    path = work / "latents" / f"{picture_hash(len(images), seed)}-{encoder_hash(vae)}.npy"
    return load_or_make(path, lambda: encode_pictures(vae, images, device, bfloat16))


def tokenize(tokenizer: CLIPTokenizer, captions: Sequence[str]) -> Tensor:
    """[n, MAX_TOKENS] int16, padded with the end token."""
    distinct, rows = distinct_captions(captions)
    ids = tokenizer(distinct, padding="max_length", truncation=True, return_tensors="np").input_ids.astype(np.int16)
    return torch.from_numpy(ids[rows])


def load_data(
    work: Path, vae: nn.Module, count: int, seed: int, device: torch.device, bfloat16: bool = True
) -> DiffusionData:
    """Renders, encodes and tokenises what is not there yet, and writes `work/tokenizer`."""
    pictures = load_pictures(work, "train", count, seed)
    captions = [caption for group in pictures.captions for caption in group]
    write_tokenizer(work / "tokenizer", *train_tokenizer(captions))
    tokenizer = load_tokenizer(work / "tokenizer")
    return DiffusionData(
        latents=torch.from_numpy(load_latents(work, vae, pictures.images, seed, device, bfloat16)),
        tokens=tokenize(tokenizer, captions).unflatten(0, (count, len(captions) // count)),
        empty=tokenize(tokenizer, [""])[0].long(),
        identity=picture_hash(count, seed),
        encoder=encoder_hash(vae),
    )
