"""Random numbers: one CPU generator for each (prompt, seed), whatever the method, the batch or the device."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def noise_generator(prompt: str, seed: int, stream: str = "initial") -> torch.Generator:
    """The CPU generator that belongs to one panorama; another `stream` draws other numbers."""
    digest = hashlib.sha256(f"{stream}\0{seed}\0{prompt}".encode()).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def initial_noise(prompts: Sequence[str], seeds: Sequence[int], shape: tuple[int, ...]) -> Tensor:
    """Standard normal canvases [n, *shape], float32 on the CPU; row i depends on (prompts[i], seeds[i]) alone."""
    return draw_normal([noise_generator(p, s) for p, s in zip(prompts, seeds, strict=True)], shape)


def noised(clean: Tensor, noise: Tensor, signal: Tensor) -> Tensor:
    """Latents with noise, at the level alpha-bar `signal`: DDPM's forward process (Ho et al., NeurIPS 2020, Eq. 4).

    From one level to a higher one `signal` is the quotient of their alpha-bars.
    """
    return signal.sqrt() * clean + (1 - signal).sqrt() * noise


def draw_normal(generators: Sequence[torch.Generator], shape: tuple[int, ...]) -> Tensor:
    """Standard normal [n, *shape], float32 on the CPU: one row from each generator."""
    # float32 by name: under another default dtype the same seed would draw other numbers.
    return torch.stack([torch.randn(shape, generator=each, dtype=torch.float32) for each in generators])
