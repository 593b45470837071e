"""Renders batches with one loaded model, so that one task's trouble stays its own. Knows no Ray and no torch.

| what happens | what the others see |
| --- | --- |
| a task's image or video could not be read, or is refused | nothing: it never joins the call |
| a task's frames are NaN, or it was cancelled | nothing: their clips are returned |
| the call raises | every task is called again by itself; those that raise again fail |
| the accelerator runs out of memory | the batch is halved, and halved again, down to one task |

A clip of several calls (`actors.chunked`) is one call in all of this.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from actors.chunked import NOTHING_KEPT, ChunkStore, render_chunks
from models.model import Cancelled, Frames, Model, OnStep, Sound, Sounding, TaskMedia, ignore_step, nobody_cancelled
from schemas.errors import CancelledError, OutOfMemoryError, RenderError, RushesError
from schemas.moderation import Moderation
from schemas.task import Group, RenderBatch, Task

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rendered:
    """A task and its clip, not yet a file."""

    task: Task
    group: Group
    frames: Frames = field(repr=False)
    # The task's share of the call that made it: the shares add up to the call.
    render_s: float
    # Its shares of calls that came to nothing (a batch mate raised, memory ran out).
    lost_s: float = 0.0
    attempts: int = 1
    # The inputs that it was made from, for its credentials.
    ingredients: tuple[bytes, ...] = field(default=(), repr=False)
    # What was found of its input.
    moderation: Moderation = field(default_factory=Moderation)
    # Its frames are those of the stored clip after so many finishing stages; None: as the model rendered them.
    stage: int | None = None
    sound: Sound | None = field(default=None, repr=False)


@dataclass(frozen=True)
class TaskFailure:
    """A task that has no clip. Whether it is worth another attempt is for `is_transient(error)` to say."""

    task: Task
    group: Group
    error: RushesError
    lost_s: float = 0.0
    attempts: int = 1
    # Seconds of the accelerators that are billed all the same.
    billed_s: float = 0.0


@dataclass(frozen=True)
class _Pending:
    task: Task
    media: TaskMedia
    lost_s: float = 0.0
    attempts: int = 0


class Renderer:
    """One model and the calls on it. Not thread-safe: a model renders one batch at a time."""

    def __init__(self, model: Model, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self.model = model
        self._clock = clock

    def render(
        self,
        batch: RenderBatch,
        on_step: OnStep = ignore_step,
        cancelled: Cancelled = nobody_cancelled,
        *,
        media: Sequence[TaskMedia | RushesError] | None = None,
        chunks: ChunkStore = NOTHING_KEPT,
    ) -> list[Rendered | TaskFailure]:
        """Render every task of `batch`: one entry a task, in its order. Raises nothing for a task's sake.

        `media` is as long as the batch: what each task brings, or why that could not be read; None: they bring nothing.
        `chunks` keeps those of clips of several calls.
        """
        outcomes: dict[str, Rendered | TaskFailure] = {}
        pending: list[_Pending] = []
        unwanted = cancelled()
        for task, brought in zip(batch.tasks, media or [TaskMedia()] * len(batch.tasks), strict=True):
            if task.fingerprint in unwanted:
                error = CancelledError(f"task {task.fingerprint} was cancelled")
                outcomes[task.fingerprint] = TaskFailure(task, batch.group, error, attempts=0)
            elif isinstance(brought, RushesError):
                outcomes[task.fingerprint] = TaskFailure(task, batch.group, brought)
            else:
                pending.append(_Pending(task, brought))
        for outcome in self._attempt(batch.group, pending, on_step, cancelled, chunks):
            outcomes[outcome.task.fingerprint] = outcome
        return [outcomes[task.fingerprint] for task in batch.tasks]

    def _attempt(
        self,
        group: Group,
        pending: Sequence[_Pending],
        on_step: OnStep,
        cancelled: Cancelled,
        chunks: ChunkStore,
    ) -> list[Rendered | TaskFailure]:
        """One call for all; when it raises, smaller ones."""
        if not pending:
            return []
        batch = RenderBatch(group, tuple(p.task for p in pending))
        started = self._clock()
        try:
            media = tuple(p.media for p in pending)
            clips = (
                render_chunks(self.model, batch, media, on_step, cancelled, chunks)
                if group.chunks is not None
                else self.model.render(batch, media, on_step, cancelled)
            )
            if len(clips) != len(pending):
                raise RenderError(f"the model returned {len(clips)} clips for {len(pending)} tasks")
        except Exception as error:
            ours = error if isinstance(error, RushesError) else RenderError(f"{type(error).__name__}: {error}")
            share_s = (self._clock() - started) / len(pending)
            tried = [replace(p, lost_s=p.lost_s + share_s, attempts=p.attempts + 1) for p in pending]
            if len(tried) == 1:
                only = tried[0]
                log.warning("task %s failed: %s", only.task.fingerprint, ours, exc_info=error)
                return [TaskFailure(only.task, group, ours, only.lost_s, only.attempts)]
            log.warning("a batch of %d raised, trying smaller ones: %s", len(tried), ours)
            return [
                outcome
                for part in _smaller(tried, ours)
                for outcome in self._attempt(group, part, on_step, cancelled, chunks)
            ]
        share_s = (self._clock() - started) / len(pending)
        return [
            _rendered(p, group, clip, share_s)
            if not isinstance(clip, RushesError)
            else TaskFailure(p.task, group, clip, p.lost_s + share_s, p.attempts + 1)
            for p, clip in zip(pending, clips, strict=True)
        ]


def _rendered(pending: _Pending, group: Group, clip: Frames | Sounding, share_s: float) -> Rendered:
    frames, sound = clip if isinstance(clip, Sounding) else (clip, None)
    return Rendered(
        pending.task, group, frames, share_s, pending.lost_s, pending.attempts + 1, pending.media.ingredients,
        pending.media.moderation, sound=sound,
    )  # fmt: skip


def _smaller(pending: Sequence[_Pending], error: RushesError) -> list[Sequence[_Pending]]:
    """Halves when memory ran out; single tasks when something raised, as any of them may be the one."""
    if isinstance(error, OutOfMemoryError):
        middle = len(pending) // 2
        return [pending[:middle], pending[middle:]]
    return [[p] for p in pending]
