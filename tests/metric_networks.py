"""Perceptual networks for tests: skipped without their weights; and the `lpips` library with the same weights."""

import warnings

import pytest
from torch import nn

from syncdiffusion.errors import UsageError
from syncdiffusion.perceptual.distances import load_perceptual


def load_or_skip(name: str, **options):
    try:
        return load_perceptual(name, **options)
    except UsageError as error:
        pytest.skip(str(error))


def library_lpips(net: str, name: str) -> nn.Module:
    """The `lpips` package's own module, its trunk filled with the weights under test."""
    import lpips

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    ours = load_or_skip(name).trunk.layers.state_dict()
    theirs = dict(module.net.named_parameters())
    for key, parameter in theirs.items():
        parameter.data.copy_(ours[key.split(".", 1)[1]])  # slice3.10.weight -> 10.weight
    assert len(theirs) == len(ours)
    return module.eval()
