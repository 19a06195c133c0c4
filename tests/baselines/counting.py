"""What the networks of a model really see while a method makes a panorama."""

import pytest
import torch

from baselines import METHODS
from syncdiffusion.cost import Square
from syncdiffusion.perceptual import distances


class Flat(torch.nn.Module):
    """A perceptual distance that needs no weights: the image itself is its only feature."""

    name = network = "flat"

    def __init__(self):
        super().__init__()
        self.trunk = torch.nn.Identity()

    def features(self, images):
        return [self.trunk(images)]

    def distance(self, a, b):
        return (a[0] - b[0]).square().mean(dim=(1, 2, 3))


def check_calls(tiny, monkeypatch: pytest.MonkeyPatch, name: str, settings: dict) -> None:
    """Asserts that a method's counted network calls are what the networks saw, forward and backward."""
    loss, seen = Flat(), dict.fromkeys(("unet", "decoder", "loss"), 0.0)
    backward = dict.fromkeys(seen, 0.0)
    monkeypatch.setattr(distances, "load_perceptual", lambda *arguments: loss)
    area = {"unet": 2 * tiny.window**2, "decoder": tiny.window**2, "loss": (tiny.window * tiny.factor) ** 2}

    def count(part):
        def hook(module, inputs, output):
            windows = inputs[0][:, 0].numel() / area[part]
            seen[part] += windows
            value = getattr(output, "sample", output)
            if value.requires_grad:
                value.register_hook(lambda gradient: backward.__setitem__(part, backward[part] + windows))

        return hook

    method = METHODS[name]
    # A process measures once what memory a window takes (window_batch=auto); that is no panorama's own work.
    method.generate(tiny, ["hills"], [0], method.settings(**settings))
    parts = {"unet": tiny.unet, "decoder": tiny.vae.decoder, "loss": loss.trunk}
    handles = [module.register_forward_hook(count(part)) for part, module in parts.items()]
    try:
        method.generate(tiny, ["hills"], [0], method.settings(**settings))
    finally:
        for handle in handles:
            handle.remove()
    if method.closed(settings):  # what a ring decodes twice to meet its other end is not counted as the method's
        seen["decoder"] -= 2 * tiny.decoder.reach * settings["height"] / tiny.factor / area["decoder"]
    counted = method.network_calls(method.settings(**settings), Square(tiny.window, tiny.factor))
    assert (counted.unet, counted.decoder, counted.loss) == pytest.approx(tuple(seen.values()))
    found = tuple(backward.values())
    assert (counted.unet_backward, counted.decoder_backward, counted.loss_backward) == pytest.approx(found)
