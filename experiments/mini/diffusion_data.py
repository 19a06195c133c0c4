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

from experiments.mini.captions import caption, sample_pair
from experiments.mini.dataset import Pictures, load_pictures, shards, source_hash
from experiments.mini.files import load_or_make
from experiments.mini.tokenizer import distinct_captions, load_tokenizer, train_tokenizer, write_tokenizer
from experiments.mini.training import StepLines, to_unit
from syncdiffusion.errors import UsageError

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

FACTOR = 8  # pixels a latent cell, each way


@dataclass(frozen=True)
class DiffusionData:
    """Encoded pictures and their captions.

    latents: arrays [m, c, h, w] float16 whose rows together are n pictures, wider than a window, times the scaling
        factor.
    tokens: [n, captions, MAX_TOKENS] int16, padded.
    edges: [n, 2] int64, first and last left edge in cells of the windows for which the captions are true.
    empty: [MAX_TOKENS] int64, the tokens of the empty prompt.
    encoder: hash of the encoder.
    """

    latents: list[np.ndarray]
    tokens: Tensor
    edges: Tensor
    empty: Tensor
    encoder: str

    def windows(self, rows: Tensor, lefts: Tensor) -> Tensor:
        """Square windows [b, c, h, h] float32 of these pictures, from these left edges in cells."""
        starts = np.cumsum([0, *map(len, self.latents)])
        cut = []
        for row, left in zip(rows.tolist(), lefts.tolist(), strict=True):
            part = int(np.searchsorted(starts, row, side="right")) - 1
            picture = self.latents[part][row - starts[part]]
            cut.append(picture[:, :, left : left + picture.shape[1]])
        return torch.from_numpy(np.stack(cut)).float()


def picture_batches(
    name: str, images: Sequence[np.ndarray], device: torch.device, batch: int
) -> Iterator[tuple[int, Tensor]]:
    """Batches [b, 3, h, w] in [-1, 1], channels last, of n pictures uint8 [h, w, 3], each after its first's index."""
    progress = StepLines(name, 0, len(images), every=batch * 20)
    for begin in range(0, len(images), batch):
        pictures = to_unit(np.array(images[begin : begin + batch]), device)
        yield begin, pictures.contiguous(memory_format=torch.channels_last)
        progress.add(begin + len(pictures))


@torch.no_grad()
def encode_pictures(
    vae: nn.Module, images: Sequence[np.ndarray], device: torch.device, bfloat16: bool = False, batch: int = 16
) -> np.ndarray:
    """Pictures to scaled latents.

    Args:
        images: n pictures, uint8 [h, w, 3].
        bfloat16: autocast, three times as fast where the CPU computes in bfloat16; moves the latents by
            0.5 % of their standard deviation, far below the noise the decoder was trained to stand.

    Returns:
        float16 [n, c, h/8, w/8].
    """
    encoder = vae.encoder.to(memory_format=torch.channels_last)
    parts = []
    for _, pictures in picture_batches("latents", images, device, batch):
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            latents = encoder(pictures)
        parts.append((latents.float() * vae.config.scaling_factor).half().cpu().numpy())
    return np.concatenate(parts)


def load_vae(folder: Path, device: torch.device) -> nn.Module:
    from diffusers import AutoencoderTiny

    if not (folder / "config.json").is_file():
        raise UsageError(f"vae={folder}: no autoencoder there; run experiments.mini.train_autoencoder first")
    vae = AutoencoderTiny.from_pretrained(folder, dtype=torch.float32).to(device)
    return vae.eval().requires_grad_(False)


def encoder_hash(vae: nn.Module) -> str:
    """Hash of what latents depend on: the encoder and the scaling factor. The decoder may be trained further."""
    return _hash(repr(vae.config.scaling_factor), vae.encoder)


def decoder_hash(vae: nn.Module) -> str:
    """Hash of what decoded pictures depend on beside their latents."""
    return _hash("", vae.decoder)


def _hash(start: str, module: nn.Module) -> str:
    digest = hashlib.sha256(start.encode())
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode() + value.float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def picture_hash(count: int, seed: int, first: int = 0) -> str:
    return hashlib.sha256(f"{source_hash()} {seed} {first} {count}".encode()).hexdigest()[:16]


def load_latents(
    work: Path,
    vae: nn.Module,
    pictures: Pictures,
    seed: int,
    device: torch.device,
    split: str = "train",
    first: int = 0,
    bfloat16: bool = False,
) -> list[np.ndarray]:
    """`encode_pictures` of items `first` … of a split, an array a shard, kept in `work/latents`."""
    folder, place, found = work / "latents" / encoder_hash(vae), 0, []
    for number, begin, end in shards(first, len(pictures.images)):
        images = pictures.images[place : place + end - begin]
        place += end - begin
        path = folder / f"{split}-{number:04d}-{begin}-{end}-{picture_hash(0, seed)}.npy"
        found.append(load_or_make(path, lambda images=images: encode_pictures(vae, images, device, bfloat16)))
    return found


def make_tokenizer(folder: Path, count: int = 20000) -> CLIPTokenizer:
    """The tokenizer in `folder`, trained on captions of the grammar where there is none yet.

    Its captions are drawn for themselves, so that its vocabulary does not depend on the pictures in use.
    """
    if not (folder / "vocab.json").is_file():
        rng = np.random.default_rng(0)
        pairs = (sample_pair(rng) for _ in range(count))
        texts = [text for scene, first in pairs for text in (first, caption(scene, rng))]
        write_tokenizer(folder, *train_tokenizer(texts))
    return load_tokenizer(folder)


def tokenize(tokenizer: CLIPTokenizer, captions: Sequence[str]) -> Tensor:
    """[n, MAX_TOKENS] int16, padded with the end token."""
    distinct, rows = distinct_captions(captions)
    ids = tokenizer(distinct, padding="max_length", truncation=True, return_tensors="np").input_ids.astype(np.int16)
    return torch.from_numpy(ids[rows])


def load_data(
    work: Path,
    vae: nn.Module,
    count: int,
    seed: int,
    device: torch.device,
    split: str = "train",
    first: int = 0,
    workers: int = 2,
    bfloat16: bool = False,
) -> DiffusionData:
    """Renders, encodes and tokenises what is not there yet, and writes `work/tokenizer`."""
    pictures = load_pictures(work, split, count, seed, workers, first)
    return data_of(pictures, work, vae, make_tokenizer(work / "tokenizer"), seed, device, split, first, bfloat16)


def data_of(
    pictures: Pictures,
    work: Path,
    vae: nn.Module,
    tokenizer: CLIPTokenizer,
    seed: int,
    device: torch.device,
    split: str,
    first: int,
    bfloat16: bool = False,
) -> DiffusionData:
    """Encodes what is not in `work/latents` yet, and tokenises."""
    edges = torch.tensor(pictures.edges)
    # Only whole cells: the first at or after the first edge, the last at or before the last.
    edges = torch.stack([(edges[:, 0] + FACTOR - 1) // FACTOR, edges[:, 1] // FACTOR], 1)
    edges[:, 0] = edges[:, 0].minimum(edges[:, 1])
    words = [text for group in pictures.captions for text in group]
    return DiffusionData(
        latents=load_latents(work, vae, pictures, seed, device, split, first, bfloat16),
        tokens=tokenize(tokenizer, words).unflatten(0, (len(pictures.images), -1)),
        edges=edges,
        empty=tokenize(tokenizer, [""])[0].long(),
        encoder=encoder_hash(vae),
    )
