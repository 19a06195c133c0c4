"""Networks that move to the device when they are used, for models that do not fit there all at once.

The text encoders leave as soon as prompts are encoded. UNet and autoencoder stay while a panorama is sampled, because
SyncDiffusion takes gradients through both at once, and a weight that moved between a pass and its gradient would break
it; the UNet leaves while the finished canvas is decoded. The moving is accelerate's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


class Offload:
    """Hooks on networks by their names in Backbone; each comes to `device` with its first use."""

    def __init__(self, networks: Mapping[str, torch.nn.Module], device: torch.device) -> None:
        from accelerate import cpu_offload_with_hook

        self._hooks: dict[str, Any] = {
            name: cpu_offload_with_hook(network, device)[1] for name, network in networks.items()
        }

    def leave(self, *names: str) -> None:
        """Move these networks off the device, as far as there are such."""
        for name in names:
            if name in self._hooks:
                self._hooks[name].offload()
