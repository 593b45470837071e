"""What changed in the store, for all open streams of a process: one poll whatever their number.

A `Watch` keeps the latest state of each thing it follows, not a queue: a slow reader skips states, and never holds
memory. The poll runs while somebody watches, in a thread, and a store that does not answer is asked again.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from time import perf_counter

from schemas.clip import Status
from schemas.errors import TransientError
from serve.store.contract import Batch, Store
from serve.tasks import LIVE, StoredTask

log = logging.getLogger("serve.http.change_feed")

INTERVAL_S = 0.3
_MOST_BUSY = 0.25  # of the time goes into polls: many streams make them slower, not the process
RECENT = 30  # of a key's tasks, looked at in every poll; live ones among older tasks are followed besides
_RESEND_S = 2.0  # a waiting task's row stays as it is while its position falls
_JUST_NOW_S = 60.0  # what ended so long before a watch began is told to it: its client may not have seen it


class WatchKind(StrEnum):
    """What is followed."""

    TASK = "task"
    BATCH = "batch"
    KEY = "key"


@dataclass(eq=False)
class Watch:
    """One stream's view. `follow` until it is closed; None for a task means that it is no longer there."""

    kind: WatchKind
    id: str
    tasks: dict[str, StoredTask | None] = field(default_factory=dict)
    batch: Batch | None = None
    closed: bool = False
    ticked: asyncio.Event = field(default_factory=asyncio.Event)
    seen: dict[str, tuple[object, ...]] = field(default_factory=dict)
    sent_at: dict[str, float] = field(default_factory=dict)
    began: bool = False

    async def wait(self, timeout_s: float) -> bool:
        """Until something changed (True) or `timeout_s` passed."""
        try:
            await asyncio.wait_for(self.ticked.wait(), timeout_s)
        except TimeoutError:
            return False
        self.ticked.clear()
        return True

    def take(self) -> dict[str, StoredTask | None]:
        """The tasks that changed since the last call."""
        taken, self.tasks = self.tasks, {}
        return taken

    def take_batch(self) -> Batch | None:
        """The batch, if it changed since the last call."""
        taken, self.batch = self.batch, None
        return taken


@dataclass(frozen=True)
class _Seen:
    """What one poll read."""

    tasks: dict[str, StoredTask]
    keys: dict[str, tuple[StoredTask, ...]]
    batches: dict[str, Batch | None]


class ChangeFeed:
    """The poll and its watches. For one event loop."""

    def __init__(self, store: Store, now: Callable[[], float], interval_s: float = INTERVAL_S) -> None:
        self._store, self._now, self._interval_s = store, now, interval_s
        self._watches: set[Watch] = set()
        self._poll: asyncio.Task[None] | None = None
        self._more = asyncio.Event()

    @property
    def watches(self) -> int:
        return len(self._watches)

    @contextmanager
    def follow(self, kind: WatchKind, ident: str) -> Iterator[Watch]:
        """A watch; its first state comes with the next poll, which is now."""
        watch = Watch(kind, ident)
        self._watches.add(watch)
        self._more.set()
        if self._poll is None or self._poll.done():
            self._poll = asyncio.create_task(self._run())
        try:
            yield watch
        finally:
            self._watches.discard(watch)

    def close(self) -> None:
        """End every stream: the process is going."""
        for watch in self._watches:
            watch.closed = True
            watch.ticked.set()

    async def _run(self) -> None:
        while self._watches:
            self._more.clear()
            began = perf_counter()
            try:
                watches = tuple(self._watches)
                seen = await asyncio.to_thread(self._read, watches)
                now = self._now()
                for watch in watches:
                    _tell(watch, seen, now)
            except TransientError as error:
                log.warning("the store does not answer; asked again", extra={"cause": str(error)})
            except Exception:
                # Whatever it is, streams that stop without a word are worse.
                log.exception("a poll of the store failed; the next may not")
            pause_s = max(self._interval_s, (perf_counter() - began) * (1 / _MOST_BUSY - 1))
            # A new watch does not wait for the interval.
            try:
                await asyncio.wait_for(self._more.wait(), pause_s)
            except TimeoutError:
                continue

    def _read(self, watches: Iterable[Watch]) -> _Seen:
        """One look at everything that is followed. In a thread."""
        wanted: set[str] = set()
        keys: dict[str, tuple[StoredTask, ...]] = {}
        batches: dict[str, Batch | None] = {}
        for watch in watches:
            if watch.kind is WatchKind.TASK:
                wanted.add(watch.id)
            elif watch.kind is WatchKind.BATCH:
                if watch.id not in batches:
                    batches[watch.id] = self._store.batches.get(watch.id)
            elif watch.id not in keys:
                keys[watch.id] = self._store.tasks.recent(RECENT, key_id=watch.id)
        for watch in watches:
            if watch.kind is WatchKind.KEY:
                recent = {task.id for task in keys[watch.id]}
                wanted |= {task_id for task_id, state in tuple(watch.seen.items()) if state[0] in LIVE} - recent
        found = self._store.tasks.get_many(tuple(wanted)) if wanted else ()
        return _Seen({task.id: task for task in found if not task.deleted}, keys, batches)


