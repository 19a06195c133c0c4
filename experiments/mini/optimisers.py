"""Muon: momentum whose matrices are made orthogonal before they are applied, with AdamW for all else.

A plain gradient of a matrix moves along a few strong directions; Muon's update has all its singular values near
one, so that the rare directions are learned too, in fewer steps (K. Jordan and others, 2024,
https://kellerjordan.github.io/posts/muon/; scaled as in arXiv 2502.16982, so that AdamW's rates hold).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

# Coefficients of the quintic x -> a x + b x^3 + c x^5 that five times over takes (0, 1] to about 1 (same source).
QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrix: Tensor, rounds: int = 5) -> Tensor:
    """The nearest matrix with all singular values near 1 (between 0.7 and 1.2), by Newton and Schulz's iteration.

    A convolution's matrix is nine times as wide as high. So the rounds are taken on its small square, all of whose
    powers commute: x_k = q_k x and x_k x_k^T = m^2 x_{k-1} x_{k-1}^T, where m is the round's factor a + b s + c s^2.
    A third of the products of the iteration as it is written, and the same result.

    Args:
        matrix: [rows, columns]; zeros stay zeros.
    """
    a, b, c = QUINTIC
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    wide = wide / (wide.norm() + 1e-7)
    square = wide @ wide.T
    one = torch.eye(len(square), dtype=square.dtype, device=square.device)
    product = one
    for number in range(rounds):
        factor = a * one + b * square + c * square @ square
        product = factor @ product if number else factor
        square = factor @ square @ factor
    wide = product @ wide
    return wide.T if matrix.shape[0] > matrix.shape[1] else wide


def split_parameters(model: nn.Module, rate: float, decay: float) -> list[dict[str, Any]]:
    """Muon's group (weights of the inner layers as matrices) and AdamW's (all else) of a model.

    Muon is for what maps features to features: embeddings, the first and last layers (few channels on one side),
    gains and biases go to AdamW, without weight decay where they are vectors.
    """
    embeddings = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    groups: dict[str, list[Tensor]] = {"matrices": [], "others": [], "vectors": []}
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:
            groups["vectors"].append(parameter)
        elif id(parameter) in embeddings or name.endswith("embedding") or min(parameter.shape[:2]) < 32:
            groups["others"].append(parameter)
        else:
            groups["matrices"].append(parameter)
    return [
        {"params": values, "muon": name == "matrices", "lr": rate, "decay": 0.0 if name == "vectors" else decay}
        for name, values in groups.items()
        if values
    ]


class Muon(torch.optim.Optimizer):
    """Muon for the groups with `muon`, AdamW for the others; both at the same learning rate.

    Args:
        groups: as `split_parameters` makes them: params, muon, lr, decay (decoupled weight decay).
        momentum: of Muon, in Nesterov's form.
        betas: of AdamW.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
        epsilon: float = 1e-8,
    ) -> None:
        super().__init__(list(groups), {"momentum": momentum, "betas": betas, "epsilon": epsilon})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One update of every parameter that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                update = self._muon(parameter, group) if group["muon"] else self._adam(parameter, group)
                parameter.mul_(1.0 - group["lr"] * group["decay"]).add_(update, alpha=-group["lr"])

    def _muon(self, parameter: Tensor, group: dict[str, Any]) -> Tensor:
        state, momentum = self.state[parameter], group["momentum"]
        if not state:
            state["mean"] = torch.zeros_like(parameter)
        state["mean"].lerp_(parameter.grad, 1.0 - momentum)
        direction = torch.lerp(parameter.grad, state["mean"], momentum)
        # A convolution is a matrix from (inputs x kernel) to outputs.
        matrix = orthogonalise(direction.flatten(1))
        # Its root mean square is then 0.2, which is about AdamW's.
        return matrix.mul_(0.2 * max(matrix.shape) ** 0.5).view_as(direction)

    def _adam(self, parameter: Tensor, group: dict[str, Any]) -> Tensor:
        state, (first, second) = self.state[parameter], group["betas"]
        if not state:
            state["step"] = 0
            state["mean"], state["square"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["step"] += 1
        state["mean"].lerp_(parameter.grad, 1.0 - first)
        state["square"].lerp_(parameter.grad.square(), 1.0 - second)
        mean = state["mean"] / (1.0 - first ** state["step"])
        square = state["square"] / (1.0 - second ** state["step"])
        return mean / (square.sqrt() + group["epsilon"])
