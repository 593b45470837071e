"""Where the things on paths are, frame by frame, and the picture of their boxes."""

from collections.abc import Sequence
from hashlib import sha256

import numpy as np
from PIL import Image, ImageDraw

from models.motion.curves import Floats, between, instants
from schemas.motion import Path, PathGuide, absolute_path
from schemas.shape import Shape

# VACE's own layouts: outlines of two pixels, of 720 lines, on white.
_LINES = 720
_DOT = 0.055  # radius of a dot, as a share of the smaller side
_FINE = 4  # dots are drawn larger, and smooth
_GROUND = (255, 255, 255)
_COLOURS = (
    (220, 20, 60), (0, 110, 220), (20, 150, 60), (150, 40, 200),
    (240, 130, 0), (0, 150, 160), (200, 30, 140), (90, 60, 20),
)  # fmt: skip


def corners(paths: Sequence[Path], shape: Shape, fps: float) -> Floats:
    """(frames, paths, 4, 2): x and y of each box's corners in pixels from the left upper corner of the picture, in the
    order in which they are left-top, right-top, right-bottom, left-bottom while the box is not turned. Of a point the
    four are the same. Turning is in pixels, so that a box keeps its shape."""
    size = np.array([shape.width, shape.height], np.float64)
    out = np.zeros((shape.frames, len(paths), 4, 2))
    for number, path in enumerate(paths):
        whole = absolute_path(path)
        at = between(whole.keys, ("x", "y", "rotation"), "scale", instants(shape.frames, fps))
        left, top, right, bottom = path.box or (0.0, 0.0, 0.0, 0.0)
        half = np.array([right - left, bottom - top]) * size / 2
        square = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half
        cos, sin = np.cos(np.radians(at["rotation"])), np.sin(np.radians(at["rotation"]))
        # Clockwise, as y goes down.
        turn = np.stack([np.stack([cos, sin], axis=1), np.stack([-sin, cos], axis=1)], axis=1)
        centres = np.stack([at["x"], at["y"]], axis=1) * size
        out[:, number] = centres[:, None] + (square @ turn) * at["scale"][:, None, None]
    return out


def boxes(paths: Sequence[Path], shape: Shape, fps: float) -> Floats:
    """(frames, paths, 4): left, top, right, bottom of what encloses each thing, in pixels. May reach beyond the
    picture. Of a point both corners are the same."""
    found = corners(paths, shape, fps)
    return np.concatenate([found.min(axis=2), found.max(axis=2)], axis=2)


def colour_of(label: str) -> tuple[int, int, int]:
    """The colour of a label's outlines: the same in every clip."""
    return _COLOURS[sha256(label.encode()).digest()[0] % len(_COLOURS)]


def drawn(paths: Sequence[Path], shape: Shape, fps: float, look: PathGuide = PathGuide.BOXES) -> list[Image.Image]:
    """The paths as a video of `shape`. BOXES: outlines on white, points as discs, later paths over earlier ones. DOTS:
    white discs on black, at the middle of each thing."""
    if look is PathGuide.DOTS:
        return [_dots(quads, shape) for quads in corners(paths, shape, fps)]
    thick = max(2, round(2 * min(shape.width, shape.height) / _LINES))
    frames = []
    for quads in corners(paths, shape, fps):
        frame = Image.new("RGB", (shape.width, shape.height), _GROUND)
        pen = ImageDraw.Draw(frame)
        for path, quad in zip(paths, quads, strict=True):
            colour = colour_of(path.label)
            # Middles of pixels have whole numbers here.
            points = [(float(x) - 0.5, float(y) - 0.5) for x, y in quad]
            if path.point is not None:
                (x, y), radius = points[0], 2 * thick
                pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
            else:
                pen.polygon(points, outline=colour, width=thick)
        frames.append(frame)
    return frames


def _dots(quads: Floats, shape: Shape) -> Image.Image:
    frame = Image.new("L", (shape.width * _FINE, shape.height * _FINE))
    pen = ImageDraw.Draw(frame)
    radius = _DOT * min(shape.width, shape.height) * _FINE
    for x, y in quads.mean(axis=1) * _FINE:
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    return frame.resize((shape.width, shape.height), Image.Resampling.BOX).convert("RGB")
