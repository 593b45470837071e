"""Renders clips of several calls, chunk after chunk, each from the last frames of the one before it. Knows no Ray and
no torch.

Every chunk is kept as soon as it is there, without loss: whoever renders the same clip after this process has died, or
after a call that raised, goes on from the last one. The tasks of a batch go through the chunks together.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
from PIL import Image

from models.model import Cancelled, Frames, Model, OnStep, Pictures, TaskMedia, frames_of
from schemas.chunks import Chunk, chunk_seed
from schemas.conditions import Condition, implied_mode
from schemas.errors import BadOutputError, MediaError, PermanentError, RenderError
from schemas.inputs import FRAMES, Role
from schemas.task import Group, RenderBatch, Task


class ChunkStore(Protocol):
    """Where the chunks of clips wait for the rest of them. Its troubles cost rendering again, and nothing else: it
    raises none."""

    def get(self, task: Task, group: Group, chunk: Chunk) -> Frames | None:
        """The frames of it that are kept, (chunk.stop - chunk.first, height, width, 3); None where they are not
        stored."""
        ...

    def put(self, task: Task, group: Group, chunk: Chunk, frames: Frames) -> None: ...


class _NothingKept:
    def get(self, task: Task, group: Group, chunk: Chunk) -> Frames | None:  # noqa: ARG002
        return None

    def put(self, task: Task, group: Group, chunk: Chunk, frames: Frames) -> None: ...


NOTHING_KEPT: ChunkStore = _NothingKept()


def render_chunks(
    model: Model,
    batch: RenderBatch,
    media: Sequence[TaskMedia],
    on_step: OnStep,
    cancelled: Cancelled,
    store: ChunkStore,
) -> tuple[Frames | PermanentError, ...]:
    """As `Model.render`, of a group that has chunks. Raises what that raises."""
    group, tasks = batch.group, batch.tasks
    chunks = group.cuts
    pieces: list[list[Frames]] = [[] for _ in tasks]
    failed: dict[int, PermanentError] = {}
    for chunk in chunks:
        todo: list[int] = []
        for at, task in enumerate(tasks):
            kept = None if at in failed else store.get(task, group, chunk)
            if kept is not None:
                pieces[at].append(kept)
            elif at not in failed:
                todo.append(at)
        if not todo:
            continue
        call, given = _call(model, group, chunk, [(tasks[at], media[at], pieces[at]) for at in todo])

        def step(done: int, total: int, before: int = chunk.number) -> None:
            on_step(before * total + done, len(chunks) * total)

        made = model.render(call, given, step, cancelled)
        if len(made) != len(todo):
            raise RenderError(f"the model returned {len(made)} clips for {len(todo)} tasks")
        for at, clip in zip(todo, made, strict=True):
            if isinstance(clip, PermanentError):
                failed[at] = clip
                continue
            frames = frames_of(clip)
            piece = frames[chunk.known : chunk.stop - chunk.start]
            if len(piece) != chunk.stop - chunk.first:
                failed[at] = BadOutputError(
                    f"task {tasks[at].fingerprint}: {len(frames)} frames of a chunk of {call.group.frames}"
                )
                continue
            store.put(tasks[at], group, chunk, piece)
            pieces[at].append(piece)
    return tuple(failed[at] if at in failed else np.concatenate(pieces[at]) for at in range(len(tasks)))


def _call(
    model: Model, group: Group, chunk: Chunk, given: Sequence[tuple[Task, TaskMedia, Sequence[Frames]]]
) -> tuple[RenderBatch, tuple[TaskMedia, ...]]:
    """The call of one chunk for some tasks. They keep their fingerprints: that is what they are cancelled by."""
    assert group.chunks is not None
    length = group.chunks.frames
    places = [(at, one) for at, one in enumerate(group.conditions) if _is_in(one, chunk)]
    own = tuple(
        one if one.frame is None else one.model_copy(update={"frame": one.frame - chunk.start}) for _, one in places
    )
    before = tuple(
        Condition(role=Role.KEYFRAME if frame else Role.FIRST_FRAME, medium="image", frame=frame)
        for frame in range(chunk.known)
    )
    mode = implied_mode(one.role for one in (*own, *before))
    call = group.changed(
        mode=mode if mode in model.variant.modes else group.mode,
        frames=length,
        conditions=(*own, *before),
        turns=(),
        chunks=None,
        finish=(),
    )
    tasks: list[Task] = []
    media: list[TaskMedia] = []
    for task, brought, pieces in given:
        if len(brought.inputs) < len(group.conditions):
            missing = group.conditions[len(brought.inputs)]
            raise MediaError(f"task {task.fingerprint}: {group.mode.value} needs {missing.role.value!r}")
        shown = tuple(_part(brought.inputs[at], chunk, length) for at, _ in places)
        tail = tuple(Image.fromarray(one) for one in np.concatenate(pieces)[-chunk.known :]) if chunk.known else ()
        tasks.append(
            replace(
                task,
                prompt=task.prompts[chunk.turn],
                later=(),
                seed=chunk_seed(task.seed, chunk.number),
                media=(*(task.media[at] for at, _ in places if at < len(task.media)), *("",) * len(tail)),
            )
        )
        media.append(replace(brought, inputs=(*shown, *tail)))
    return RenderBatch(call, tuple(tasks)), tuple(media)


def _is_in(condition: Condition, chunk: Chunk) -> bool:
    """Whether an input is told to a chunk: a frame where it is rendered, all others throughout."""
    if condition.role not in FRAMES or condition.frame is None:
        return True
    return chunk.first <= condition.frame < chunk.stop


def _part(pictures: Pictures, chunk: Chunk, length: int) -> Pictures:
    """What a chunk's call sees of an input: of a video its own frames, held on the last one beyond its end."""
    if isinstance(pictures, Image.Image):
        return pictures
    own = pictures[chunk.start : chunk.start + length]
    return (*own, *(own[-1],) * (length - len(own)))
