"""A pool of encoded clips that is renewed while the denoiser trains.

Encoding every batch afresh would cost as much as the denoising step; a fixed set would be learned by heart.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import AutoencoderKLLTXVideo
from torch import Tensor

from training import blocks
from training.drawing import CANVASES, MOTIONS, Scene, draw, sample
from training.vae import to_model_range

SHARES = (0.84, 0.08, 0.08)  # of the canvases: square, landscape, portrait


def normalised(vae: AutoencoderKLLTXVideo, clips: Tensor) -> Tensor:
    """Latents as the denoiser sees them, of clips (batch, 3, frames, height, width) in [-1, 1]."""
    mean, std = vae.latents_mean[:, None, None, None], vae.latents_std[:, None, None, None]
    return (blocks.encode(vae, clips) - mean) / std


@dataclass(frozen=True)
class Encoded:
    """A scene and its normalised latents (channels, latent frames, height / 16, width / 16), half precision."""

    scene: Scene
    latents: Tensor


class LatentPool:
    """Encoded clips by canvas; the oldest go once `capacity` (over all canvases) is reached."""

    def __init__(
        self,
        vae: AutoencoderKLLTXVideo,
        rng: np.random.Generator,
        capacity: int,
        pairs: float,
        *,
        shares: tuple[float, float, float] = SHARES,
        motions: tuple[str, ...] = MOTIONS,
        speeds: tuple[str, ...] = ("medium", "medium", "slow", "fast"),
    ) -> None:
        self._vae = vae
        self._rng = rng
        self._pairs = pairs
        self._shares = shares
        self._motions = motions
        self._speeds = speeds
        self._pools: list[deque[Encoded]] = [deque(maxlen=max(1, int(capacity * share))) for share in shares]

    @torch.no_grad()
    def add(self, count: int, canvas: int | None = None) -> None:
        """Draw and encode `count` clips of one canvas (random when not said)."""
        which = int(self._rng.choice(3, p=self._shares)) if canvas is None else canvas
        width, height = CANVASES[which]
        scenes = [
            sample(
                self._rng,
                width=width,
                height=height,
                pairs=self._pairs,
                motions=self._motions,
                speeds=self._speeds,
            )
            for _ in range(count)
        ]
        clips = to_model_range(np.stack([draw(scene) for scene in scenes])).to(self._vae.device)
        latents = normalised(self._vae, clips).half().cpu()
        self._pools[which].extend(Encoded(s, x) for s, x in zip(scenes, latents, strict=True))

    def fill(self, count: int) -> None:
        """Start with about `count` clips, each canvas by its share."""
        for which, share in enumerate(self._shares):
            for _ in range(max(1, round(count * share / 8)) if share else 0):
                self.add(8, which)

    def batch(self, count: int) -> list[Encoded]:
        """`count` random clips of one random canvas."""
        pool = self._pools[int(self._rng.choice(3, p=self._shares))]
        return [pool[i] for i in self._rng.integers(0, len(pool), count)]

    def __len__(self) -> int:
        return sum(len(pool) for pool in self._pools)