def _tell(watch: Watch, seen: _Seen, now: float) -> None:
    """Give a watch what changed since it was last told. It was there when `seen` was read."""
    if watch.kind is WatchKind.BATCH:
        batch = seen.batches[watch.id]
        state: tuple[object, ...] = _GONE if batch is None else _batch_state(batch)
        if watch.seen.get(watch.id) != state:
            watch.seen[watch.id] = state
            watch.batch = batch
            watch.closed = watch.closed or batch is None
            watch.ticked.set()
        return
    if watch.kind is WatchKind.TASK:
        current: dict[str, StoredTask | None] = {watch.id: seen.tasks.get(watch.id)}
    else:
        recent = {task.id: task for task in reversed(seen.keys[watch.id])}
        live = {task_id for task_id, state in watch.seen.items() if state[0] in LIVE} - recent.keys()
        if not watch.began:
            watch.seen |= {task.id: _state(task) for task in recent.values() if _long_over(task, now)}
        # What ended and is no longer recent cannot change: forgotten, or a stream of a day would keep it all.
        watch.seen = {task_id: state for task_id, state in watch.seen.items() if task_id in recent or task_id in live}
        current = {**{task_id: seen.tasks.get(task_id) for task_id in live}, **recent}
    watch.began = True
    for task_id, task in current.items():
        _tell_task(watch, task_id, task, now)


def _tell_task(watch: Watch, task_id: str, task: StoredTask | None, now: float) -> None:
    state = _GONE if task is None or task.deleted else _state(task)
    waits = task is not None and task.status is Status.PENDING
    due = waits and now - watch.sent_at.get(task_id, now) >= _RESEND_S
    if watch.seen.get(task_id) == state and not due:
        return
    watch.seen[task_id] = state
    watch.tasks[task_id] = None if state == _GONE else task
    if waits:
        watch.sent_at[task_id] = now
    else:
        watch.sent_at.pop(task_id, None)
    watch.ticked.set()


_GONE: tuple[object, ...] = (None,)


def _long_over(task: StoredTask, now: float) -> bool:
    return task.status not in LIVE and (task.finished_at or 0.0) < now - _JUST_NOW_S


def _state(task: StoredTask) -> tuple[object, ...]:
    """What a client would see change."""
    return (
        task.status,
        round(task.progress, 3),
        task.stage,
        task.variant,
        task.fallback,
        task.attempts,
        task.finished_at,
    )


def _batch_state(batch: Batch) -> tuple[object, ...]:
    return (batch.status, tuple(sorted(batch.counts.items())), batch.billed_usd, batch.finished_at)
