"""Batches in tensors that stay where they are, since graphs read them there."""

from dataclasses import dataclass

import torch
from torch import Tensor

from training.directed.supply import TOKENS, Table


@dataclass
class Batch:
    """Fixed tensors that a graph of one kind of batch reads."""

    latents: Tensor
    told: Tensor
    mask: Tensor
    tokens: Tensor
    uniform: Tensor
    noise: Tensor

    @property
    def control(self) -> Tensor:
        """Control latents, single precision."""
        return torch.cat([self.told.float(), self.mask.float()], dim=1)

    def draw(self, table: Table, empty: Tensor, drop: float, generator: torch.Generator) -> None:
        """Fill with random rows of a table, random sentences of theirs, noise, and stratified numbers in (0, 1)."""
        count, device = len(self.latents), self.latents.device
        rows = torch.randint(0, table.filled, (count,), device=device, generator=generator)
        for to, source in ((self.latents, table.latents), (self.told, table.told), (self.mask, table.mask)):
            torch.index_select(source, 0, rows, out=to)
        said = torch.randint(0, table.tokens.shape[1], (count,), device=device, generator=generator)
        dropped = torch.rand(count, 1, device=device, generator=generator) < drop
        self.tokens.copy_(torch.where(dropped, empty, table.tokens[rows, said]))
        self.uniform.uniform_(generator=generator).add_(torch.arange(count, device=device)).div_(count)
        self.noise.normal_(generator=generator)


def batch_like(table: Table, count: int) -> Batch:
    """Empty, for a table's kind."""
    device = table.latents.device
    return Batch(
        torch.zeros(count, *table.latents.shape[1:], dtype=table.latents.dtype, device=device),
        torch.zeros(count, *table.told.shape[1:], dtype=table.told.dtype, device=device),
        torch.zeros(count, *table.mask.shape[1:], dtype=torch.uint8, device=device),
        torch.ones(count, TOKENS, dtype=torch.long, device=device),
        torch.full((count,), 0.5, device=device),
        torch.zeros(count, *table.latents.shape[1:], device=device),
    )
