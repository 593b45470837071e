"""Shots as pixels, on any device and many at a time: anti-aliased shapes over flat backgrounds.

Everything is drawn from signed distances in pixels, negative inside: a pixel is covered by as much as its middle lies
inside of the edge, and outlines are what lies near it.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from training.drawing import BACKGROUNDS, COLOURS, SHAPES, UNSEEN_COLOURS, Scene

_SQUARE = 0.9
_TRIANGLE = (0.64, 0.12)  # inner radius, and how far down its middle lies
_STAR = (1.32, 0.56)  # radii of points and of notches
LINE_PX = 1.25
"""Half the width of outlines."""


def _star(x: Tensor, y: Tensor) -> Tensor:
    half = math.pi / 5
    turn = torch.remainder(torch.atan2(x, -y) + half, 2 * half) - half
    r = torch.hypot(x, y)
    u, v = r * torch.sin(turn.abs()), r * torch.cos(turn)
    along = (_STAR[1] * math.sin(half), _STAR[1] * math.cos(half) - _STAR[0])
    length = math.hypot(*along)
    return (u * -along[1] + (v - _STAR[0]) * along[0]) / length


def _unit_distance(shape: str, x: Tensor, y: Tensor) -> Tensor:
    """Signed distance in units of the radius."""
    if shape == "circle":
        return torch.hypot(x, y) - 1
    if shape == "square":
        return torch.maximum(x.abs(), y.abs()) - _SQUARE
    if shape == "triangle":
        y = y - _TRIANGLE[1]
        slope = x.abs() * (math.sqrt(3) / 2) - y / 2
        return torch.maximum(slope, y) - _TRIANGLE[0]
    if shape == "star":
        return _star(x, y)
    raise ValueError(f"unknown shape {shape!r}; available: {', '.join(SHAPES)}")


def _column(values: Sequence[np.ndarray], device: torch.device) -> Tensor:
    return torch.from_numpy(np.stack(values)).to(device)[..., None, None]


def distances(scenes: Sequence[Scene], actor: int, device: torch.device) -> Tensor:
    """Signed distances (batch, frames, height, width) in pixels to the `actor`-th shape of scenes of one size; far away
    where a scene has fewer."""
    first = scenes[0]
    out = torch.full((len(scenes), first.frames, first.height, first.width), 1e3, device=device)
    for shape in SHAPES:
        which = [i for i, s in enumerate(scenes) if len(s.actors) > actor and s.actors[actor].shape == shape]
        if not which:
            continue
        actors = [scenes[i].actors[actor] for i in which]
        centre = _column([a.path for a in actors], device)
        radius, angle = _column([a.radius for a in actors], device), _column([a.angle for a in actors], device)
        x = torch.arange(first.width, device=device) + 0.5 - centre[:, :, 0]
        y = torch.arange(first.height, device=device)[:, None] + 0.5 - centre[:, :, 1]
        if bool(angle.any()):
            cos, sin = torch.cos(angle), torch.sin(angle)
            x, y = x * cos + y * sin, y * cos - x * sin
        x, y = torch.broadcast_tensors(x / radius, y / radius)
        out[which] = _unit_distance(shape, x, y) * radius
    return out


def _rgb(colours: Sequence[tuple[int, int, int]], device: torch.device) -> Tensor:
    """(batch, 3, 1, 1, 1), 0 to 255."""
    return torch.tensor(colours, dtype=torch.float32, device=device)[:, :, None, None, None]


def covered(distance: Tensor) -> Tensor:
    """The share of each pixel that a shape covers."""
    return (0.5 - distance).clamp(0, 1)


def outlined(distance: Tensor, half_px: Tensor | float = LINE_PX) -> Tensor:
    """The share of each pixel that a shape's outline covers, `half_px` being half its width."""
    return (half_px + 0.5 - distance.abs()).clamp(0, 1)


def draw(scenes: Sequence[Scene], device: torch.device | None = None) -> Tensor:
    """Clips (batch, 3, frames, height, width) in [-1, 1], at the 256 levels of a file; later actors cover earlier ones.

    All scenes have one size and as many frames.
    """
    device = device or torch.device("cpu")
    first = scenes[0]
    canvas = _rgb([BACKGROUNDS[s.background] for s in scenes], device).expand(
        -1, -1, first.frames, first.height, first.width
    )
    for index in range(max(len(s.actors) for s in scenes)):
        share = covered(distances(scenes, index, device))[:, None]
        known = COLOURS | UNSEEN_COLOURS
        colour = _rgb([known[s.actors[index].colour] if len(s.actors) > index else (0, 0, 0) for s in scenes], device)
        canvas = canvas + share * (colour - canvas)
    return canvas.round() / 127.5 - 1
