"""The drawn domain of the embedded model: solid shapes that move over plain backgrounds.

A `Scene` is what a clip shows; `draw` turns it into frames, `captions.caption` into a sentence. Lengths are
in pixels, colours 8-bit RGB, y grows downwards. Everything random comes from the `numpy` generator passed in.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]
"""(frames, height, width, 3), 8-bit RGB."""

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (226, 38, 38),
    "orange": (245, 138, 20),
    "yellow": (246, 226, 42),
    "green": (42, 176, 62),
    "cyan": (44, 208, 220),
    "blue": (40, 82, 232),
    "purple": (138, 48, 200),
    "pink": (250, 122, 190),
}
UNSEEN_COLOURS: dict[str, tuple[int, int, int]] = {"lime": (158, 232, 30)}
"""Drawable, but never part of pretraining: what a fine-tuning has to add."""

BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "black": (18, 18, 20),
    "white": (238, 238, 235),
    "gray": (118, 118, 122),
    "navy": (22, 32, 84),
    "brown": (98, 66, 42),
    "teal": (18, 92, 92),
    "beige": (226, 210, 172),
    "maroon": (88, 20, 42),
    "olive": (86, 92, 32),
    "lavender": (192, 182, 222),
}
SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "star")
UNSEEN_SHAPES: tuple[str, ...] = ("cross", "ring")
"""Drawable, but never part of pretraining: what a fine-tuning has to add."""

DIRECTIONS: dict[str, tuple[float, float]] = {
    "left": (-1.0, 0.0),
    "right": (1.0, 0.0),
    "up": (0.0, -1.0),
    "down": (0.0, 1.0),
    "up-left": (-0.7071, -0.7071),
    "up-right": (0.7071, -0.7071),
    "down-left": (-0.7071, 0.7071),
    "down-right": (0.7071, 0.7071),
}
MOTIONS: tuple[str, ...] = (*DIRECTIONS, "circling", "growing", "shrinking", "spinning", "still")
SPEEDS: dict[str, tuple[float, float]] = {"slow": (0.55, 0.7), "medium": (0.9, 1.1), "fast": (1.35, 1.55)}
"""Named speeds as a range of multiples of the usual travel."""

FPS = 8
FRAMES = 17
CANVASES: tuple[tuple[int, int], ...] = ((64, 64), (96, 64), (64, 96))
"""(width, height) of the three trained canvases."""

OFF_CENTRE_PX = 4.0
"""How far the middle of a path lies from the canvas's. Prompts do not say where, and what they do not say costs a
small model most of its capacity."""

_MIN_CONTRAST = 110.0  # Euclidean RGB distance below which a shape is lost on its background
_HELD_OUT_EIGHTHS = 1


@dataclass(frozen=True)
class Actor:
    """One moving shape. `path` is the centre in pixels per frame, `radius` in pixels, `angle` in radians."""

    shape: str
    colour: str
    motion: str
    speed: str
    path: NDArray[np.float32]
    radius: NDArray[np.float32]
    angle: NDArray[np.float32]


@dataclass(frozen=True)
class Scene:
    """What one clip shows."""

    actors: tuple[Actor, ...]
    background: str
    width: int
    height: int
    frames: int


def held_out(colour: str, shape: str, motion: str) -> bool:
    """Whether this combination is kept from training: one in eight, by a stable hash of its words."""
    return zlib.crc32(f"{colour}/{shape}/{motion}".encode()) % 8 < _HELD_OUT_EIGHTHS


def combinations(*, held: bool) -> list[tuple[str, str, str]]:
    """Every (colour, shape, motion) that is held out of training, or every one that is not."""
    return [
        (colour, shape, motion)
        for colour in COLOURS
        for shape in SHAPES
        for motion in MOTIONS
        if held_out(colour, shape, motion) is held and not (shape == "circle" and motion == "spinning")
    ]


def contrasts(colour: str, background: str) -> bool:
    """Whether the colour can be told from the background."""
    a, b = np.array((COLOURS | UNSEEN_COLOURS)[colour], float), np.array(BACKGROUNDS[background], float)
    return float(np.linalg.norm(a - b)) >= _MIN_CONTRAST


def _near_middle(rng: np.random.Generator, low: float, high: float) -> float:
    """Uniform, at most `OFF_CENTRE_PX` from the middle of the range and never outside it."""
    room = min(OFF_CENTRE_PX, max(0.0, (high - low) / 2))
    return (low + high) / 2 + float(rng.uniform(-room, room))


def move(
    rng: np.random.Generator,
    shape: str,
    colour: str,
    motion: str,
    *,
    width: int,
    height: int,
    frames: int = FRAMES,
    speed: str = "medium",
    size: float = 1.0,
) -> Actor:
    """Draw the free parameters of one moving shape: where it starts, how large it is, how far it goes."""
    base = float(rng.uniform(10.0, 14.5)) * size
    pace = float(rng.uniform(*SPEEDS[speed]))
    steps = np.linspace(0.0, 1.0, frames, dtype=np.float32)
    radius = np.full(frames, base, np.float32)
    angle = np.zeros(frames, np.float32)
    path = np.empty((frames, 2), np.float32)
    reach = base * 1.15
    if motion in DIRECTIONS:
        direction = np.array(DIRECTIONS[motion], np.float32)
        travel = 20.0 * pace * min(width, height) / 64
        half = direction * travel / 2
        x = _near_middle(rng, reach + abs(half[0]), width - reach - abs(half[0]))
        y = _near_middle(rng, reach + abs(half[1]), height - reach - abs(half[1]))
        path[:] = np.array([x, y], np.float32) + (steps[:, None] - 0.5) * 2 * half
    elif motion == "circling":
        orbit = float(rng.uniform(9.0, 13.0))
        phase = float(rng.uniform(-0.3, 0.3)) - np.pi / 2 + steps * 2 * np.pi * pace
        x = _near_middle(rng, reach + orbit, width - reach - orbit)
        y = _near_middle(rng, reach + orbit, height - reach - orbit)
        path[:, 0], path[:, 1] = x + orbit * np.cos(phase), y + orbit * np.sin(phase)
    else:
        if motion in ("growing", "shrinking"):
            change = 1 + 0.9 * min(pace, 1.3)
            curve = steps if motion == "growing" else 1 - steps
            base = base * 0.72
            radius = (base * (1 + (change - 1) * curve)).astype(np.float32)
            reach = float(radius.max()) * 1.15
        elif motion == "spinning":
            angle = (steps * np.pi * pace).astype(np.float32)
            reach = base * 1.3
        elif motion != "still":
            raise ValueError(f"unknown motion {motion!r}; available: {', '.join(MOTIONS)}")
        path[:, 0] = _near_middle(rng, reach, width - reach)
        path[:, 1] = _near_middle(rng, reach, height - reach)
    return Actor(shape, colour, motion, speed, path, radius, angle)


def _polygon_distance(
    x: NDArray[np.float32], y: NDArray[np.float32], corners: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Signed distance to a polygon (negative inside), after Quilez, "2D distance functions"."""
    distance = np.full(x.shape, 1e9, np.float32)
    inside = np.zeros(x.shape, bool)
    for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        ex, ey = bx - ax, by - ay
        wx, wy = x - ax, y - ay
        t = np.clip((wx * ex + wy * ey) / (ex * ex + ey * ey), 0, 1)
        distance = np.minimum(distance, (wx - ex * t) ** 2 + (wy - ey * t) ** 2)
        crosses = (ay > y) != (by > y)
        if ey:
            inside ^= crosses & (x < ex * (y - ay) / ey + ax)
    root = np.sqrt(distance)
    return np.where(inside, -root, root)


