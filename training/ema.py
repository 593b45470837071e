"""A moving average of weights, which is what gets shipped."""

from typing import TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


class Average:
    """Exponential moving average over a module's state; the horizon grows with the step, up to `decay`."""

    def __init__(self, module: nn.Module, decay: float = 0.998) -> None:
        self.decay = decay
        self.weights: dict[str, Tensor] = {k: v.detach().clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Move towards the module's present weights."""
        keep = min(self.decay, (1 + step) / (10 + step))
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                self.weights[name].lerp_(value, 1 - keep)
            else:
                self.weights[name].copy_(value)

    def load(self, weights: dict[str, Tensor]) -> None:
        """Take the average from a checkpoint."""
        for name, value in weights.items():
            self.weights[name].copy_(value)

    def applied(self, module: Module) -> Module:
        """`module` with the averaged weights loaded."""
        module.load_state_dict(self.weights)
        return module
