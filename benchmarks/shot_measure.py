"""What a clip shows of what it was told, measured from its pixels: two shapes, ways, cameras, masks, frames, styles.

Beside `clip_measure.py`, which tells colour, shape and motion of one shape. Like it, this shares nothing with the code
that draws for training, and calls "unknown", or an error of a whole frame, what it does not find.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from evaluation.clip_measure import MIN_CONTRAST, Measured, measure

Frames = NDArray[np.uint8]
Floats = NDArray[np.float64]

MIN_SHARE = 0.002
"""Of a frame's pixels: what is smaller is no shape."""
LOST = 1.0
"""The error, in frames, of what is not there."""
SAME_PLACE = 0.04
"""Of the smaller side: how far a shape may be from where it was asked for."""
SAME_AREA = 0.35
"""How far its area may be from the one asked for, as a share of it."""
SAME_GROUND = 40.0
"""RGB distance up to which two backgrounds are of one colour."""


@dataclass(frozen=True)
class Part:
    """One shape of a clip: the clip without the others, and where it stands: centroids (frames, 2), areas (frames,);
    NaN and zero in frames where it is not."""

    clip: Frames
    path: Floats
    areas: Floats


def background(clip: Frames) -> Floats:
    """The median colour of the border."""
    edges = (clip[:, :2], clip[:, -2:], clip[:, :, :2], clip[:, :, -2:])
    return np.median(np.concatenate([edge.reshape(-1, 3) for edge in edges]).astype(float), axis=0)