def _ring_of_corners(count: int, radii: tuple[float, ...]) -> NDArray[np.float32]:
    """Corners at equal angles from the top, their radii repeating."""
    angles = np.arange(count) * 2 * np.pi / count
    r = np.resize(np.array(radii), count)
    return np.stack([r * np.sin(angles), -r * np.cos(angles)], axis=1).astype(np.float32)


_CORNERS: dict[str, NDArray[np.float32]] = {
    "square": np.array([[-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]], np.float32),
    "triangle": _ring_of_corners(3, (1.28,)) + np.array([0, 0.12], np.float32),
    "star": _ring_of_corners(10, (1.32, 0.56)),
    "cross": np.array(
        [(-.38, -1.1), (.38, -1.1), (.38, -.38), (1.1, -.38), (1.1, .38), (.38, .38),
         (.38, 1.1), (-.38, 1.1), (-.38, .38), (-1.1, .38), (-1.1, -.38), (-.38, -.38)], np.float32),
}  # fmt: skip
"""Corners in units of the radius, sized so that the shapes look equally large."""


def _distance(shape: str, x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.float32]:
    """Signed distance in units of the radius."""
    if shape == "circle":
        return np.hypot(x, y) - np.float32(1.0)
    if shape == "ring":
        return np.abs(np.hypot(x, y) - np.float32(0.8)) - np.float32(0.28)
    if shape not in _CORNERS:
        raise ValueError(f"unknown shape {shape!r}; available: {', '.join((*SHAPES, *UNSEEN_SHAPES))}")
    return _polygon_distance(x, y, _CORNERS[shape])


