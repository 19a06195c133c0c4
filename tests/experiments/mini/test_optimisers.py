"""Muon against the singular value decomposition and PyTorch's AdamW."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from experiments.mini.optimisers import Muon, orthogonalise, split_parameters


@pytest.mark.parametrize("shape", [(32, 32), (40, 90), (90, 40)])
def test_orthogonalised_matrix_keeps_its_singular_vectors(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    found = left.T @ orthogonalise(matrix).double() @ right.T
    # Diagonal between the same singular vectors; the quintic leaves values between 0.68 and 1.14. What it starts from
    # is scaled by the Frobenius norm, so that the smallest of a square matrix may not get there in five rounds.
    kept = values / values.norm() > 0.01
    assert 0.6 < found.diagonal()[kept].min() and found.diagonal().max() < 1.25
    assert (found - found.diagonal().diag()).abs().max() < 1e-3


def test_zero_gradient_moves_nothing() -> None:
    assert not orthogonalise(torch.zeros(32, 40)).any()


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle = nn.Conv2d(3, 32, 3), nn.Conv2d(32, 48, 3)
        self.words, self.linear = nn.Embedding(100, 64), nn.Linear(48, 33)
        self.positional_embedding = nn.Parameter(torch.zeros(40, 64))


def test_matrices_go_to_muon_and_all_else_to_adam() -> None:
    model = Small()
    groups = split_parameters(model, 1e-3, 0.1)
    names = {id(p): name for name, p in model.named_parameters()}
    found = {(g["muon"], g["decay"]): {names[id(p)] for p in g["params"]} for g in groups}
    assert found == {
        (True, 0.1): {"middle.weight", "linear.weight"},
        (False, 0.1): {"first.weight", "words.weight", "positional_embedding"},
        (False, 0.0): {"first.bias", "middle.bias", "linear.bias"},
    }


def test_the_other_parameters_take_adamws_steps() -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Linear(20, 20), nn.Linear(20, 20)
    theirs.load_state_dict(ours.state_dict())
    mine = Muon([{"params": list(ours.parameters()), "muon": False, "lr": 0.01, "decay": 0.1}])
    reference = torch.optim.AdamW(theirs.parameters(), lr=0.01, betas=(0.9, 0.99), weight_decay=0.1)
    for _ in range(5):
        batch = torch.randn(7, 20)
        for model, optimiser in ((ours, mine), (theirs, reference)):
            optimiser.zero_grad()
            model(batch).square().sum().backward()
            optimiser.step()
    # The same formula with its operations in another order, in float32.
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=1e-5, atol=1e-6)


def test_muon_finds_a_linear_map_and_its_state_can_be_kept() -> None:
    torch.manual_seed(0)
    target, inputs = torch.randn(32, 40), torch.randn(200, 40)
    model = nn.Linear(40, 32, bias=False)
    optimiser = Muon(split_parameters(model, 0.2, 0.0))
    losses = []
    for step in range(200):
        if step == 100:
            again = Muon(split_parameters(model, 0.2, 0.0))
            again.load_state_dict(optimiser.state_dict())
            optimiser = again
        for group in optimiser.param_groups:
            group["lr"] = 0.2 * (1 - step / 200)
        loss = (model(inputs) - inputs @ target.T).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 100
