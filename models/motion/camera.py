"""Where the camera is, frame by frame.

**Conventions** (OpenCV's): x to the right, y down, z forwards. The world's axes are the camera's at rest, and its
origin is where the camera then stands; a length of 1 is the distance to the scene. At rest the picture is as wide as
the scene is far, so that the focal length is `width` pixels (a horizontal angle of view of 53.13°). Pixels are counted
from the picture's left upper corner; the middle of the first one is (0.5, 0.5).

Where a picture has to be moved, the scene is a plane at distance 1, facing the camera at rest: nobody knows its depth.
"""

from collections.abc import Sequence

import numpy as np

from models.motion.curves import Floats, between, instants
from schemas.motion import CameraKey, absolute_camera
from schemas.shape import Shape

_SUMS = ("pan", "tilt", "roll", "dolly", "truck", "pedestal")


def camera_to_world(camera: Sequence[CameraKey], frames: int, fps: float) -> Floats:
    """(frames, 4, 4): `world = matrix @ camera` of homogeneous points. The identity for a camera at rest.

    First it is panned, then tilted, then rolled: `R = R_y(pan) R_x(tilt) R_z(roll)`. Its translation is
    (truck, −pedestal, dolly), in the world's axes. Zoom is not in it (`intrinsics`).
    """
    out = np.tile(np.eye(4), (frames, 1, 1))
    keys = absolute_camera(camera)
    if not keys:
        return out
    at = between(keys, _SUMS, "zoom", instants(frames, fps))
    pan, tilt, roll = (np.radians(at[name]) for name in ("pan", "tilt", "roll"))
    out[:, :3, :3] = _turned(pan, 0, 2) @ _turned(tilt, 2, 1) @ _turned(roll, 1, 0)
    out[:, :3, 3] = np.stack([at["truck"], -at["pedestal"], at["dolly"]], axis=1)
    return out


def _turned(angles: Floats, first: int, second: int) -> Floats:
    """Rotations (n, 3, 3) that carry the axis `second` towards the axis `first`."""
    out = np.tile(np.eye(3), (len(angles), 1, 1))
    out[:, first, first] = out[:, second, second] = np.cos(angles)
    out[:, first, second] = np.sin(angles)
    out[:, second, first] = -np.sin(angles)
    return out


def intrinsics(camera: Sequence[CameraKey], shape: Shape, fps: float) -> Floats:
    """(frames, 3, 3): from directions of the camera to pixels. The focal length is width × zoom, the same both ways;
    the principal point is the picture's middle."""
    keys = absolute_camera(camera)
    zoom = between(keys, (), "zoom", instants(shape.frames, fps))["zoom"] if keys else np.ones(shape.frames)
    out = np.zeros((shape.frames, 3, 3))
    out[:, 0, 0] = out[:, 1, 1] = shape.width * zoom
    out[:, 0, 2], out[:, 1, 2], out[:, 2, 2] = shape.width / 2, shape.height / 2, 1
    return out


def to_rest(camera: Sequence[CameraKey], shape: Shape, fps: float) -> Floats:
    """(frames, 3, 3): homographies from a pixel of each frame to the pixel that shows the same spot of the plane to a
    camera at rest. The third coordinate of the result is above 0 where the spot is before the camera."""
    poses, lenses = camera_to_world(camera, shape.frames, fps), intrinsics(camera, shape, fps)
    rest = np.array([[shape.width, 0, shape.width / 2], [0, shape.width, shape.height / 2], [0, 0, 1.0]])
    shift = poses[:, :3, 3]
    # A ray from t along d meets z = 1 at t + d (1 − t_z) / d_z.
    along = np.tile(np.eye(3), (shape.frames, 1, 1))
    along[:, :, 2] += shift / (1 - shift[:, 2:])
    return rest @ along @ poses[:, :3, :3] @ np.linalg.inv(lenses)
