"""Muon for the matrices of a transformer's blocks (Jordan et al., 2024), AdamW for all else; and how rates fall."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from diffusers import LTXVideoTransformer3DModel
from torch import nn


class Trainers:
    """Both optimisers as one; `share` of the full rates is set for each step."""

    def __init__(
        self,
        transformer: LTXVideoTransformer3DModel,
        *others: tuple[nn.Module, float],
        rate: float,
        matrix_rate: float,
    ) -> None:
        """`others` are trained by AdamW at their own share of `rate`."""
        matrices = [p for n, p in transformer.transformer_blocks.named_parameters() if p.ndim == 2 and "table" not in n]
        taken = {id(p) for p in matrices}
        groups: list[dict[str, Any]] = [{"params": [p for p in transformer.parameters() if id(p) not in taken]}]
        groups += [{"params": list(module.parameters()), "lr": share * rate} for module, share in others]
        self._optimisers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), weight_decay=0.01),
            torch.optim.Muon(matrices, lr=matrix_rate, weight_decay=0.0, adjust_lr_fn="original"),
        ]
        for group in self._groups():
            group["peak"] = group["lr"]

    def _groups(self) -> Iterable[dict[str, Any]]:
        return [group for optimiser in self._optimisers for group in optimiser.param_groups]

    def step(self, loss: torch.Tensor, share: float) -> None:
        """One step down `loss` at that share of the full rates; gradients are clipped to a norm of one."""
        for optimiser in self._optimisers:
            optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for group in self._groups() for p in group["params"]], 1.0)
        for group in self._groups():
            group["lr"] = share * group["peak"]
        for optimiser in self._optimisers:
            optimiser.step()

    def state_dict(self) -> list[dict[str, Any]]:
        """What `load_state_dict` takes back."""
        return [optimiser.state_dict() for optimiser in self._optimisers]

    def load_state_dict(self, state: list[dict[str, Any]]) -> None:
        """Continue where `state` was taken."""
        for optimiser, kept in zip(self._optimisers, state, strict=True):
            optimiser.load_state_dict(kept)


def rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """Linear warm-up, then a cosine down to 2 % of the peak."""
    return peak * rate_share(step, min(1.0, step / max(1, steps)), warmup)


def rate_share(step: int, done: float, warmup: int) -> float:
    """The same as a share of the peak, `done` being the share of the training that is over."""
    return min(1.0, (step + 1) / warmup) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))