def coverage(actor: Actor, width: int, height: int) -> NDArray[np.float32]:
    """The share of each pixel that the actor covers, (frames, height, width)."""
    cx, cy = actor.path[:, 0, None, None], actor.path[:, 1, None, None]
    dx = np.arange(width, dtype=np.float32)[None, None, :] + np.float32(0.5) - cx
    dy = np.arange(height, dtype=np.float32)[None, :, None] + np.float32(0.5) - cy
    r = actor.radius[:, None, None]
    if actor.angle.any():
        cos, sin = np.cos(actor.angle)[:, None, None], np.sin(actor.angle)[:, None, None]
        dx, dy = dx * cos + dy * sin, dy * cos - dx * sin
    x, y = np.broadcast_arrays(dx / r, dy / r)
    return np.clip(np.float32(0.5) - _distance(actor.shape, x, y) * r, 0, 1)


def draw(scene: Scene) -> Frames:
    """The clip, anti-aliased; later actors cover earlier ones."""
    shape = (scene.frames, scene.height, scene.width, 3)
    canvas = np.broadcast_to(np.array(BACKGROUNDS[scene.background], np.float32), shape)
    for actor in scene.actors:
        alpha = coverage(actor, scene.width, scene.height)[..., None]
        canvas = canvas + alpha * (np.array((COLOURS | UNSEEN_COLOURS)[actor.colour], np.float32) - canvas)
    return np.rint(canvas).astype(np.uint8)


def frames_at(scene: Scene, indices: Sequence[int]) -> Scene:
    """The same scene, at some of its frames only."""
    chosen = list(indices)
    actors = tuple(
        replace(a, path=a.path[chosen], radius=a.radius[chosen], angle=a.angle[chosen]) for a in scene.actors
    )
    return replace(scene, actors=actors, frames=len(chosen))


def sample(
    rng: np.random.Generator,
    *,
    width: int = 64,
    height: int = 64,
    frames: int = FRAMES,
    pairs: float = 0.0,
    shapes: tuple[str, ...] = SHAPES,
    motions: tuple[str, ...] = MOTIONS,
    speeds: tuple[str, ...] = ("medium", "medium", "slow", "fast"),
) -> Scene:
    """A random scene of the training distribution; no held-out combination is ever drawn.

    `pairs` is the share of clips with two (smaller) shapes; a combination counts as held out for either.
    """
    count = 2 if rng.random() < pairs else 1
    background = str(rng.choice(list(BACKGROUNDS)))
    actors: list[Actor] = []
    while len(actors) < count:
        colour, shape, motion = (str(rng.choice(list(c))) for c in (COLOURS, shapes, motions))
        if held_out(colour, shape, motion) or not contrasts(colour, background):
            continue
        if shape in ("circle", "ring") and motion == "spinning":
            continue
        if any(colour == other.colour for other in actors):
            continue
        speed = str(rng.choice(speeds))
        size = 0.72 if count == 2 else 1.0
        actors.append(
            move(rng, shape, colour, motion, width=width, height=height, frames=frames, speed=speed, size=size)
        )
    return Scene(tuple(actors), background, width, height, frames)
