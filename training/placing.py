"""Teach the transformer's first blocks where each token stands, before it learns to draw.

An LTX transformer is told positions by rotary embeddings alone, which are differences between tokens: from pure noise
every token would answer alike, with the average over all places, until the network has found out from its neighbours
where the edges are. Left to the denoiser that takes thousands of steps. Asked directly (how many tokens lie before you,
how many behind, along time, height and width) it takes a hundred, and then words can say what belongs where.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from diffusers import LTXVideoTransformer3DModel, WanVACETransformer3DModel
from torch import Tensor, nn

from training.numerics import Size, attention_for, predict
from training.optimisers import Trainers

DEPTH = 2
"""Blocks after which a token has to know its place."""
MOST = 16
"""Tokens along an axis that can be told apart."""
_LOUDEST = 1.0
"""Mean square that the hidden values are held to, lest the place drown what the token shows."""
_QUIETER = 0.1


class PlaceReader(nn.Module):
    """Linear heads that read the place out of the hidden values of a transformer, and the loss that they make."""

    def __init__(self, transformer: LTXVideoTransformer3DModel | WanVACETransformer3DModel) -> None:
        super().__init__()
        width = transformer.config.num_attention_heads * transformer.config.attention_head_dim
        self.heads = nn.ModuleList(nn.Linear(width, MOST) for _ in range(6))
        self._hidden: Tensor | None = None
        ltx = isinstance(transformer, LTXVideoTransformer3DModel)
        blocks = transformer.transformer_blocks if ltx else transformer.blocks
        blocks[min(DEPTH, len(blocks)) - 1].register_forward_hook(self._keep)

    def _keep(self, _module: nn.Module, _given: object, hidden: Tensor) -> None:
        self._hidden = hidden

    def loss(self, size: Size) -> tuple[Tensor, float]:
        """Of the transformer's last call, over tokens of (frames, height, width): the loss, and the share of answers
        that were right."""
        loss, right = self.losses(size)
        return loss, float(right)

    def losses(self, size: Size) -> tuple[Tensor, Tensor]:
        """The same, without a wait for the device."""
        if self._hidden is None:
            raise RuntimeError("the transformer was not called since the reader was made")
        hidden = self._hidden.float()
        self._hidden = None
        loss = _QUIETER * (hidden.pow(2).mean() - _LOUDEST).relu()
        right = hidden.new_zeros(())
        for head, answer in zip(self.heads, answers(size, hidden.device), strict=True):
            logits = head(hidden).flatten(0, 1)
            wanted = answer.repeat(len(hidden))
            loss = loss + F.cross_entropy(logits, wanted)
            right = right + (logits.detach().argmax(-1) == wanted).float().mean() / len(self.heads)
        return loss, right


def answers(size: Size, device: torch.device) -> list[Tensor]:
    """For each token, in the transformer's order: tokens before and behind it in time, height and width."""
    if max(size) > MOST:
        raise ValueError(f"tokens {size} (frames, height, width): at most {MOST} along an axis")
    grids = torch.meshgrid(*(torch.arange(n, device=device) for n in size), indexing="ij")
    return [side for grid, n in zip(grids, size, strict=True) for side in (grid.flatten(), n - 1 - grid.flatten())]


def learn_places(
    transformer: LTXVideoTransformer3DModel,
    reader: PlaceReader,
    sizes: Sequence[Size],
    *,
    steps: int,
    batch: int,
    seed: int,
    enough: float = 0.99,
) -> float:
    """Train both in place, on pure noise over tokens of `sizes`; stops once `enough` answers of every size are right.

    Returns the share of the last ones that were.
    """
    torch.manual_seed(seed)
    device = transformer.device
    trainers = Trainers(transformer, (reader, 1.0), rate=1e-3, matrix_rate=0.01)
    right = dict.fromkeys(sizes, 0.0)
    for step in range(steps):
        size = sizes[step % len(sizes)]
        text = torch.randn(batch, 4, transformer.config.caption_channels, device=device)
        with torch.autocast(device.type, dtype=torch.bfloat16), attention_for(device):
            predict(
                transformer,
                torch.randn(batch, math.prod(size), transformer.config.in_channels, device=device),
                text,
                torch.full((batch,), 1000.0, device=device),
                torch.ones(batch, 4, device=device),
                size,
            )
        loss, right[size] = reader.loss(size)
        trainers.step(loss, min(1.0, (step + 1) / 20))
        if min(right.values()) >= enough:
            break
    return min(right.values())
