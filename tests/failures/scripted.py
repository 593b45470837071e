"""A real model whose failures are written down beforehand. What happened is counted in files, since processes die."""

import os
import signal
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from models.model import Cancelled, Frames, Model, OnStep, TaskMedia, WrappedModel
from schemas.errors import OutOfMemoryError, PermanentError, RenderError
from schemas.task import RenderBatch

Deed = Literal["raise", "die", "die once", "hang once", "die unless alone"]


@dataclass(frozen=True)
class Script:
    """What goes wrong, by prompt; `most_in_a_call` tasks fit the memory. `book` is a folder for the counts."""

    book: Path
    deeds: Mapping[str, Deed]
    most_in_a_call: int = 1000

    def __call__(self, model: Model) -> "ScriptedModel":
        return ScriptedModel(model, self)

    def calls_of(self, prompt: str) -> int:
        """How many model calls a prompt was part of."""
        return len(list(self.book.glob(f"{prompt}.*")))

    def note(self, prompt: str) -> int:
        count = self.calls_of(prompt) + 1
        (self.book / f"{prompt}.{count}").touch()
        return count


class ScriptedModel(WrappedModel):
    """The model, until the script says otherwise."""

    def __init__(self, model: Model, script: Script) -> None:
        super().__init__(model)
        self._script = script

    def render(
        self, batch: RenderBatch, media: tuple[TaskMedia, ...], on_step: OnStep, cancelled: Cancelled
    ) -> tuple[Frames | PermanentError, ...]:
        counts = {task.prompt: self._script.note(task.prompt) for task in batch.tasks}
        if len(batch.tasks) > self._script.most_in_a_call:
            raise OutOfMemoryError(f"{len(batch.tasks)} tasks in one call")
        for prompt, count in counts.items():
            match self._script.deeds.get(prompt):
                case "raise":
                    raise RenderError(f"the script says so for {prompt!r}")
                case "die":
                    os.kill(os.getpid(), signal.SIGKILL)
                case "die once" if count == 1:
                    os.kill(os.getpid(), signal.SIGKILL)
                case "die unless alone" if len(batch.tasks) > 1:
                    os.kill(os.getpid(), signal.SIGKILL)
                case "hang once" if count == 1:
                    threading.Event().wait()
        return self.inner.render(batch, media, on_step, cancelled)
