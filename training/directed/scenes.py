"""What the shots of the directed model show, and what may be said of them: one or two shapes, and a camera.

Lengths are in pixels, y grows downwards; sizes and ways are shares of the smaller side, so that all canvases look
alike. What neither prompt nor condition says varies little: it costs a small model most of its capacity.
"""

import math
import zlib
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from training.drawing import (
    BACKGROUNDS,
    COLOURS,
    DIRECTIONS,
    MOTIONS,
    SHAPES,
    SPEEDS,
    Actor,
    Scene,
    contrasts,
    held_out,
)

Way = NDArray[np.float32]

CANVASES: tuple[tuple[int, int], ...] = ((128, 128), (160, 96), (96, 160))
"""(width, height); both sides divide by 32."""
FRAMES = 17
CAMERAS: dict[str, tuple[float, float, float]] = {
    "pan-left": (0.3, 0.0, 1.0),
    "pan-right": (-0.3, 0.0, 1.0),
    "pan-up": (0.0, 0.3, 1.0),
    "pan-down": (0.0, -0.3, 1.0),
    "zoom-in": (0.0, 0.0, 1.6),
    "zoom-out": (0.0, 0.0, 0.625),
}
"""What the picture does over the clip: its shift, in shares of the smaller side, and its growth. A camera that pans to
the left sees everything move to the right."""

TASKS: dict[str, float] = {
    "text": 0.38,
    "camera": 0.08,
    "path": 0.11,
    "mask": 0.14,
    "first": 0.06,
    "last": 0.05,
    "ends": 0.04,
    "structure": 0.10,
    "style": 0.06,
}
"""Kinds of shots, and how often training draws each. `ends` gives the first and the last frame."""
PAIR_SIZE = 1.15
"""How much larger each of two shapes is for its half of the canvas than one shape is for the whole."""


@dataclass(frozen=True)
class Shot:
    """A scene, the kind of shot it is, the camera's move, which is already in the actors' ways, and the actor that a
    mask asks for."""

    scene: Scene
    task: str
    camera: str = ""
    edited: int | None = None


@dataclass(frozen=True)
class Field:
    """The part of a canvas that one actor keeps to, in pixels."""

    x: float
    y: float
    width: float
    height: float

    @property
    def unit(self) -> float:
        """The length that sizes and ways are shares of."""
        return min(self.width, self.height)


def fields(width: int, height: int, actors: int) -> tuple[Field, ...]:
    """The whole canvas for one actor, its halves for two: side by side, or one above the other where it is tall."""
    if actors == 1:
        return (Field(0, 0, width, height),)
    if width >= height:
        return (Field(0, 0, width / 2, height), Field(width / 2, 0, width / 2, height))
    return (Field(0, 0, width, height / 2), Field(0, height / 2, width, height / 2))


def _middle(rng: np.random.Generator, field: Field, reach: tuple[float, float], spread: float) -> tuple[float, float]:
    """A point near the field's middle: at most `spread` units off, and `reach` (x, y) away from its edges."""
    out = []
    for start, side, room in ((field.x, field.width, reach[0]), (field.y, field.height, reach[1])):
        most = min(spread * field.unit, max(0.0, side / 2 - room))
        out.append(start + side / 2 + float(rng.uniform(-most, most)))
    return out[0], out[1]


def act(
    rng: np.random.Generator,
    shape: str,
    colour: str,
    motion: str,
    field: Field,
    *,
    frames: int = FRAMES,
    speed: str = "medium",
    size: float = 1.0,
    spread: float = 0.04,
    pace: float | None = None,
) -> Actor:
    """One shape that does `motion` within `field`; `spread` is how far off its middle, and how far its size varies.
    Its pace is drawn from those of its speed, unless it is said."""
    unit = field.unit
    base = (
        (0.185 if field.width == field.height else 0.21) * unit * size * float(rng.uniform(1 - 2 * spread, 1 + spread))
    )
    pace = float(rng.uniform(*SPEEDS[speed])) if pace is None else pace
    steps = np.linspace(0.0, 1.0, frames, dtype=np.float32)
    radius, angle = np.full(frames, base, np.float32), np.zeros(frames, np.float32)
    path = np.empty((frames, 2), np.float32)
    reach = base * 1.3
    if motion in DIRECTIONS:
        half = np.array(DIRECTIONS[motion], np.float32) * 0.32 * unit * pace / 2
        middle = _middle(rng, field, (reach + abs(half[0]), reach + abs(half[1])), spread)
        path[:] = np.array(middle, np.float32) + (steps[:, None] - 0.5) * 2 * half
    elif motion == "circling":
        orbit = 0.17 * unit
        phase = -np.pi / 2 + steps * 2 * np.pi * pace
        middle = _middle(rng, field, (reach + orbit, reach + orbit), spread)
        path[:, 0], path[:, 1] = middle[0] + orbit * np.cos(phase), middle[1] + orbit * np.sin(phase)
    elif motion in MOTIONS:
        if motion in ("growing", "shrinking"):
            change = 1 + 0.9 * min(pace, 1.3)
            radius = (0.72 * base * (1 + (change - 1) * (steps if motion == "growing" else 1 - steps))).astype(
                np.float32
            )
            reach = float(radius.max()) * 1.3
        elif motion == "spinning":
            angle = (steps * np.pi * pace).astype(np.float32)
        path[:] = _middle(rng, field, (reach, reach), spread)
    else:
        raise ValueError(f"unknown motion {motion!r}; available: {', '.join(MOTIONS)}")
    return Actor(shape, colour, motion, speed, path, radius, angle)


