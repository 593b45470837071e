"""The model of the variant `footage`: its clips are the videos that came in, as they were read."""

from dataclasses import dataclass, field

import numpy as np

from models.model import Cancelled, Frames, OnStep, PromptCounts, TaskMedia
from schemas.catalog import Variant
from schemas.errors import MediaError, PermanentError
from schemas.task import RenderBatch


@dataclass(frozen=True)
class Footage:
    """A Model without weights."""

    variant: Variant
    revision: str = "1"
    load_s: float = 0.0
    notes: tuple[str, ...] = ()
    prompt_counts: PromptCounts = field(default_factory=PromptCounts)

    def render(
        self, batch: RenderBatch, media: tuple[TaskMedia, ...], on_step: OnStep, _cancelled: Cancelled
    ) -> tuple[Frames | PermanentError, ...]:
        """The frames of each task's source, in the group's shape."""
        clips: list[Frames | PermanentError] = []
        for task, brought in zip(batch.tasks, media, strict=True):
            if not brought.inputs or not isinstance(brought.inputs[0], tuple):
                clips.append(MediaError(f"task {task.fingerprint} has no video"))
                continue
            clips.append(np.stack([np.asarray(picture.convert("RGB")) for picture in brought.inputs[0]]))
        on_step(1, 1)
        return tuple(clips)
