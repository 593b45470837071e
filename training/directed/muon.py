"""Muon (Jordan et al., 2024) for every weight that maps many values to many, convolutions too; AdamW for the rest.

`torch.optim.Muon` takes matrices only. A convolution is one, its taps being so many more inputs. Matrices of one form
are moved together: a small network's step is a matter of how many operations there are, not of how large.
"""

from typing import Any

import torch
from torch import Tensor, nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic that pulls singular values towards one


def orthogonalised(matrices: Tensor, steps: int = 5) -> Tensor:
    """Nearly the closest matrices (…, rows, columns) whose singular values are one, by Newton and Schulz's
    iteration."""
    a, b, c = _COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muons:
    """Both optimisers of a module as one; `share` of the full rates is set for each step.

    On a GPU a step can be part of a CUDA graph: what changes from step to step lies in tensors.
    """

    def __init__(
        self,
        *modules: nn.Module,
        rate: float,
        matrix_rate: float,
        slow: tuple[str, ...] = (),
    ) -> None:
        """Parameters whose names hold one of `slow` are AdamW's whatever their shape."""
        named = [(n, p) for module in modules for n, p in module.named_parameters() if p.requires_grad]
        matrices = [
            p
            for n, p in named
            if p.ndim >= 2 and min(p.shape[0], p[0].numel()) > 2 and not any(part in n for part in slow)
        ]
        forms: dict[tuple[int, int], list[nn.Parameter]] = {}
        for parameter in matrices:
            forms.setdefault((parameter.shape[0], parameter[0].numel()), []).append(parameter)
        self._forms = list(forms.items())
        self._momenta = [torch.zeros(len(some), *form, device=some[0].device) for form, some in self._forms]
        taken = {id(p) for p in matrices}
        others = [p for _, p in named if id(p) not in taken]
        self._everything = [p for _, p in named]
        self._rate, self._matrix_rate = rate, matrix_rate
        device = self._everything[0].device
        self._share = torch.ones((), device=device)
        on_gpu = device.type == "cuda"
        self._adam = torch.optim.AdamW(
            others,
            lr=torch.tensor(rate, device=device) if on_gpu else rate,
            betas=(0.9, 0.98),
            weight_decay=0.0,
            fused=on_gpu,
            capturable=on_gpu,
        )

    def set_share(self, share: float) -> None:
        """Of the full rates, from the next step on."""
        self._share.fill_(share)
        for group in self._adam.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(share * self._rate)
            else:
                group["lr"] = share * self._rate

    def step(self, loss: Tensor, share: float, *others: "Muons") -> None:
        """One step down `loss` at that share of the full rates; `others` take theirs down the same gradient."""
        for trainers in (self, *others):
            trainers.set_share(share)
        self.descend(loss, *others)

    def descend(self, loss: Tensor, *others: "Muons") -> None:
        """The same at the share that was set. Gradients are clipped to a norm of one, over all of them."""
        everyone = (self, *others)
        for trainers in everyone:
            for parameter in trainers._everything:
                parameter.grad = None
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for trainers in everyone for p in trainers._everything], 1.0)
        for trainers in everyone:
            trainers._move()

    @torch.no_grad()
    def _move(self) -> None:
        self._adam.step()
        for (form, parameters), momentum in zip(self._forms, self._momenta, strict=True):
            gradients = torch.stack(
                [torch.zeros(form, device=p.device) if p.grad is None else p.grad.reshape(form) for p in parameters]
            )
            momentum.lerp_(gradients, 0.05)
            scale = self._matrix_rate * max(1.0, form[0] / form[1]) ** 0.5
            moves = orthogonalised(gradients.lerp(momentum, 0.95)) * (self._share * -scale)
            moved: list[Tensor] = [*parameters]
            torch._foreach_add_(moved, [m.view(p.shape) for m, p in zip(moves, parameters, strict=True)])

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` takes back."""
        return {"adam": self._adam.state_dict(), "momenta": self._momenta}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken."""
        self._adam.load_state_dict(state["adam"])
        for momentum, kept in zip(self._momenta, state["momenta"], strict=True):
            momentum.copy_(kept)

    def forget(self) -> None:
        """Begin anew, in place."""
        for momentum in self._momenta:
            momentum.zero_()
        for state in self._adam.state.values():
            for value in state.values():
                value.zero_()
