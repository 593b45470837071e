"""What a shot is told beside its sentence, in VACE's three ways: a control video, a mask, a reference image.

| shot | control video | mask (white: to be made) | reference |
| --- | --- | --- | --- |
| text, camera | none: gray | all white | none |
| path | a white dot on black goes the way | all white | none |
| structure | white outlines, or boxes, on black | all white | none |
| mask | the clip to be changed | a box, still or moving, or half of the canvas | none |
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


def dots(of: Sequence[Scene], device: torch.device) -> Tensor:
    """White dots on black that go the ways of scenes' first actors: (batch, 3, frames, height, width)."""
    first = of[0]
    path = torch.from_numpy(np.stack([scene.actors[0].path for scene in of])).to(device)[..., None, None]
    x = torch.arange(first.width, device=device) + 0.5 - path[:, :, 0]
    y = torch.arange(first.height, device=device)[:, None] + 0.5 - path[:, :, 1]
    dot = drawing.covered(torch.hypot(x, y) - DOT * min(first.width, first.height))
    return (dot * 2 - 1)[:, None].expand(-1, 3, -1, -1, -1)


def _broad(values: Sequence[float] | Sequence[bool], device: torch.device) -> Tensor:
    """(batch, 1, 1, 1)."""
    return torch.tensor(values, device=device)[:, None, None, None]


def _bounds(distance: Tensor, margin: Tensor | float) -> Tensor:
    """Signed distances (batch, frames, height, width) to the box around a shape, `margin` pixels wider on each side."""
    inside = distance < 0
    sides = []
    for axis in (-2, -1):
        held = inside.any(dim=axis)  # over the other axis' pixels
        places = torch.arange(held.shape[-1], device=held.device)
        low = torch.where(held, places, held.shape[-1]).amin(-1, keepdim=True)
        high = torch.where(held, places, -1).amax(-1, keepdim=True) + 1
        sides.append(torch.maximum(low - places - 0.5, places + 0.5 - high))
    across, down = sides
    return torch.maximum(across[..., None, :], down[..., :, None]) - margin


def structures(of: Sequence[Scene], boxes: Sequence[bool], half_px: Sequence[float], device: torch.device) -> Tensor:
    """White outlines of scenes' shapes, or of the boxes around them, on black, their lines being twice `half_px` wide:
    (batch, 3, frames, height, width)."""
    first = of[0]
    lines = torch.zeros(len(of), first.frames, first.height, first.width, device=device)
    boxed, half = _broad(boxes, device), _broad(half_px, device)
    for index in range(max(len(scene.actors) for scene in of)):
        distance = drawing.distances(of, index, device)
        lines = torch.maximum(lines, drawing.outlined(torch.where(boxed, _bounds(distance, 0.0), distance), half))
    return (lines * 2 - 1)[:, None].expand(-1, 3, -1, -1, -1)


def structure(scene: Scene, boxes: bool, device: torch.device) -> Tensor:
    """The same of one scene: (3, frames, height, width)."""
    return structures([scene], [boxes], [drawing.LINE_PX], device)[0]


def regions(
    of: Sequence[Scene],
    actors: Sequence[int],
    moving: Sequence[bool],
    margins_px: Sequence[float],
    device: torch.device,
) -> Tensor:
    """A box around one actor of each scene, in each frame or around its whole way: (batch, frames, height, width),
    zeros and ones."""
    alone = [replace(scene, actors=(scene.actors[actor],)) for scene, actor in zip(of, actors, strict=True)]
    distance = drawing.distances(alone, 0, device)
    distance = torch.where(_broad(moving, device), distance, distance.amin(1, keepdim=True))
    return (_bounds(distance, _broad(margins_px, device)) < 0).float()


def half(scene: Scene, actor: int, device: torch.device) -> Tensor:
    """The part of the canvas that one of two actors keeps to: (frames, height, width), zeros and ones."""
    field = scenes.fields(scene.width, scene.height, len(scene.actors))[actor]
    out = torch.zeros(scene.frames, scene.height, scene.width, device=device)
    rows, columns = (slice(int(at), int(at + side)) for at, side in ((field.y, field.height), (field.x, field.width)))
    out[:, rows, columns] = 1.0
    return out


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


def _edited(rng: np.random.Generator, shots: Sequence[Shot], clips: Tensor) -> tuple[Tensor, Tensor]:
    """The clip to be changed, and where, of masked shots."""
    device, of = clips.device, [shot.scene for shot in shots]
    actors = [shot.edited or 0 for shot in shots]
    moving = [bool(rng.random() < 0.4) for _ in shots]
    margins = [float(rng.uniform(3, 9) if rng.random() < 0.7 else rng.uniform(9, 24)) for _ in shots]
    mask = regions(of, actors, moving, margins, device)[:, None]
    for i, (scene, actor) in enumerate(zip(of, actors, strict=True)):
        if len(scene.actors) == 2 and rng.random() < 0.3:
            mask[i, 0] = half(scene, actor, device)
    before = drawing.draw([replaced(rng, shot, actor).scene for shot, actor in zip(shots, actors, strict=True)], device)
    # What is inside may be there to be seen, or blanked out before.
    seen = _broad([bool(rng.random() < 0.5) for _ in shots], device)[..., None]
    return torch.where(mask > 0.5, torch.where(seen, before, 0.0), clips), mask


def conditions(rng: np.random.Generator, shots: Sequence[Shot], clips: Tensor) -> Conditions:
    """Of shots of one size, all of them with a reference or none; `clips` are what they show, in [-1, 1]."""
    device = clips.device
    video, mask = torch.zeros_like(clips), torch.ones_like(clips[:, :1])
    by_task: dict[str, list[int]] = {}
    for i, shot in enumerate(shots):
        by_task.setdefault(shot.task, []).append(i)
    for task, which in by_task.items():
        of = [shots[i].scene for i in which]
        if task == "path":
            video[which] = dots(of, device)
        elif task == "structure":
            # Lines that are found in pictures are of other widths than drawn ones.
            boxes, widths = rng.random(len(of)) < 0.4, rng.uniform(0.5, 1.75, len(of))
            video[which] = structures(of, boxes.tolist(), widths.tolist(), device)
        elif task == "mask":
            video[which], mask[which] = _edited(rng, [shots[i] for i in which], clips[which])
        else:
            for frame in {"first": (0,), "last": (-1,), "ends": (0, -1)}.get(task, ()):
                video[which, :, frame], mask[which, :, frame] = clips[which, :, frame], 0.0
    if all(shot.task == "style" for shot in shots):
        return Conditions(video, mask, drawing.draw([reference(rng, shot) for shot in shots], device))
    return Conditions(video, mask, None)
