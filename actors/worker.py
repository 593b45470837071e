"""The one render-and-publish loop, of bulk actors and of the endpoint's replicas alike.

    link.next ──▶ read media, moderate ──▶ link.begin ──▶ render ──▶ moderate, encode, store ──▶ link.ended
    └────────── "prepare" thread ───────┘  └──── "render" thread ──┘ └──────── "publish" thread ──────────┘

While one batch renders, the media of the next are read and the clips of the last are published. No more than two
batches' frames wait to be published: a slow store slows the model down before memory fills up. A model that makes no
step for `stall_s` ends the process. A suspect, whose earlier attempt came to nothing, is rendered alone, with nothing
else unpublished or asked for, so that whoever ends a process is known. Whatever an item's own stages raise is that
item's failure (`actors.failures`), and the others go on.
"""

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Generic, Protocol

from actors.chunked import NOTHING_KEPT, ChunkStore
from actors.failures import media_error, publish_error
from actors.media_reader import MediaReader
from actors.moderator import Moderates
from actors.publisher import Publisher
from actors.renderer import Rendered, Renderer, TaskFailure
from actors.stopwatch import Stopwatch
from actors.work import BatchEnd, I, ItemEnd, ItemProgress, Stage, WorkBatch
from models.model import OnStep, TaskMedia
from schemas.clip import Record
from schemas.errors import ModerationRefusedError, QuarantinedError, RushesError
from schemas.task import Group, RenderBatch, Task

log = logging.getLogger(__name__)

_UNPUBLISHED_BATCHES = 2
_NEWEST = 0.5  # weight of the last batch in how long reading media takes


class Link(Protocol[I]):
    """Where the work comes from and its ends go to. What these raise ends the worker, except for `found`."""

    def next(self, held: tuple[I, ...], /) -> WorkBatch[I] | None:
        """The next batch; waits a while for one; None when there was none. `held` is what the worker has."""
        ...

    def found(self, group: Group, item: I, /) -> Record | None:
        """The record of a clip that an earlier attempt stored before its process died. Asked of items `again`."""
        ...

    def begin(self, batch: WorkBatch[I], /) -> None:
        """Told before the model is called: should the process end now, these may be why."""
        ...

    def rendered(self, batch: WorkBatch[I], /) -> None:
        """Told when the model call is over; encoding and storing follow."""
        ...

    def beat(self, progress: tuple[ItemProgress[I], ...], /) -> Collection[I]:
        """A sign of life. Returns the items that nobody wants any more: they stop at their next step."""
        ...

    def ended(self, end: BatchEnd[I], /) -> None:
        """Told once for each item, from the publishing thread."""
        ...


@dataclass(frozen=True)
class WorkerSettings:
    """`beat_s` None: nobody listens. `ask_late`: the next batch is asked for only when the present one is nearly
    rendered, so that it is chosen as late as can be; else at once. `quarantine_losses`: an item that has cost so many
    attempts fails unrendered. `load_s` is billed to the tasks of the first batch. `bill_refused`: a clip that
    moderation refuses is billed as if it were published."""

    stall_s: float
    beat_s: float | None = None
    ask_late: bool = False
    quarantine_losses: int | None = None
    load_s: float = 0.0
    bill_refused: bool = True


@dataclass
class _Held(Generic[I]):
    item: I
    share: float = 0.0
    stage: Stage = Stage.WAITING
    unwanted: bool = False


@dataclass(frozen=True)
class _Ready(Generic[I]):
    """A batch whose media have been read, one entry an item; beside it, those of its items that were done already."""

    batch: WorkBatch[I]
    media: tuple[TaskMedia | RushesError, ...] = field(repr=False)
    found: tuple[ItemEnd[I], ...] = ()

    @property
    def is_suspect(self) -> bool:
        return any(item.losses for item in self.batch.items)

    def parts(self) -> Iterator["_Ready[I]"]:
        """Those above suspicion together, every suspect by itself."""
        pairs = list(zip(self.batch.items, self.media, strict=True))
        clear = [pair for pair in pairs if not pair[0].losses]
        for part in ([clear] if clear else []) + [[pair] for pair in pairs if pair[0].losses]:
            yield _Ready(WorkBatch(self.batch.group, tuple(i for i, _ in part)), tuple(m for _, m in part))


