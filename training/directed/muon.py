"""Muon (Jordan et al., 2024) for every weight that maps many values to many, convolutions too; AdamW for the rest.

`torch.optim.Muon` takes matrices only. A convolution is one, its taps being so many more inputs.
"""

from typing import Any

import torch
from torch import Tensor, nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic that pulls singular values towards one


def orthogonalised(matrix: Tensor, steps: int = 5) -> Tensor:
    """Nearly the closest matrix whose singular values are one, by Newton and Schulz's iteration."""
    a, b, c = _COEFFICIENTS
    x = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if matrix.shape[0] <= matrix.shape[1] else x.T


class Muons:
    """Both optimisers of a module as one; `share` of the full rates is set for each step."""

    def __init__(
        self,
        *modules: nn.Module,
        rate: float,
        matrix_rate: float,
        slow: tuple[str, ...] = (),
    ) -> None:
        """Parameters whose names hold one of `slow` are AdamW's whatever their shape."""
        named = [(n, p) for module in modules for n, p in module.named_parameters() if p.requires_grad]
        self._matrices = [
            p
            for n, p in named
            if p.ndim >= 2 and min(p.shape[0], p[0].numel()) > 2 and not any(part in n for part in slow)
        ]
        taken = {id(p) for p in self._matrices}
        others = [p for _, p in named if id(p) not in taken]
        self._everything = [p for _, p in named]
        self._momenta = [torch.zeros_like(p) for p in self._matrices]
        self._rate, self._matrix_rate = rate, matrix_rate
        self._adam = torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.0)

    def step(self, loss: Tensor, share: float, *others: "Muons") -> None:
        """One step down `loss` at that share of the full rates; `others` take theirs down the same gradient."""
        everyone = (self, *others)
        for trainers in everyone:
            for parameter in trainers._everything:
                parameter.grad = None
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for trainers in everyone for p in trainers._everything], 1.0)
        for trainers in everyone:
            trainers._move(share)

    def _move(self, share: float) -> None:
        for group in self._adam.param_groups:
            group["lr"] = share * self._rate
        self._adam.step()
        with torch.no_grad():
            for parameter, momentum in zip(self._matrices, self._momenta, strict=True):
                if parameter.grad is None:
                    continue
                momentum.lerp_(parameter.grad, 0.05)
                update = orthogonalised(parameter.grad.lerp(momentum, 0.95).flatten(1))
                scale = max(1.0, update.shape[0] / update.shape[1]) ** 0.5
                parameter.add_(update.view_as(parameter), alpha=-share * self._matrix_rate * scale)

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` takes back."""
        return {"adam": self._adam.state_dict(), "momenta": self._momenta}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken."""
        self._adam.load_state_dict(state["adam"])
        for momentum, kept in zip(self._momenta, state["momenta"], strict=True):
            momentum.copy_(kept)