def _standing(pixels: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    areas = pixels.sum(axis=(1, 2)).astype(float)
    path = np.full((len(pixels), 2), np.nan)
    for frame in np.flatnonzero(areas):
        ys, xs = np.nonzero(pixels[frame])
        path[frame] = xs.mean() + 0.5, ys.mean() + 0.5
    return path, areas


def parts(clip: Frames) -> list[Part]:
    """The shapes of a clip, from left to right, or from top to bottom where they are further apart that way.

    What hangs together in place or from frame to frame is one shape: shapes that touch are not told apart.
    """
    ground = background(clip)
    contrast = np.linalg.norm(clip.astype(float) - ground, axis=-1)
    there = contrast > MIN_CONTRAST
    labels, count = ndimage.label(there, structure=np.ones((3, 3, 3), bool))
    least = MIN_SHARE * there.shape[1] * there.shape[2] * len(there) / 2
    found = []
    for label in range(1, count + 1):
        mine = labels == label
        if mine.sum() < least:
            continue
        others = ndimage.binary_dilation((labels > 0) & ~mine, structure=np.ones((1, 3, 3), bool), iterations=2)
        alone = np.where((others & ~mine)[..., None], ground.round().astype(np.uint8), clip)
        inside = mine & (contrast > np.percentile(contrast[mine], 90) / 2)  # half-way across its edges
        found.append(Part(alone, *_standing(inside)))
    if len(found) > 1:
        places = np.array([np.nanmean(part.path, axis=0) for part in found])
        axis = int(np.argmax(np.ptp(places, axis=0)))
        found = [found[i] for i in np.argsort(places[:, axis])]
    return found


def measure_all(clip: Frames) -> list[Measured]:
    """Colour, shape and motion of each shape, in the order of `parts`."""
    return [measure(part.clip) for part in parts(clip)]


def way(clip: Frames) -> Floats:
    """The centroid (frames, 2) of the largest shape; NaN where there is none."""
    found = parts(clip)
    if not found:
        return np.full((len(clip), 2), np.nan)
    return max(found, key=lambda part: float(part.areas.sum())).path


def side(clip: Frames) -> int:
    """The smaller side of its frames: what errors are shares of."""
    return min(clip.shape[1:3])


def path_error(clip: Frames, wanted: Floats) -> float:
    """Mean distance of a shape from a way (frames, 2), as a share of the smaller side."""
    distances = np.linalg.norm(way(clip) - wanted, axis=1) / side(clip)
    return float(np.where(np.isnan(distances), LOST, distances).mean())


def camera_error(clip: Frames, shift: tuple[float, float], growth: float) -> float:
    """How far the picture's move is from one that shifts by `shift` (shares of the smaller side, right and down) and
    grows by the factor `growth`: the larger of the shift's error, and of what the growth's does half a side from the
    middle."""
    found = parts(clip)
    if not found:
        return LOST
    part = max(found, key=lambda one: float(one.areas.sum()))
    seen = np.flatnonzero(part.areas > 0)
    if len(seen) < 3 or seen[-1] - seen[0] < 0.7 * (len(clip) - 1):
        return LOST
    whole = (len(clip) - 1) / (seen[-1] - seen[0])
    middle = np.array(clip.shape[2:0:-1]) / 2
    grown = float(np.sqrt(part.areas[seen[-1]] / part.areas[seen[0]])) ** whole
    # About the frame's middle: what stands off it is moved by the growth alone, too.
    start, end = part.path[seen[0]] - middle, part.path[seen[-1]] - middle
    balanced = (end / grown**0.5 - start * grown**0.5) * whole / side(clip)
    return float(max(np.hypot(*(balanced - np.array(shift))), abs(grown - growth) / 2))


def outside_change(clip: Frames, source: Frames, region: NDArray[np.bool_]) -> float:
    """Mean change, in levels of 255, of what lies outside of `region` (frames, height, width)."""
    return float(np.abs(clip.astype(float) - source.astype(float))[~region].mean())


def psnr(made: NDArray[np.uint8], wanted: NDArray[np.uint8]) -> float:
    """In dB; 99 where nothing differs."""
    error = float(np.mean((made.astype(float) - wanted.astype(float)) ** 2))
    return 99.0 if error == 0 else min(99.0, float(10 * np.log10(255**2 / error)))


def stands_as(clip: Frames, wanted: Frames) -> bool:
    """Whether each shape has the name, the place and the size of that in `wanted`, whatever the colours."""
    mine, theirs = parts(clip), parts(wanted)
    if len(mine) != len(theirs) or not theirs:
        return False
    for one, other in zip(mine, theirs, strict=True):
        apart = np.linalg.norm(one.path - other.path, axis=1) / side(clip)
        if not float(np.where(np.isnan(apart), LOST, apart).mean()) <= SAME_PLACE:
            return False
        if abs(one.areas.sum() / other.areas.sum() - 1) > SAME_AREA:
            return False
        if measure(one.clip).shape != measure(other.clip).shape:
            return False
    return True


def coloured_as(clip: Frames, image: NDArray[np.uint8]) -> bool:
    """Whether the shape of a clip and its background have the colours of those in an image (height, width, 3)."""
    shown = np.repeat(image[None], 4, axis=0)
    if np.linalg.norm(background(clip) - background(shown)) > SAME_GROUND:
        return False
    mine, theirs = measure_all(clip), measure_all(shown)
    return len(mine) == 1 and len(theirs) == 1 and mine[0].colour == theirs[0].colour


def grid(clips: Sequence[Frames], period: int) -> float:
    """How much stronger differences between neighbouring pixels repeat every `period` pixels than at other distances.

    The power of the mean gradient's profile at that period, over the mean of six neighbouring frequencies; the larger
    of rows and columns. One where there is no grid. Clips are of one size, a multiple of the period.
    """
    worst = 0.0
    for axis in (1, 2):
        profiles = []
        for clip in clips:
            steps = np.abs(np.diff(clip.astype(float), axis=axis)).mean(axis=(0, 3 - axis, 3))
            profiles.append(np.append(steps, steps[-1]))
        power = np.abs(np.fft.rfft(np.mean(profiles, axis=0))) ** 2
        at = clips[0].shape[axis] // period
        around = [at + step for step in (-3, -2, -1, 1, 2, 3) if 0 < at + step < len(power)]
        worst = max(worst, float(power[at] / max(power[around].mean(), 1e-12)))
    return worst
