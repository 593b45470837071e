"""Renders batches with one loaded model, so that one task's trouble stays its own. Knows no Ray and no torch.

| what happens | what the others see |
| --- | --- |
| a task's image or video cannot be read | nothing: it never joins the call |
| a task's frames are NaN, or it was cancelled | nothing: their clips are returned |
| the call raises | every task is called again by itself; those that raise again fail |
| the accelerator runs out of memory | the batch is halved, and halved again, down to one task |
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from models.media import read_image, read_video
from models.model import Cancelled, Frames, Model, OnStep, TaskMedia, ignore_step, nobody_cancelled
from schemas.errors import CancelledError, MediaError, OutOfMemoryError, RenderError, RushesError
from schemas.request import Mode
from schemas.task import Group, RenderBatch, Task

log = logging.getLogger(__name__)

# A URI in, the object's bytes out. Raises an error of ours: ObjectMissingError, StorageUnavailableError …
ReadMedia = Callable[[str], bytes]


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


@dataclass(frozen=True)
class TaskFailure:
    """A task that has no clip. Whether it is worth another attempt is for `is_transient(error)` to say."""

    task: Task
    group: Group
    error: RushesError
    lost_s: float = 0.0
    attempts: int = 1


@dataclass(frozen=True)
class _Pending:
    task: Task
    media: TaskMedia
    lost_s: float = 0.0
    attempts: int = 0


class Renderer:
    """One model and the calls on it. Not thread-safe: a model renders one batch at a time."""

    def __init__(
        self,
        model: Model,
        *,
        read_media: ReadMedia | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.model = model
        self._read_media = read_media
        self._clock = clock

    def render(
        self, batch: RenderBatch, on_step: OnStep = ignore_step, cancelled: Cancelled = nobody_cancelled
    ) -> list[Rendered | TaskFailure]:
        """Render every task of `batch`: one entry a task, in its order. Raises nothing for a task's sake."""
        outcomes: dict[str, Rendered | TaskFailure] = {}
        pending: list[_Pending] = []
        unwanted = cancelled()
        for task in batch.tasks:
            if task.fingerprint in unwanted:
                error = CancelledError(f"task {task.fingerprint} was cancelled")
                outcomes[task.fingerprint] = TaskFailure(task, batch.group, error, attempts=0)
                continue
            try:
                pending.append(_Pending(task, self._media(task, batch.group)))
            except RushesError as error:
                outcomes[task.fingerprint] = TaskFailure(task, batch.group, error)
        for outcome in self._attempt(batch.group, pending, on_step, cancelled):
            outcomes[outcome.task.fingerprint] = outcome
        return [outcomes[task.fingerprint] for task in batch.tasks]

    def _media(self, task: Task, group: Group) -> TaskMedia:
        """The task's own image or video, read and cut to shape."""
        if group.mode is Mode.IMAGE_TO_VIDEO:
            return TaskMedia(image=read_image(self._read(task.image, "image", task), group.shape, task.image or ""))
        if group.mode is Mode.VIDEO_TO_VIDEO:
            data = self._read(task.video, "video", task)
            return TaskMedia(video=read_video(data, group.shape, group.fps, task.video or ""))
        return TaskMedia()

    def _read(self, uri: str | None, what: str, task: Task) -> bytes:
        if uri is None:
            raise MediaError(f"task {task.fingerprint} has no {what}")
        if self._read_media is None:
            raise MediaError(f"{uri}: nothing here can read it")
        return self._read_media(uri)

    def _attempt(
        self, group: Group, pending: Sequence[_Pending], on_step: OnStep, cancelled: Cancelled
    ) -> list[Rendered | TaskFailure]:
        """One call for all; when it raises, smaller ones."""
        if not pending:
            return []
        batch = RenderBatch(group, tuple(p.task for p in pending))
        started = self._clock()
        try:
            clips = self.model.render(batch, tuple(p.media for p in pending), on_step, cancelled)
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
                outcome for part in _smaller(tried, ours) for outcome in self._attempt(group, part, on_step, cancelled)
            ]
        share_s = (self._clock() - started) / len(pending)
        return [
            Rendered(p.task, group, clip, share_s, p.lost_s, p.attempts + 1)
            if not isinstance(clip, RushesError)
            else TaskFailure(p.task, group, clip, p.lost_s + share_s, p.attempts + 1)
            for p, clip in zip(pending, clips, strict=True)
        ]


def _smaller(pending: Sequence[_Pending], error: RushesError) -> list[Sequence[_Pending]]:
    """Halves when memory ran out; single tasks when something raised, as any of them may be the one."""
    if isinstance(error, OutOfMemoryError):
        middle = len(pending) // 2
        return [pending[:middle], pending[middle:]]
    return [[p] for p in pending]
