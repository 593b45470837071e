"""What a shot is told beside its sentence, in VACE's three ways: a control video, a mask, a reference image.

| shot | control video | mask (white: to be made) | reference |
| --- | --- | --- | --- |
| text, camera | none: gray | all white | none |
| path | a white dot on black goes the way | all white | none |
| structure | white outlines, or boxes, on black | all white | none |
| mask | the clip to be changed | a box, still or moving | none |
| first, last, ends | those frames, the rest gray | black on those frames | none |
| style | none: gray | all white | an image in the colours |
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from training.directed import drawing, scenes
from training.directed.scenes import Shot
from training.drawing import Scene

DOT = 0.055
"""Radius of a path's dot, as a share of the smaller side."""


@dataclass(frozen=True)
class Conditions:
    """Of a batch: `video` (batch, 3, frames, height, width) in [-1, 1], gray being 0; `mask` (batch, 1, frames, height,
    width), one where pixels are to be made; `reference` (batch, 3, 1, height, width) or none."""

    video: Tensor
    mask: Tensor
    reference: Tensor | None


def _dot(scene: Scene, device: torch.device) -> Tensor:
    path = torch.from_numpy(scene.actors[0].path).to(device)[..., None, None]
    x = torch.arange(scene.width, device=device) + 0.5 - path[:, 0]
    y = torch.arange(scene.height, device=device)[:, None] + 0.5 - path[:, 1]
    return drawing.covered(torch.hypot(x, y) - DOT * min(scene.width, scene.height))


def _bounds(distance: Tensor, margin: float) -> Tensor:
    """Signed distances (frames, height, width) to the box around a shape, `margin` pixels wider on each side."""
    inside = distance < 0
    sides = []
    for axis in (-2, -1):
        held = inside.any(dim=axis)  # over the other axis' pixels
        places = torch.arange(held.shape[-1], device=held.device)
        low = torch.where(held, places, held.shape[-1]).amin(-1) - margin
        high = torch.where(held, places, -1).amax(-1) + 1 + margin
        sides.append(torch.maximum(low[:, None] - places - 0.5, places + 0.5 - high[:, None]))
    across, down = sides
    return torch.maximum(across[:, None, :], down[:, :, None])


def structure(scene: Scene, boxes: bool, device: torch.device) -> Tensor:
    """White outlines of a scene's shapes, or of the boxes around them, on black: (3, frames, height, width)."""
    lines = torch.zeros(scene.frames, scene.height, scene.width, device=device)
    for index in range(len(scene.actors)):
        distance = drawing.distances([scene], index, device)[0]
        lines = torch.maximum(lines, drawing.outlined(_bounds(distance, 0.0) if boxes else distance))
    return (lines * 2 - 1).expand(3, -1, -1, -1)


def region(scene: Scene, actor: int, moving: bool, margin: float, device: torch.device) -> Tensor:
    """A box around one actor, in each frame or around its whole way: (frames, height, width), zeros and ones."""
    distance = drawing.distances([scene], actor, device)[0]
    if not moving:
        distance = distance.amin(0, keepdim=True).expand_as(distance)
    return (_bounds(distance, margin) < 0).float()


def replaced(rng: np.random.Generator, shot: Shot, actor: int) -> Shot:
    """The shot with another shape of another colour in the place of one actor: what was there before."""
    scene = shot.scene
    others = tuple(a for i, a in enumerate(scene.actors) if i != actor)
    colour, shape, _ = scenes.words(rng, scene.background, (*others, scene.actors[actor]), ("still",))
    changed = [replace(a, colour=colour, shape=shape) if i == actor else a for i, a in enumerate(scene.actors)]
    return replace(shot, scene=replace(scene, actors=tuple(changed)))


def reference(rng: np.random.Generator, shot: Shot) -> Scene:
    """A still picture in the colours of a shot, of any shape."""
    scene = shot.scene
    shape = str(rng.choice(("circle", "square", "triangle", "star")))
    field = scenes.fields(scene.width, scene.height, 1)[0]
    actor = scenes.act(
        rng, shape, scene.actors[0].colour, "still", field, frames=1, size=float(rng.uniform(0.8, 1.5)), spread=0.12
    )
    return replace(scene, actors=(actor,), frames=1)


def conditions(rng: np.random.Generator, shots: Sequence[Shot], clips: Tensor) -> Conditions:
    """Of shots of one size, all of them with a reference or none; `clips` are what they show, in [-1, 1]."""
    device = clips.device
    video, mask = torch.zeros_like(clips), torch.ones_like(clips[:, :1])
    for i, shot in enumerate(shots):
        scene = shot.scene
        if shot.task == "path":
            video[i] = _dot(scene, device) * 2 - 1
        elif shot.task == "structure":
            video[i] = structure(scene, bool(rng.random() < 0.4), device)
        elif shot.task == "mask":
            actor = int(rng.integers(len(scene.actors)))
            mask[i, 0] = region(scene, actor, bool(rng.random() < 0.4), float(rng.uniform(3, 9)), device)
            before = drawing.draw([replaced(rng, shot, actor).scene], device)[0]
            # What is inside may be there to be seen, or blanked out before.
            video[i] = torch.where(mask[i] > 0.5, before if rng.random() < 0.5 else 0.0, clips[i])
        else:
            given = {"first": (0,), "last": (-1,), "ends": (0, -1)}.get(shot.task, ())
            for frame in given:
                video[i, :, frame], mask[i, :, frame] = clips[i, :, frame], 0.0
    if all(shot.task == "style" for shot in shots):
        return Conditions(video, mask, drawing.draw([reference(rng, shot) for shot in shots], device))
    return Conditions(video, mask, None)
