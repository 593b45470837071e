"""A real model wrapped by a script of failures."""

from collections import Counter
from collections.abc import Callable

from models.model import Cancelled, Frames, Model, OnStep, TaskMedia, WrappedModel
from schemas.errors import PermanentError
from schemas.task import RenderBatch, Task

# The task and how many calls it has been in, this one included. Returns what the call raises, or None.
Fault = Callable[[Task, int], Exception | None]


class ScriptedModel(WrappedModel):
    """Renders with `inner` unless a fault or `largest_batch` says otherwise; keeps the calls it got."""

    def __init__(self, inner: Model, fault: Fault = lambda *_: None, largest_batch: int | None = None) -> None:
        super().__init__(inner)
        self.fault = fault
        self.largest_batch = largest_batch
        self.calls: list[tuple[str, ...]] = []
        self._seen: Counter[str] = Counter()

    def render(
        self, batch: RenderBatch, media: tuple[TaskMedia, ...], on_step: OnStep, cancelled: Cancelled
    ) -> tuple[Frames | PermanentError, ...]:
        from schemas.errors import OutOfMemoryError

        self.calls.append(tuple(task.prompt for task in batch.tasks))
        self._seen.update(task.fingerprint for task in batch.tasks)
        if self.largest_batch is not None and len(batch.tasks) > self.largest_batch:
            raise OutOfMemoryError(f"a batch of {len(batch.tasks)} does not fit")
        for task in batch.tasks:
            error = self.fault(task, self._seen[task.fingerprint])
            if error is not None:
                raise error
        return self.inner.render(batch, media, on_step, cancelled)