class Worker(Generic[I]):
    """One loaded model at work. `stop` lets what it holds finish; it is not usable afterwards."""

    def __init__(
        self,
        renderer: Renderer,
        publisher: Publisher,
        media: MediaReader,
        link: Link[I],
        settings: WorkerSettings,
        *,
        moderator: Moderates | None = None,
        clock: Callable[[], float] = time.perf_counter,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._renderer, self._publisher, self._media, self._link = renderer, publisher, media, link
        self._settings, self._clock, self._now = settings, clock, now
        self._moderator = moderator
        self._lock = threading.Lock()
        self._held: dict[str, _Held[I]] = {}
        self._stopping, self._idle = threading.Event(), threading.Event()
        # A permit to ask for one more batch.
        self._permits = threading.Semaphore(1)
        self._ready: queue.SimpleQueue[_Ready[I] | None] = queue.SimpleQueue()
        self._publishing = ThreadPoolExecutor(1, thread_name_prefix="publish")
        self._unpublished: deque[tuple[Future[None], frozenset[str]]] = deque()  # with the clips below finished ones
        self._unbilled_load_s = settings.load_s
        self._reading_s = 0.0
        self._failure: BaseException | None = None
        loops = {"prepare": self._prepare_all, "render": self._render_all}
        if settings.beat_s is not None:
            loops["beat"] = self._beat_all
        self._threads = {
            name: threading.Thread(target=self._guarded, args=(loop,), name=name, daemon=True)
            for name, loop in loops.items()
        }

    def start(self) -> None:
        """Begin to ask for work."""
        for thread in self._threads.values():
            thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Ask for no more and let what is held finish. True when it did, in time."""
        self._stopping.set()
        self._permits.release()
        self._threads["render"].join(timeout_s)
        finished = not self._threads["render"].is_alive()
        self._idle.set()
        if self._settings.beat_s is not None:
            self._threads["beat"].join(timeout=2 * self._settings.beat_s)
        return finished

    def check(self) -> None:
        """Raise what ended a thread, if something did: the process is then of no more use."""
        if self._failure is not None:
            raise RuntimeError(f"the worker ended: {self._failure!r}") from self._failure

    def _guarded(self, loop: Callable[[], None]) -> None:
        try:
            loop()
        except BaseException as error:
            log.exception("a thread of the worker ended")
            self._failure = self._failure or error
            self._stopping.set()
            self._idle.set()  # what it holds is better given to another

    # -- preparing -----------------------------------------------------------------------------------------------

    def _prepare_all(self) -> None:
        try:
            while self._permits.acquire() and not self._stopping.is_set():
                batch = None
                while batch is None and not self._stopping.is_set():
                    batch = self._link.next(self._items())
                # What came in the last moment was given to us: it is rendered too.
                if batch is not None:
                    self._take(batch)
                    self._ready.put(self._prepared(batch))
        finally:
            self._ready.put(None)

    def _items(self) -> tuple[I, ...]:
        with self._lock:
            return tuple(held.item for held in self._held.values())

    def _take(self, batch: WorkBatch[I]) -> None:
        with self._lock:
            self._held |= {item.task.fingerprint: _Held(item) for item in batch.items}

    def _prepared(self, batch: WorkBatch[I]) -> _Ready[I]:
        found, left = [], []
        for item in batch.items:
            record = self._found(batch.group, item) if item.again else None
            if record is None:
                left.append(item)
            else:
                found.append(ItemEnd(item, record))
        started = self._clock()
        media = self._moderated(left, self._read(batch.group, left))
        self._reading_s += _NEWEST * (self._clock() - started - self._reading_s)
        return _Ready(WorkBatch(batch.group, tuple(left)), media, tuple(found))

    def _found(self, group: Group, item: I) -> Record | None:
        try:
            return self._link.found(group, item)
        except Exception as error:  # then it is rendered, and stored once all the same
            log.warning("task %s: cannot look for its clip: %s", item.task.fingerprint, error)
            return None

    def _read(self, group: Group, items: Sequence[I]) -> tuple[TaskMedia | RushesError, ...]:
        tasks = [item.task for item in items]
        try:
            return tuple(self._media.read(group, tasks))
        except Exception as error:
            log.exception("the media of a batch could not be read")
            return tuple(media_error(error, ", ".join(task.media) or task.fingerprint) for task in tasks)

    def _moderated(
        self, items: Sequence[I], media: tuple[TaskMedia | RushesError, ...]
    ) -> tuple[TaskMedia | RushesError, ...]:
        """What is refused is an error of its own task, which then never joins the call."""
        moderator = self._moderator
        if moderator is None:
            return media
        seen: list[TaskMedia | RushesError] = []
        for item, one in zip(items, media, strict=True):
            if isinstance(one, TaskMedia):
                found = moderator.media(one, item.task.public_figures)
                seen.append(ModerationRefusedError(found) if found.is_refused else replace(one, moderation=found))
            else:
                seen.append(one)
        return tuple(seen)

    # -- rendering -----------------------------------------------------------------------------------------------

    def _render_all(self) -> None:
        while (ready := self._ready.get()) is not None:
            self._render(ready)
        self._wait_for_published()

    def _render(self, ready: _Ready[I]) -> None:
        asked = False

        def ask() -> None:
            nonlocal asked
            if not asked:
                asked = True
                self._permits.release()

        def on_share(done: int, total: int, elapsed_s: float) -> None:
            # Early enough for the media to be there when the accelerator is free, and no earlier.
            if done >= total or elapsed_s / max(1, done) * (total - done) <= self._reading_s:
                ask()

        if not self._settings.ask_late and not ready.is_suspect:
            ask()
        if ready.found:
            end = BatchEnd(ready.batch.group, ready.found, found=True)
            self._unpublished.append((self._publishing.submit(self._tell, end), frozenset()))
        for part in ready.parts():
            alone = part.is_suspect
            if alone:
                self._wait_for_published()
            self._render_part(part, (lambda *_: None) if ready.is_suspect else on_share)
            # A slow store slows the model down before memory fills up.
            self._wait_for_published(0 if alone else _UNPUBLISHED_BATCHES - 1)
        ask()

    def _render_part(self, part: _Ready[I], on_share: Callable[[int, int, float], None]) -> None:
        batch = part.batch
        work = batch.work
        started_at, started = self._now(), self._clock()
        outcomes: list[Rendered | TaskFailure]
        busy_s = 0.0
        most = self._settings.quarantine_losses
        if most is not None and batch.items[0].losses >= most:
            losses = batch.items[0].losses
            error = QuarantinedError(f"its process died {losses} times while rendering it")
            outcomes = [TaskFailure(task, batch.group, error, attempts=0) for task in work.tasks]
        else:
            self._set(batch.items, stage=Stage.RENDERING)
            self._link.begin(batch)
            with Stopwatch(self._settings.stall_s) as stopwatch:

                def on_step(done: int, total: int) -> None:
                    stopwatch.restart()
                    self._set(batch.items, share=done / max(1, total))
                    on_share(done, total, self._clock() - started)

                outcomes = self._rendered(part, on_step)
            busy_s = self._clock() - started
            self._link.rendered(batch)
        self._set(batch.items, stage=Stage.ENCODING)
        publishing = self._publishing.submit(self._publish, batch, outcomes, started_at, busy_s)
        self._unpublished.append((publishing, _bases(batch)))

    def _rendered(self, part: _Ready[I], on_step: OnStep) -> list[Rendered | TaskFailure]:
        """The batch's outcomes. Tasks of which a clip on the way is stored go on from there, and are not rendered."""
        work = part.batch.work
        if not work.group.finish:
            return self._renderer.render(work, on_step, self._unwanted, media=part.media, chunks=self._kept(work.group))
        if any(bases & _bases(part.batch) for _, bases in self._unpublished):
            self._wait_for_published()
        done: dict[str, Rendered | TaskFailure] = {}
        left: list[tuple[Task, TaskMedia | RushesError]] = []
        for task, media in zip(work.tasks, part.media, strict=True):
            kept = self._publisher.latest(task, work.group, media) if isinstance(media, TaskMedia) else None
            if kept is None:
                left.append((task, media))
            else:
                done[task.fingerprint] = kept
        if left:
            rest = RenderBatch(work.group, tuple(task for task, _ in left))
            media_left = [media for _, media in left]
            for outcome in self._renderer.render(
                rest, on_step, self._unwanted, media=media_left, chunks=self._kept(work.group)
            ):
                done[outcome.task.fingerprint] = outcome
        return [done[task.fingerprint] for task in work.tasks]

    def _kept(self, group: Group) -> ChunkStore:
        """Where the chunks of clips of several calls are."""
        return NOTHING_KEPT if group.chunks is None else self._publisher.chunks

    def _set(self, items: Sequence[I], *, stage: Stage | None = None, share: float | None = None) -> None:
        with self._lock:
            for item in items:
                held = self._held.get(item.task.fingerprint)
                if held is not None and held.item is item:
                    held.stage = stage or held.stage
                    held.share = held.share if share is None else share

    def _unwanted(self) -> frozenset[str]:
        with self._lock:
            return frozenset(name for name, held in self._held.items() if held.unwanted)

    def _wait_for_published(self, most: int = 0) -> None:
        """Until no more than so many batches are being published."""
        while len(self._unpublished) > most:
            self._unpublished.popleft()[0].result()

    # -- publishing ----------------------------------------------------------------------------------------------

    def _publish(
        self, batch: WorkBatch[I], outcomes: list[Rendered | TaskFailure], started_at: float, busy_s: float
    ) -> None:
        load_s, self._unbilled_load_s = self._unbilled_load_s, 0.0
        load_share_s = load_s / len(outcomes)
        one_call = all(
            isinstance(outcome, Rendered) and outcome.attempts == 1 and outcome.stage is None for outcome in outcomes
        )
        ends = tuple(
            ItemEnd(item, self._published(item, outcome, started_at, load_share_s))
            for item, outcome in zip(batch.items, outcomes, strict=True)
        )
        self._tell(BatchEnd(batch.group, ends, busy_s, one_call))

    def _published(
        self, item: I, outcome: Rendered | TaskFailure, started_at: float, load_s: float
    ) -> Record | TaskFailure:
        if isinstance(outcome, TaskFailure):
            return outcome
        try:
            queue_s = max(0.0, started_at - item.waiting_since)
            moderation = outcome.moderation
            if self._moderator is not None:
                moderation += self._moderator.clip(outcome.frames, item.task.public_figures)
            if moderation.is_refused:
                return self._refused(outcome, ModerationRefusedError(moderation), load_s)
            return self._publisher.publish(
                outcome, queue_s=queue_s, load_s=load_s, attempts=item.losses, moderation=moderation
            )
        except Exception as error:
            log.warning("task %s: its clip could not be published", item.task.fingerprint, exc_info=error)
            lost_s = outcome.lost_s + outcome.render_s
            return TaskFailure(outcome.task, outcome.group, publish_error(error), lost_s, outcome.attempts)

    def _refused(self, outcome: Rendered, error: ModerationRefusedError, load_s: float) -> TaskFailure:
        """Nothing of it is stored, not even its poster."""
        log.info("task %s: %s", outcome.task.fingerprint, error)
        self._publisher.chunks.drop(outcome.task, outcome.group)
        lost_s = outcome.lost_s + outcome.render_s
        billed_s = lost_s + load_s if self._settings.bill_refused else 0.0
        return TaskFailure(outcome.task, outcome.group, error, lost_s, outcome.attempts, billed_s)

    def _tell(self, end: BatchEnd[I]) -> None:
        self._link.ended(end)
        with self._lock:
            for ended in end.ends:
                held = self._held.get(ended.item.task.fingerprint)
                if held is not None and held.item is ended.item:
                    del self._held[ended.item.task.fingerprint]

    # -- heartbeats ----------------------------------------------------------------------------------------------

    def _beat_all(self) -> None:
        while not self._idle.wait(self._settings.beat_s):
            with self._lock:
                progress = tuple(ItemProgress(held.item, held.stage, held.share) for held in self._held.values())
            unwanted = self._link.beat(progress)
            with self._lock:  # an answer about an item that is over is none about the next of the same task
                for item in unwanted:
                    held = self._held.get(item.task.fingerprint)
                    if held is not None and held.item is item:
                        held.unwanted = True


def _bases(batch: WorkBatch[I]) -> frozenset[str]:
    """The clips as they are rendered, by fingerprint."""
    return frozenset(item.task.base or item.task.fingerprint for item in batch.items)
