"""One look at a clip, in a process of its own: everything that is asked of its frames, in one pass over them."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from actors.decoder import opened
from evaluation.clip_measure import ground_name, measure
from evaluation.pixels import PixelStatistics
from evaluation.steadiness import mean_warp_error
from schemas.errors import MediaError

# Names under which figures are kept: another number whenever what stands behind them changes.
PIXELS, SHAPE, WARP = "pixels-1", "shape-1", "warp-1"

PICTURES = 8
"""Frames that scorers and sheets get of a clip, evenly taken."""
_PICTURE_SIDE = 384
_WARP_SIDE, _WARP_STEPS = 64, 8
_MOST_WHOLE_BYTES = 256 << 20
"""Of a clip that is looked at as a whole, decoded: what shows one shape is small."""


@dataclass(frozen=True)
class Look:
    """Figures by kind, and frames: (pictures, height, width, 3), none where none were asked for."""

    figures: dict[str, dict[str, float | str]] = field(default_factory=dict)
    pictures: NDArray[np.uint8] | None = None


def look(path: Path, frames: int, kinds: frozenset[str], pictures: bool) -> Look:
    """Decode the clip, of which `frames` are expected. Raises MediaError for what is no clip."""
    statistics = PixelStatistics() if PIXELS in kinds else None
    steps = _evenly(frames - 1, _WARP_STEPS) if WARP in kinds else ()
    warped, shown = {*steps, *(step + 1 for step in steps)}, set(_evenly(frames, PICTURES)) if pictures else set()
    whole: list[NDArray[np.uint8]] = []
    whole_bytes = 0
    thumbs: list[NDArray[np.uint8]] = []
    small: dict[int, NDArray[np.uint8]] = {}
    count, size = 0, (0, 0)
    with opened(path) as reel:
        for index, picture in enumerate(reel.pictures):
            count, size = index + 1, picture.size
            if statistics is not None:
                statistics.add(picture)
            if index in shown:
                thumbs.append(_reduced(picture, _PICTURE_SIDE))
            if index in warped:
                small[index] = _reduced(picture, _WARP_SIDE)
            if SHAPE in kinds and whole_bytes <= _MOST_WHOLE_BYTES:
                whole.append(np.asarray(picture))
                whole_bytes += whole[-1].nbytes
        fps = reel.fps
    if not count:
        raise MediaError(f"{path.name}: no pictures in it")
    found: dict[str, dict[str, float | str]] = {}
    if statistics is not None:
        about = {"width": size[0], "height": size[1], "frames": count, **({"fps": fps} if fps else {})}
        found[PIXELS] = {**statistics.result(), **about}
    if SHAPE in kinds:
        found[SHAPE] = _shape(whole) if whole and whole_bytes <= _MOST_WHOLE_BYTES else {}
    if WARP in kinds:
        error = mean_warp_error(small, steps)
        found[WARP] = {} if error is None else {"warp_error": error}
    return Look(found, np.stack(thumbs) if thumbs else None)


def _shape(frames: list[NDArray[np.uint8]]) -> dict[str, float | str]:
    seen = measure(np.stack(frames))
    place = ground_name(seen.background_rgb)
    return {"colour": seen.colour, "object": seen.shape, "motion": seen.motion, "place": place}


def _evenly(count: int, most: int) -> tuple[int, ...]:
    """Up to `most` of the first `count` indices, the first and the last among them."""
    if count <= 0:
        return ()
    return tuple(sorted({round(at) for at in np.linspace(0, count - 1, min(most, count))}))


def _reduced(picture: Image.Image, side: int) -> NDArray[np.uint8]:
    small = picture.copy()
    small.thumbnail((side, side), Image.Resampling.BOX)
    return np.asarray(small)
