"""Calls of models that are shown videos of noise, and their clips."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from models.loaded import LoadedModel
from models.model import Pictures, TaskMedia, ignore_step, nobody_cancelled
from schemas.conditions import Condition, implied_mode
from schemas.task import RenderBatch
from tests.models.tiny_variants import group_of, noise_image, task_of

SIDE = 32
Clip = npt.NDArray[np.uint8]
Given = tuple[Condition, Pictures]


def moving(seed: int, frames: int) -> tuple[Image.Image, ...]:
    """A video of noise, another in every frame."""
    return tuple(noise_image(100 * seed + frame) for frame in range(frames))


def clips(model: LoadedModel, *tasks: tuple[Given, ...], seeds: tuple[int, ...] = (0, 1), **changes: Any) -> list[Clip]:
    """A clip of each of `tasks`, in one batch; all have the same conditions, each its own media."""
    conditions = tuple(one for one, _ in tasks[0])
    mode = implied_mode(one.role for one in conditions)
    group = group_of(model.variant, mode, conditions=conditions, **changes)
    made = tuple(task_of(group, "a shape", seed, media=("x",) * len(conditions)) for seed in seeds[: len(tasks)])
    media = tuple(TaskMedia(tuple(pictures for _, pictures in given)) for given in tasks)
    out = model.render(RenderBatch(group, made), media, ignore_step, nobody_cancelled)
    assert all(isinstance(one, np.ndarray) for one in out), out
    return list(out)  # type: ignore[arg-type]


def clip(model: LoadedModel, *given: Given, seed: int = 0, **changes: Any) -> Clip:
    (made,) = clips(model, given, seeds=(seed,), **changes)
    return made


def as_tensor(video: tuple[Image.Image, ...]) -> torch.Tensor:
    """(1, 3, frames, height, width) in −1…1."""
    pixels = np.stack([np.asarray(frame) for frame in video]).astype(np.float32) / 255 * 2 - 1
    return torch.from_numpy(pixels).permute(3, 0, 1, 2)[None]


def as_bytes(frames: torch.Tensor) -> Clip:
    return frames.clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
