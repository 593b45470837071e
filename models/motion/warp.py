"""A picture as the moving camera sees it."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from models.motion.camera import camera_to_world, intrinsics, to_rest
from models.motion.curves import Floats
from schemas.motion import CameraKey
from schemas.reframe import window_share, window_sides
from schemas.shape import Shape


def warped(
    pictures: Sequence[Image.Image], camera: Sequence[CameraKey], shape: Shape, fps: float, ground: tuple[int, int, int]
) -> tuple[list[Image.Image], list[npt.NDArray[np.bool_]]]:
    """(frame k of `pictures` as the camera sees it in frame k, where it shows something of it).

    `pictures` are as many as the frames, in the clip's size, and of RGB; each lies in the plane at distance 1 as a
    camera at rest saw it. Around it there is `ground`. The second are (height, width) each.
    """
    frames, seen = [], []
    around = Image.new("RGB", (shape.width, shape.height), ground)
    for picture, view in zip(pictures, to_rest(camera, shape, fps), strict=True):
        there = _covered(view, shape)
        shown = _moved(picture, view)
        frames.append(shown if there.all() else Image.composite(shown, around, Image.fromarray(there)))
        seen.append(there)
    return frames, seen


def edged(
    picture: Image.Image, camera: Sequence[CameraKey], shape: Shape, fps: float, frames: Sequence[int]
) -> list[Image.Image]:
    """`picture` as the camera sees it at each of `frames`, its edges repeated where it shows nothing of it."""
    source = np.asarray(picture)
    views = to_rest(camera, shape, fps)
    out = []
    for frame in frames:
        x, y, z = _at_rest(views[frame], shape)
        there, z = _covered(views[frame], shape), np.maximum(z, 1e-6)
        column = np.clip(x / z, 0, shape.width - 1).astype(int)
        row = np.clip(y / z, 0, shape.height - 1).astype(int)
        pixels = np.where(there[..., None], np.asarray(_moved(picture, views[frame])), source[row, column])
        out.append(Image.fromarray(pixels))
    return out


def reframed(
    frames: npt.NDArray[np.uint8], camera: Sequence[CameraKey], fps: float, width: int, height: int
) -> npt.NDArray[np.uint8]:
    """(frames, height, width, 3): what a window shows that moves through the pictures (frames, h, w, 3) as the camera
    turns and zooms, as large as `schemas.reframe` says."""
    shape = Shape(width=frames.shape[2], height=frames.shape[1], frames=len(frames))
    proportion = width / height
    share = window_share(tuple(camera), shape, fps, proportion)
    wide, high = (side * share for side in window_sides(shape, proportion))
    # What is shrunk is resampled at the pictures' own scale first, so that nothing is skipped.
    across, down = max(width, math.ceil(wide)), max(height, math.ceil(high))
    zooms = intrinsics(camera, shape, fps)[:, 0, 0] / shape.width
    near = zooms / zooms.min()
    to_picture = np.array([[wide / across, 0, -wide / 2], [0, high / down, -high / 2], [0, 0, shape.width]])
    rest = np.array([[shape.width, 0, shape.width / 2], [0, shape.width, shape.height / 2], [0, 0, 1.0]])
    turns = camera_to_world(camera, shape.frames, fps)[:, :3, :3]
    out = np.empty((len(frames), height, width, 3), np.uint8)
    for number, (picture, turn, nearer) in enumerate(zip(frames, turns, near, strict=True)):
        view = rest @ turn @ np.diag([1 / nearer, 1 / nearer, 1.0]) @ to_picture
        shown = _seen(Image.fromarray(picture), view, (across, down))
        out[number] = np.asarray(
            shown if shown.size == (width, height) else shown.resize((width, height), Image.Resampling.LANCZOS)
        )
    return out


def _moved(picture: Image.Image, view: Floats) -> Image.Image:
    return _seen(picture, view, picture.size)


def _seen(picture: Image.Image, view: Floats, size: tuple[int, int]) -> Image.Image:
    # Pillow wants the last coefficient to be one.
    last = view[2, 2] if abs(view[2, 2]) > 1e-9 else 1e-9
    coefficients = tuple((view / last).flatten()[:8])
    return picture.transform(size, Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BICUBIC)


def _covered(view: Floats, shape: Shape) -> npt.NDArray[np.bool_]:
    """(height, width): whether the pixel shows a spot of the picture."""
    # A hair of tolerance: a picture that nobody moved is whole.
    hair = 1e-3
    x, y, z = _at_rest(view, shape)
    inside = (z > 0) & (x >= -hair) & (y >= -hair)
    return inside & (x <= z * (shape.width + hair)) & (y <= z * (shape.height + hair))


def _at_rest(view: Floats, shape: Shape) -> tuple[npt.NDArray[np.float32], ...]:
    """(x, y, z), (height, width) each: the homogeneous spot that each pixel shows."""
    across = np.arange(shape.width, dtype=np.float32)[None] + 0.5
    down = np.arange(shape.height, dtype=np.float32)[:, None] + 0.5
    return tuple(row[0] * across + (row[1] * down + row[2]) for row in view.astype(np.float32))
