"""Encoded shots for training: drawn and encoded on the device, kept in pools that are renewed while training runs.

A batch is of one canvas and one length, and has references or none.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training.directed.codec import FastEncoder
from training.directed.conditions import conditions
from training.directed.control import control, wanted
from training.directed.drawing import draw
from training.directed.scenes import CANVASES, FRAMES, TASKS, Shot, kind, sample

SHARES = (0.8, 0.1, 0.1)
"""Of the canvases."""
LONG = 33
LONG_SHARE = 0.06
_STYLE = TASKS["style"] / sum(TASKS.values())


@dataclass(frozen=True)
class Kind:
    """What the shots of a batch have in common: canvas, frames, and whether they come with a reference."""

    canvas: int
    frames: int
    style: bool


@dataclass(frozen=True)
class Encoded:
    """A shot, the latents to arrive at and the control latents, half precision."""

    shot: Shot
    latents: Tensor
    control: Tensor


def kinds() -> dict[Kind, float]:
    """Every kind and how often it is drawn; shares need not sum to one."""
    out = {}
    for canvas, share in enumerate(SHARES):
        for frames, part in ((FRAMES, 1 - LONG_SHARE), (LONG, LONG_SHARE)):
            for style, piece in ((False, 1 - _STYLE), (True, _STYLE)):
                if frames == FRAMES or not style:
                    out[Kind(canvas, frames, style)] = share * part * piece
    return out


class ShotPool:
    """Encoded shots by kind; the oldest go once `capacity` (over all kinds) is reached."""

    def __init__(self, encode: FastEncoder, device: torch.device, rng: np.random.Generator, capacity: int) -> None:
        self._encode, self._device, self._rng = encode, device, rng
        shares = kinds()
        self._kinds = tuple(shares)
        self._shares = np.array(list(shares.values())) / sum(shares.values())
        self._pools: dict[Kind, deque[Encoded]] = {
            k: deque(maxlen=max(8, int(capacity * share))) for k, share in zip(self._kinds, self._shares, strict=True)
        }

    def _pick(self) -> Kind:
        return self._kinds[int(self._rng.choice(len(self._kinds), p=self._shares))]

    @torch.no_grad()
    def add(self, count: int, of: Kind | None = None) -> None:
        """Draw and encode `count` shots of one kind (random when not said)."""
        which = self._pick() if of is None else of
        width, height = CANVASES[which.canvas]
        shots: list[Shot] = []
        while len(shots) < count:
            task = "style" if which.style else kind(self._rng)
            if which.style or task != "style":
                shots.append(sample(self._rng, task, width=width, height=height, frames=which.frames))
        clips = draw([shot.scene for shot in shots], self._device)
        given = conditions(self._rng, shots, clips)
        latents, told = wanted(self._encode, clips, given).half(), control(self._encode, given).half()
        self._pools[which].extend(Encoded(s, x, c) for s, x, c in zip(shots, latents, told, strict=True))

    def fill(self, count: int) -> None:
        """Start with about `count` shots, each kind by its share."""
        for which, share in zip(self._kinds, self._shares, strict=True):
            for _ in range(max(1, round(count * share / 8))):
                self.add(8, which)

    def batch(self, count: int) -> list[Encoded]:
        """`count` random shots of one random kind."""
        pool = self._pools[self._pick()]
        return [pool[int(i)] for i in self._rng.integers(0, len(pool), count)]

    def __len__(self) -> int:
        return sum(len(pool) for pool in self._pools.values())
