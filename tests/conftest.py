"""Fixtures shared by all tests."""

import os
import warnings
from pathlib import Path

import pytest

# Offline unless a test says otherwise: nothing may wait for a host that cannot be reached.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
# Threads that wait actively slow each other down many times over as soon as another process is busy.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Beside other processes of tests each has its share of the cores, and no more.
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model in diffusers' folder format, windows of 8 latents (64 px)."""
    from tests.tiny_model import build_tiny_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return build_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path):
    """The same, loaded."""
    from syncdiffusion.backbones.loading import load_backbone

    return load_backbone(str(tiny_folder), device="cpu")


@pytest.fixture(scope="session")
def tiny_xl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of Stable Diffusion XL's kind, of the same window."""
    from tests.tiny_model import build_tiny_xl

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return build_tiny_xl(tmp_path_factory.mktemp("xl") / "tiny_xl")


@pytest.fixture(scope="session")
def tiny_xl(tiny_xl_folder: Path):
    """The same, loaded."""
    from syncdiffusion.backbones.loading import load_backbone

    return load_backbone(str(tiny_xl_folder), device="cpu")
