"""How close two sets of clips are, and how steady one clip is. Numpy and scipy only; features come from outside.

- `frechet_distance`: Heusel et al., "GANs trained by a two time-scale update rule", 2017; over video features it is the
  FVD of Unterthiner et al., "Towards accurate generative models of video", 2018.
- `kernel_distance`: Bińkowski et al., "Demystifying MMD GANs", 2018: unbiased, so usable with few clips.
- `warp_error`: Lai et al., "Learning blind video temporal consistency", 2018, with block matching for the flow.

A number means something only beside the extractor's name and the two counts: compare like with like.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.linalg import eigvalsh

Clips = Sequence[NDArray[np.uint8]]
"""Clips of (frames, height, width, 3), 8-bit RGB; they may differ in size."""
Floats = NDArray[np.float64]


class Features(Protocol):
    """Turns clips into vectors. `name` goes beside every number that came of it."""

    @property
    def name(self) -> str: ...

    def __call__(self, clips: Clips) -> Floats:
        """(clips, width of the features)."""
        ...


@dataclass(frozen=True)
class Distance:
    """Two sets of clips compared."""

    features: str
    frechet: float
    kernel: float
    clips_a: int
    clips_b: int


def compare(a: Clips, b: Clips, features: Features) -> Distance:
    """Fréchet and kernel distance between two sets of at least two clips each."""
    if len(a) < 2 or len(b) < 2:
        raise ValueError(f"a distance needs two clips or more on each side, got {len(a)} and {len(b)}")
    x, y = features(a), features(b)
    return Distance(features.name, frechet_distance(x, y), kernel_distance(x, y), len(a), len(b))


def frechet_distance(x: Floats, y: Floats) -> float:
    """|m - n|² + tr(A + B - 2 (AB)^½) of the Gaussians fitted to two sets of vectors (count, width).

    With fewer vectors than `width` the covariances are singular; the trace is still defined, but biased upwards.
    """
    a, b = np.atleast_2d(np.cov(x, rowvar=False)), np.atleast_2d(np.cov(y, rowvar=False))
    # tr (AB)^½ is the sum of roots of the eigenvalues of A^½ B A^½, which is symmetric: no complex numbers.
    values, vectors = np.linalg.eigh(a)
    root = vectors * np.sqrt(np.clip(values, 0, None)) @ vectors.T
    cross = np.sqrt(np.clip(eigvalsh(root @ b @ root), 0, None)).sum()
    gap = x.mean(axis=0) - y.mean(axis=0)
    return float(gap @ gap + np.trace(a) + np.trace(b) - 2 * cross)


def kernel_distance(x: Floats, y: Floats) -> float:
    """Unbiased squared MMD with the kernel (x·y / width + 1)³; zero on average for equal distributions."""
    width = x.shape[1]
    n, m = len(x), len(y)
    xx, yy, xy = ((p @ q.T / width + 1) ** 3 for p, q in ((x, x), (y, y), (x, y)))
    within = (xx.sum() - np.trace(xx)) / (n * (n - 1)) + (yy.sum() - np.trace(yy)) / (m * (m - 1))
    return float(within - 2 * xy.mean())


@dataclass(frozen=True)
class GradientHistograms:
    """Histograms of space-time gradients on a coarse grid, with mean colours: no weights, no training.

    After Kläser et al., "A spatio-temporal descriptor based on 3D-gradients", 2008. It sees edges, their motion and
    colour, but no objects: fit for solid shapes, not for photographs.
    """

    grid: int = 3
    name: str = "gradient-histograms-3d"

    def __call__(self, clips: Clips) -> Floats:
        """(clips, grid² × 13)."""
        return np.stack([self._one(clip) for clip in clips])

    def _one(self, clip: NDArray[np.uint8]) -> Floats:
        pixels = clip.astype(np.float64) / 255
        grey = ndimage.gaussian_filter(pixels.mean(axis=-1), (0.7, 1.0, 1.0))
        dt, dy, dx = np.gradient(grey)
        size = np.hypot(dx, dy)
        sector = np.floor((np.arctan2(dy, dx) % (2 * np.pi)) / (np.pi / 4)).astype(int) % 8
        normal_speed = np.where(size > 0.02, dt / np.maximum(size, 0.02), 0.0)
        cells: list[float] = []
        rows = np.array_split(np.arange(clip.shape[1]), self.grid)
        columns = np.array_split(np.arange(clip.shape[2]), self.grid)
        for row in rows:
            for column in columns:
                at = np.ix_(np.arange(len(clip)), row, column)
                weight = size[at]
                bins = np.bincount(sector[at].ravel(), weight.ravel(), minlength=8) / weight.size * 10
                speed = normal_speed[at]
                cells += [
                    *bins,
                    float(np.abs(speed).mean()),
                    float(speed.std()),
                    *pixels[at].mean(axis=(0, 1, 2)),
                ]
        return np.array(cells)


def block_flow(before: Floats, after: Floats, reach_px: int = 5, block_px: int = 7) -> NDArray[np.int64]:
    """Where each pixel of `after` was in `before`, (height, width, 3) both: offsets (height, width, 2), dy and dx.

    Full search with a summed absolute difference over blocks; equal costs go to the shorter offset.
    """
    height, width = after.shape[:2]
    offsets = sorted(
        ((dy, dx) for dy in range(-reach_px, reach_px + 1) for dx in range(-reach_px, reach_px + 1)),
        key=lambda o: o[0] ** 2 + o[1] ** 2,
    )
    padded = np.pad(before, ((reach_px, reach_px), (reach_px, reach_px), (0, 0)), mode="edge")
    best = np.full((height, width), np.inf)
    flow = np.zeros((height, width, 2), np.int64)
    for dy, dx in offsets:
        shifted = padded[reach_px + dy : reach_px + dy + height, reach_px + dx : reach_px + dx + width]
        cost = ndimage.uniform_filter(np.abs(shifted - after).sum(axis=-1), block_px)
        better = cost < best - 1e-9
        best = np.where(better, cost, best)
        flow[better] = (dy, dx)
    return flow


def _pulled(frame: Floats, flow: NDArray[np.int64]) -> Floats:
    height, width = frame.shape[:2]
    ys = np.clip(np.arange(height)[:, None] + flow[..., 0], 0, height - 1)
    xs = np.clip(np.arange(width)[None, :] + flow[..., 1], 0, width - 1)
    return frame[ys, xs]


def warp_error(clip: NDArray[np.uint8]) -> float:
    """Mean squared difference (colours in [0, 1]) of each frame from its predecessor moved along the flow.

    Pixels whose flow there and back disagree by more than a pixel are left out as covered or uncovered.
    Lower is steadier; a still clip gives zero, so read it beside the value of true clips.
    """
    pixels = clip.astype(np.float64) / 255
    errors: list[float] = []
    for before, after in itertools.pairwise(pixels):
        back, forth = block_flow(before, after), block_flow(after, before)
        round_trip = back + _pulled(forth.astype(np.float64), back)
        seen = np.abs(round_trip).max(axis=-1) <= 1
        if seen.any():
            errors.append(float(((_pulled(before, back) - after) ** 2).mean(axis=-1)[seen].mean()))
    return float(np.mean(errors)) if errors else 0.0
