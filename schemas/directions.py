"""Which way a camera goes, where it goes one way throughout a clip.

Some weights know directions and no amounts: AnimateDiff's motion LoRAs are for a camera that pans to the left, or zooms
in, as far as they learned it. What such a variant can be asked for is decided here.
"""

import math
from collections.abc import Collection, Iterator, Sequence
from enum import StrEnum

from schemas.errors import Issue
from schemas.motion import CameraKey, absolute_camera

# Keys on an even way are as exact as people write seconds and degrees.
_EVEN = 0.005


class Direction(StrEnum):
    """A way of the camera, not of the picture, which goes the other way: what is seen turns anticlockwise where the
    camera rolls clockwise."""

    ZOOM_IN = "zoom_in"
    ZOOM_OUT = "zoom_out"
    PAN_LEFT = "pan_left"
    PAN_RIGHT = "pan_right"
    TILT_UP = "tilt_up"
    TILT_DOWN = "tilt_down"
    ROLL_CLOCKWISE = "roll_clockwise"
    ROLL_ANTICLOCKWISE = "roll_anticlockwise"


# Where a key's number becomes smaller, and where it becomes larger.
_WAYS = {
    "zoom": (Direction.ZOOM_OUT, Direction.ZOOM_IN),
    "pan": (Direction.PAN_LEFT, Direction.PAN_RIGHT),
    "tilt": (Direction.TILT_DOWN, Direction.TILT_UP),
    "roll": (Direction.ROLL_ANTICLOCKWISE, Direction.ROLL_CLOCKWISE),
}
_AXES = (*_WAYS, "dolly", "truck", "pedestal")


def direction_of(camera: Sequence[CameraKey]) -> Direction | None:
    """The way of absolute keys at their end; None where that is none, or along several axes."""
    axes = moved_axes(camera)
    if len(axes) != 1 or axes[0] not in _WAYS or _away(camera[-1], axes[0]) == 0:
        return None
    return _WAYS[axes[0]][_away(camera[-1], axes[0]) > 0]


def direction_issues(
    keys: Sequence[CameraKey], known: Collection[Direction], frames: int, fps: float
) -> tuple[Issue, ...]:
    """What keeps weights that know these directions from following a request's `keys` in a clip of so many frames.

    Followed is a camera that rests at 0 s and then goes evenly, along one axis in one direction, until the clip ends.
    """
    if not keys:
        return ()
    return tuple(Issue(path, text, "direction", tuple(known)) for path, text in _wrong(keys, known, frames, fps))


def _wrong(
    keys: Sequence[CameraKey], known: Collection[Direction], frames: int, fps: float
) -> Iterator[tuple[str, str]]:
    camera = absolute_camera(keys)
    axes = moved_axes(camera)
    if not axes:
        yield "camera", "says that the camera rests, and only ways to go are known"
        return
    if len(axes) > 1:
        yield "camera", f"goes along {' and '.join(axes)}, and one axis at a time is followed"
        return
    (axis,), end = axes, camera[-1]
    if _away(camera[0], axis):
        yield "camera.0", "the clip begins where the camera stands: there it rests at 0 s"
        return
    way = direction_of(camera)
    if way not in known:
        asked = way.value.replace("_", " ") if way is not None else f"{axis} that returns" if axis in _WAYS else axis
        yield "camera", f"{asked} is no way that it knows"
        return
    extra = len(camera) - len(keys)
    for number, key in enumerate(camera[1:], 1):
        path = f"camera.{number - extra}"
        share = _away(key, axis) / _away(end, axis)
        if abs(share - key.at_s / end.at_s) > _EVEN:
            yield path, f"{axis} is {getattr(key, axis):g} at {key.at_s:g} s, and only an even way is followed"
            return
        if key.ease[0] != key.ease[1] or key.ease[2] != key.ease[3]:
            yield f"{path}.ease", "only an even way is followed, which is linear"
            return
    if round(end.at_s * fps) < frames - 1:
        whole = f"only a way until the clip's end is followed, at {frames / fps:g} s"
        yield f"camera.{len(keys) - 1}.at_s", f"stops at {end.at_s:g} s: {whole}"


def moved_axes(camera: Sequence[CameraKey]) -> tuple[str, ...]:
    """The axes along which absolute keys go anywhere from rest."""
    return tuple(axis for axis in _AXES if any(_away(key, axis) for key in camera))


def _away(key: CameraKey, axis: str) -> float:
    """How far from rest, so that an even way passes equal amounts in equal times."""
    value = getattr(key, axis)
    return math.log(value) if axis == "zoom" else float(value)
