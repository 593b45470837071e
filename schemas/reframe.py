"""A camera of last resort: a window that moves through a picture that was rendered larger.

The picture is what a camera at rest sees. The window shows of it what the same camera, turned and zoomed, would see,
for which no depth is needed. It is as large as it can be without leaving the picture anywhere on its way, so that
nothing is invented. `models.motion` has the conventions, and the same numbers as arrays.
"""

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import lru_cache

from schemas.motion import Bezier, CameraKey, absolute_camera
from schemas.shape import Shape

LEAST_SHARE = 0.2
"""Of the picture's sides: a smaller window would be a blur."""
_TURNS = ("pan", "tilt", "roll")
_SHIFTS = ("dolly", "truck", "pedestal")
_HALVINGS = 45
_HAIR = 1e-9


def reframe_wrong(camera: Sequence[CameraKey]) -> str | None:
    """What keeps a window from following these keys; None where it can."""
    keys = absolute_camera(camera)
    shifted = [name for name in _SHIFTS if any(getattr(key, name) for key in keys)]
    if shifted:
        return f"a window turns and zooms: {shifted[0]} is for variants that follow a camera"
    first = keys[0]
    if all(getattr(key, name) == getattr(first, name) for key in keys for name in _TURNS) and all(
        key.zoom == first.zoom for key in keys
    ):
        return "the camera stands still: say where it goes"
    return None


def window_sides(shape: Shape, proportion: float) -> tuple[float, float]:
    """(width, height) in pixels of the largest window of a proportion, width over height."""
    return min(shape.width, shape.height * proportion), min(shape.height, shape.width / proportion)


@lru_cache(maxsize=1024)
def window_share(camera: tuple[CameraKey, ...], shape: Shape, fps: float, proportion: float) -> float:
    """By what the largest window of a proportion has to be made smaller (0 to 1) to stay in pictures of this shape all
    the way, where the camera's zoom is the least on its way; 0 where its middle leaves them."""
    wide, high = window_sides(shape, proportion)
    width = shape.width
    edges = (0.5, shape.height / (2 * width))  # of the picture, at distance 1
    keys = absolute_camera(camera)
    zooms = [key.zoom or 1.0 for key in keys]
    least = min(zooms)
    share = 1.0
    for turn, zoom in _views(keys, shape.frames, fps):
        for across in (-0.5, 0.5):
            for down in (-0.5, 0.5):
                # A corner of the window lies along turn @ (share x, share y, 1).
                x, y = across * wide * least / (width * zoom), down * high * least / (width * zoom)
                rate = [row[0] * x + row[1] * y for row in turn]
                for axis, edge in enumerate(edges):
                    for sign in (-1.0, 1.0):
                        # sign (share rate + turn_2) <= edge (share rate_z + turn_z), which is before the camera.
                        slope = sign * rate[axis] - edge * rate[2]
                        room = edge * turn[2][2] - sign * turn[axis][2]
                        if room < 0:
                            return 0.0
                        if slope * share > room:
                            share = room / slope
    return max(0.0, share - _HAIR)


Turn = tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]


def _views(keys: Sequence[CameraKey], frames: int, fps: float) -> Iterator[tuple[Turn, float]]:
    """(rotation, zoom) of each frame."""
    starts = [key.at_s for key in keys]
    for frame in range(frames):
        at_s = frame / fps
        after = bisect_right(starts, at_s)
        key = keys[min(after, len(keys) - 1)]
        before = keys[after - 1]
        done = 0.0 if key is before else _eased((at_s - before.at_s) / (key.at_s - before.at_s), key.ease)
        pan, tilt, roll = (
            math.radians(_of(before, name) + done * (_of(key, name) - _of(before, name))) for name in _TURNS
        )
        low, high = math.log(before.zoom or 1.0), math.log(key.zoom or 1.0)
        yield _turn(pan, tilt, roll), math.exp(low + done * (high - low))


def _of(key: CameraKey, name: str) -> float:
    return float(getattr(key, name) or 0.0)


def _turn(pan: float, tilt: float, roll: float) -> Turn:
    """R_y(pan) R_x(tilt) R_z(roll), as `models.motion.camera`."""
    (cp, sp), (ct, st), (cr, sr) = ((math.cos(one), math.sin(one)) for one in (pan, tilt, roll))
    tilted = ((cr, -sr, 0.0), (ct * sr, ct * cr, -st), (st * sr, st * cr, ct))  # R_x R_z
    top = tuple(cp * a + sp * b for a, b in zip(tilted[0], tilted[2], strict=True))
    last = tuple(cp * b - sp * a for a, b in zip(tilted[0], tilted[2], strict=True))
    return (top[0], top[1], top[2]), tilted[1], (last[0], last[1], last[2])


def _eased(share: float, ease: Bezier) -> float:
    x1, y1, x2, y2 = ease
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if _bezier(middle, x1, x2) > share else (middle, high)
    return _bezier((low + high) / 2, y1, y2)


def _bezier(t: float, first: float, second: float) -> float:
    rest = 1 - t
    return 3 * rest * rest * t * first + 3 * rest * t * t * second + t**3
