"""What the miniature CLIP trains on: renders, clean and decoded, with true and false words."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from experiments.mini.autoencoder_model import LATENT_DEVIATION

# Its private tables: a change to that file would render every training picture anew.
from experiments.mini.captions import _NATURE, _SEASONAL, _SEASONS, caption, sample_pair
from experiments.mini.clip_model import tokenize
from experiments.mini.dataset import SIZE, SPLITS, Pictures, load_pictures
from experiments.mini.diffusion_data import decoder_hash, encoder_hash, picture_batches, picture_hash
from experiments.mini.files import load_or_make
from experiments.mini.palettes import SEASONS, SKIES
from experiments.mini.training import step_generator, to_bytes
from experiments.mini.world import KINDS, STYLES, Scene

LATENT_NOISE = 0.1  # in deviations of the latents
FALSE_CAPTIONS = 4  # a scene: another time, season, style, kind
HARD_CAPTIONS = 2  # the version of `hard_captions`


@dataclass(frozen=True)
class ClipData:
    """Pictures wider than a window, with their words.

    images: n pictures, uint8 [h, w, 3]; decoded: the first m of them through the autoencoder, [m, h, w, 3].
    edges: [n, 2] int64, first and last left edge in pixels of the windows for which the captions are true.
    captions: [n, k] int64, indices into tokens; equal captions have equal indices.
    pairs: [n, 1 + FALSE_CAPTIONS] int64, indices into tokens: a true caption and the same of a scene that differs in
        one thing; the true one again where the difference is in nothing the caption says.
    tokens: [distinct captions, context length] int64.
    """

    images: Sequence[np.ndarray]
    decoded: np.ndarray
    edges: Tensor
    captions: Tensor
    pairs: Tensor
    tokens: Tensor
    identity: str


def cut_windows(pictures: Pictures, seed: int) -> np.ndarray:
    """One window of each picture, anywhere its captions are true: uint8 [n, 128, 128, 3]."""
    rng = np.random.default_rng(seed)
    lefts = [int(rng.integers(first, last + 1)) for first, last in pictures.edges]
    return np.stack([pictures.images[i][:, left : left + SIZE] for i, left in enumerate(lefts)])


def hard_captions(seed: int, split: int, index: int) -> list[str]:
    """A true caption of scene `index` of a split, and captions of four scenes that differ from it in one thing.

    Where a season or a kind is not named, or the season not to be seen, the caption of the other scene is true of this
    one too: the true caption stands in its place.
    """
    scene, _ = sample_pair(np.random.default_rng([seed, split, index]))
    rng = np.random.default_rng([seed, split, index, 1])

    def other(name: str, options: Sequence[str]) -> Scene:
        left = [option for option in options if option != getattr(scene, name)]
        return replace(scene, **{name: left[int(rng.integers(len(left)))]}) if left else scene

    # From the same seed: the sentences are alike up to where their scenes leave them another number of choices.
    words = int(rng.integers(2**31))
    others = [other("season", list(SEASONS)), other("style", STYLES), other("kind", KINDS)]
    time = other("time", [time for time in SKIES if scene.palette < len(SKIES[time])])
    true, *false = (caption(each, np.random.default_rng(words)) for each in (scene, time, *others))
    names_season = scene.kind in _SEASONAL and any(phrase in false[1] for phrase in _SEASONS[others[0].season])
    names_kind = not any(phrase in false[3] for phrase in _NATURE)
    return [true, false[0], false[1] if names_season else true, false[2], false[3] if names_kind else true]


@torch.no_grad()
def decode_pictures(
    vae: nn.Module, images: np.ndarray, seed: int, device: torch.device, bfloat16: bool, batch: int = 32
) -> np.ndarray:
    """uint8 [n, h, w, 3] through the autoencoder, with noise of LATENT_NOISE deviations on the latents."""
    vae = vae.to(memory_format=torch.channels_last)
    parts = []
    for begin, pictures in picture_batches("decoded", images, device, batch):
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            latents = vae.encoder(pictures)
            noise = torch.randn(latents.shape, generator=step_generator(seed, begin)).to(device)
            noise *= LATENT_NOISE * LATENT_DEVIATION / vae.config.scaling_factor
            parts.append(to_bytes(vae.decoder(latents + noise)))
    return np.concatenate(parts)


def load_data(
    work: Path,
    vae: nn.Module,
    count: int,
    decoded: int,
    seed: int,
    device: torch.device,
    bfloat16: bool = False,
    first: int = 0,
) -> ClipData:
    """Training pictures `first` … `first + count - 1`, of which the first `decoded` are kept decoded in `work`."""
    pictures = load_pictures(work, "train", count, seed, first=first)
    source = f"{picture_hash(count, seed, first)}-{decoded}-{encoder_hash(vae)}-{decoder_hash(vae)}"
    identity = f"{source}-{HARD_CAPTIONS}"
    path = work / "clip" / f"decoded-{hashlib.sha256(source.encode()).hexdigest()[:16]}.npy"
    through = load_or_make(path, lambda: decode_pictures(vae, pictures.images[:decoded], seed, device, bfloat16))
    # Not the third caption, whose idle and unknown words say nothing.
    true = [text for group in pictures.captions for text in group[:2]]
    hard = [text for i in range(first, first + count) for text in hard_captions(seed, SPLITS["train"], i)]
    tokens, rows = tokenize([*true, *hard])
    captions, pairs = rows[: len(true)].unflatten(0, (count, -1)), rows[len(true) :].unflatten(0, (count, -1))
    return ClipData(pictures.images, through, torch.tensor(pictures.edges), captions, pairs, tokens, identity)
