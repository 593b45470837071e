"""A real model whose clips have the colour that their prompts ask for: what a scripted scorer refuses, or flags."""

import numpy as np

from models.model import Cancelled, Frames, Model, OnStep, TaskMedia, WrappedModel
from schemas.errors import PermanentError
from schemas.task import RenderBatch
from tests.scripted_scorer import AMBER, RED


class PaintedModel(WrappedModel):
    """Renders with the model, and paints over one frame of each clip whose prompt names RED or AMBER."""

    def __init__(self, inner: Model) -> None:
        super().__init__(inner)
        self.calls: list[tuple[str, ...]] = []

    def render(
        self, batch: RenderBatch, media: tuple[TaskMedia, ...], on_step: OnStep, cancelled: Cancelled
    ) -> tuple[Frames | PermanentError, ...]:
        self.calls.append(tuple(task.prompt for task in batch.tasks))
        clips = self.inner.render(batch, media, on_step, cancelled)
        for task, clip in zip(batch.tasks, clips, strict=True):
            for name, colour in {"RED": RED, "AMBER": AMBER}.items():
                if isinstance(clip, np.ndarray) and name in task.prompt:
                    clip[-1] = colour
        return clips