def wander(rng: np.random.Generator, field: Field, reach: float, frames: int) -> Way:
    """A smooth way (frames, 2) at an even pace, `reach` away from the field's edges: a Bézier curve."""
    low = np.array([field.x + reach, field.y + reach])
    high = np.array([field.x + field.width - reach, field.y + field.height - reach])
    t = np.linspace(0, 1, 200)[:, None]
    while True:
        points = rng.uniform(low, high, size=(int(rng.integers(2, 5)), 2))
        order = len(points) - 1
        curve = sum(math.comb(order, k) * t**k * (1 - t) ** (order - k) * point for k, point in enumerate(points))
        walked = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1))])
        if walked[-1] >= 0.3 * field.unit:
            even = np.linspace(0, walked[-1], frames)
            return np.stack([np.interp(even, walked, curve[:, i]) for i in (0, 1)], axis=1).astype(np.float32)


def filmed(scene: Scene, camera: str) -> Scene:
    """The scene as that camera sees it, its move being spread evenly over the clip around the middle of it."""
    dx, dy, growth = CAMERAS[camera]
    unit, middle = min(scene.width, scene.height), np.array([scene.width / 2, scene.height / 2], np.float32)
    steps = np.linspace(-0.5, 0.5, scene.frames, dtype=np.float32)
    shift = np.stack([steps * dx * unit, steps * dy * unit], axis=1)
    scale = np.exp(steps * np.log(growth)).astype(np.float32)
    actors = tuple(
        replace(a, path=middle + (a.path - middle) * scale[:, None] + shift, radius=a.radius * scale)
        for a in scene.actors
    )
    return replace(scene, actors=actors)


def words(
    rng: np.random.Generator, background: str, taken: tuple[Actor, ...], motions: tuple[str, ...]
) -> tuple[str, str, str]:
    """Colour, shape and motion that training may draw: seen combinations that can be told from what is there."""
    while True:
        colour, shape, motion = (str(rng.choice(list(c))) for c in (COLOURS, SHAPES, motions))
        if held_out(colour, shape, motion) or not contrasts(colour, background):
            continue
        if (shape == "circle" and motion == "spinning") or any(colour == other.colour for other in taken):
            continue
        return colour, shape, motion


def withheld(colour: str, background: str) -> bool:
    """Whether this pair of colours is kept from the references of training: one in eight."""
    return zlib.crc32(f"style/{colour}/{background}".encode()) % 8 == 0


def sample(
    rng: np.random.Generator,
    task: str,
    *,
    width: int = 128,
    height: int = 128,
    frames: int = FRAMES,
    pairs: float = 0.4,
) -> Shot:
    """A random shot of that kind from the training distribution. `pairs` is the share of shots with two shapes where
    one would do; of masked shots, seven in ten have two."""
    background = str(rng.choice(list(BACKGROUNDS)))
    share = {"mask": 0.7, "text": pairs, "structure": pairs, "first": pairs, "ends": pairs}.get(task, 0.0)
    count = 2 if rng.random() < share else 1
    motions = ("still",) if task in ("camera", "path") else MOTIONS
    # What a condition shows may lie anywhere; what only a sentence says lies near the middle.
    shown = task in ("path", "mask", "first", "last", "ends", "structure")
    actors: list[Actor] = []
    for field in fields(width, height, count):
        colour, shape, motion = words(rng, background, tuple(actors), motions)
        while task == "style" and withheld(colour, background):
            background = str(rng.choice(list(BACKGROUNDS)))
            colour, shape, motion = words(rng, background, (), motions)
        speed = str(rng.choice(("medium", "medium", "slow", "fast")))
        size = (float(rng.uniform(0.75, 1.1)) if shown else 1.0) * (PAIR_SIZE if count == 2 else 1.0)
        actor = act(
            rng, shape, colour, motion, field, frames=frames, speed=speed, size=size, spread=0.12 if shown else 0.04
        )
        if task == "path":
            way = wander(rng, field, float(actor.radius.max()) * 1.2, frames)
            actor = replace(actor, path=way, motion="path")
        actors.append(actor)
    scene = Scene(tuple(actors), background, width, height, frames)
    if task == "mask":
        return Shot(scene, task, edited=int(rng.integers(count)))
    if task != "camera":
        return Shot(scene, task)
    camera = str(rng.choice(list(CAMERAS)))
    return Shot(filmed(scene, camera), task, camera)


def kind(rng: np.random.Generator) -> str:
    """A random kind of shot."""
    return str(rng.choice(list(TASKS), p=np.array(list(TASKS.values())) / sum(TASKS.values())))
