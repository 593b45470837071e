"""Where every pixel goes from one frame to the next."""

from collections.abc import Sequence

import numpy as np

from models.motion.boxes import corners
from models.motion.camera import to_rest
from models.motion.curves import Floats
from schemas.motion import CameraKey, Path
from schemas.shape import Shape


def middles(shape: Shape) -> Floats:
    """(height, width, 2): x and y of the middle of every pixel."""
    x, y = np.meshgrid(np.arange(shape.width) + 0.5, np.arange(shape.height) + 0.5)
    return np.stack([x, y], axis=-1)


def moved(points: Floats, homography: Floats) -> Floats:
    """(…, 2) → (…, 2); not a number where the point is behind the camera."""
    x, y, z = np.moveaxis(points @ homography[:, :2].T + homography[:, 2], -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((z > 0)[..., None], np.stack([x / z, y / z], axis=-1), np.nan)


def flow(camera: Sequence[CameraKey], paths: Sequence[Path], shape: Shape, fps: float) -> Floats:
    """(frames − 1, height, width, 2): of every pixel of every frame but the last, how far in x and y, in pixels, what
    it shows has moved in the next frame.

    The camera moves the plane at distance 1 (`models.motion.camera`); inside a path's box things move with the box, of
    overlapping ones with the last. Not a number where a pixel shows nothing of the plane, now or then.
    """
    grid = middles(shape)
    views = to_rest(camera, shape, fps)
    quads = corners(paths, shape, fps)
    out = np.empty((shape.frames - 1, shape.height, shape.width, 2))
    for frame in range(shape.frames - 1):
        at_rest = moved(grid, views[frame])
        out[frame] = moved(at_rest, np.linalg.inv(views[frame + 1])) - grid
        for now, then in zip(quads[frame], quads[frame + 1], strict=True):
            sides = np.stack([now[1] - now[0], now[3] - now[0]])
            if abs(np.linalg.det(sides)) < 1e-9:
                continue  # a point has no inside
            share = (grid - now[0]) @ np.linalg.inv(sides)
            inside = ((share >= 0) & (share <= 1)).all(axis=-1)
            ahead = then[0] + share @ np.stack([then[1] - then[0], then[3] - then[0]])
            out[frame][inside] = (ahead - grid)[inside]
    return out
