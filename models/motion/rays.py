"""Where the rays of a picture's pixels run: the form in which some models are told the camera."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.motion.camera import camera_to_world, intrinsics
from schemas.motion import CameraKey
from schemas.shape import Shape


def plucker(camera: Sequence[CameraKey], shape: Shape, fps: float) -> NDArray[np.float32]:
    """(6, frames, height, width): of the ray through the middle of each pixel its moment `o × d` and its direction `d`,
    three numbers each, in the world's axes. `d` has length 1, `o` is where the camera is; conventions and units are
    those of `models.motion.camera`. This is the order of CameraCtrl, which EasyAnimate follows."""
    poses = camera_to_world(camera, shape.frames, fps)
    inverse = np.linalg.inv(intrinsics(camera, shape, fps))
    across, down = np.meshgrid(np.arange(shape.width) + 0.5, np.arange(shape.height) + 0.5)
    pixels = np.stack([across, down, np.ones_like(across)])
    out = np.empty((6, shape.frames, shape.height, shape.width), np.float32)
    for frame in range(shape.frames):  # all at once, a long clip's would be gigabytes
        rays = np.tensordot(poses[frame, :3, :3] @ inverse[frame], pixels, axes=1)
        rays /= np.linalg.norm(rays, axis=0)
        out[:3, frame] = np.cross(poses[frame, :3, 3], rays, axis=0)
        out[3:, frame] = rays
    return out
