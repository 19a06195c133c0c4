"""The counted network calls of every method against what the networks really saw."""

import pytest
import torch

from baselines import METHODS
from syncdiffusion.cost import Square
from syncdiffusion.perceptual import distances as perceptual

COMMON = {"height": 64, "width": 192, "steps": 5}
CASES = [
    ("stable_diffusion", {**COMMON, "width": 128}),
    ("multidiffusion", {**COMMON, "stride": 2, "window_batch": 3}),
    ("multidiffusion", {**COMMON, "stride": 2, "loop_closure": "full"}),
    ("multidiffusion", {**COMMON, "height": 128, "stride": 4}),
    ("blended_latent", COMMON),
    ("blended_latent", {**COMMON, "overlap": 0.25, "width": 64 + 2 * 48, "start": 0.5}),
    ("syncdiffusion", {**COMMON, "stride": 4, "loss": "lpips_alex"}),
    ("syncdiffusion", {**COMMON, "stride": 4, "loss": "lpips_alex", "every_n": 2, "window_batch": 2}),
    ("syncdiffusion", {**COMMON, "stride": 4, "loss": "lpips_alex", "first_n": 3}),
    ("syncdiffusion", {**COMMON, "stride": 4, "loss": "lpips_alex", "first_n": 3, "unet_gradient": False}),
    ("profile_matching", {**COMMON, "stride": 4, "first_n": 3}),
    ("syncdiffusion", {**COMMON, "stride": 4, "loss": "lpips_alex", "weight": 0.0}),
]


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


@pytest.mark.parametrize(("name", "settings"), CASES, ids=lambda case: str(case) if isinstance(case, str) else "")
def test_calls_are_what_the_networks_saw(tiny, monkeypatch, name, settings):
    loss, seen = Flat(), dict.fromkeys(("unet", "decoder", "loss"), 0.0)
    backward = dict.fromkeys(seen, 0.0)
    monkeypatch.setattr(perceptual, "load_perceptual", lambda *arguments: loss)
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
    counted = method.calls(method.settings(**settings), Square(tiny.window, tiny.factor))
    assert (counted.unet, counted.decoder, counted.loss) == pytest.approx(tuple(seen.values()))
    found = tuple(backward.values())
    assert (counted.unet_backward, counted.decoder_backward, counted.loss_backward) == pytest.approx(found)
