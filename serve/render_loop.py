"""What a replica does all day: pull a batch, render it, publish its clips while the next one renders, tell of it.

Knows no Ray: `Link` is how it reaches the dispatcher, over whatever. Three threads: one renders, one publishes, one
beats. The next batch is asked for when the last denoising step of the present one is done, so that it is there when
the frames are. A dispatcher that is away is asked again; what was rendered meanwhile is kept until it was told.
"""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol

from actors.publisher import Publisher
from actors.renderer import Rendered, Renderer, TaskFailure
from actors.stopwatch import Stopwatch
from schemas.clip import Record, Status
from schemas.errors import BadOutputError, CancelledError, MediaError, RushesError, is_transient
from schemas.task import RenderBatch
from serve.config import Queue
from serve.messages import WAITING, Beat, Begun, Ended, Hello, Results, Work
from serve.store.contract import Progress
from serve.tasks import Lease, Outcome

log = logging.getLogger(__name__)

_UNPUBLISHED_BATCHES = 2
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0
_TELL_S = 900.0  # how long results are kept for a dispatcher that does not answer


class Link(Protocol):
    """The dispatcher, as a replica reaches it. Calls may raise anything: the dispatcher may be away."""

    def pull(self, hello: Hello) -> Work | None:
        """The next batch. Waits a while for one; None when there was none."""
        ...

    def begun(self, said: Begun) -> None:
        """Told before the model is called: what ends the process then has cost an attempt."""
        ...

    def beat(self, beat: Beat) -> tuple[str, ...]: ...
    def done(self, results: Results) -> None: ...


@dataclass
class _Held:
    """A task of which this replica has the lease."""

    lease: Lease
    progress: float = 0.0
    stage: str = WAITING


class RenderLoop:
    """One replica's work. `stop` lets what it holds finish; it is not usable afterwards."""

    def __init__(self, renderer: Renderer, publisher: Publisher, link: Link, hello: Hello, queue: Queue) -> None:
        self._renderer, self._publisher, self._link, self._hello, self._queue = renderer, publisher, link, hello, queue
        self._lock = threading.Lock()
        self._held: dict[str, _Held] = {}
        self._unwanted: frozenset[str] = frozenset()
        self._stopping = threading.Event()
        self._idle = threading.Event()
        self._pulls = ThreadPoolExecutor(1, thread_name_prefix="pull")
        self._publishing = ThreadPoolExecutor(1, thread_name_prefix="publish")
        self._unpublished: list[Future[None]] = []
        self._failure: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._guarded, args=(target,), name=name, daemon=True)
            for name, target in (("render", self._render_all), ("beat", self._beat_all))
        ]

    def start(self) -> None:
        """Begin to pull."""
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Pull no more and let what is held finish. True when it did, in time."""
        self._stopping.set()
        self._threads[0].join(timeout_s)
        finished = not self._threads[0].is_alive()
        self._idle.set()
        self._threads[1].join(timeout=2 * self._queue.heartbeat_s)
        return finished

    def check(self) -> None:
        """Raise what ended a thread, if something did: the process is then of no more use."""
        if self._failure is not None:
            raise RuntimeError(f"the render loop ended: {self._failure!r}") from self._failure

    def _guarded(self, target: Callable[[], None]) -> None:
        try:
            target()
        except BaseException as error:
            log.exception("a thread of the replica ended")
            self._failure = error
            self._stopping.set()

    # -- rendering -----------------------------------------------------------------------------------------------

    def _render_all(self) -> None:
        coming: Future[Work | None] | None = None
        while not self._stopping.is_set():
            if coming is None:
                coming = self._pulls.submit(self._pull)
            work = coming.result()
            coming = None
            if work is not None:
                coming = self._render(work)
        # What was pulled in the last moment is leased to us: render it too, or its lease would have to run out.
        while coming is not None and (work := coming.result()) is not None:
            coming = self._render(work)
        self._wait_for_published()

    def _pull(self) -> Work | None:
        pause_s = _FIRST_PAUSE_S
        while not self._stopping.is_set():
            try:
                with self._lock:
                    holds = tuple(held.lease for held in self._held.values())
                work = self._link.pull(replace(self._hello, holds=holds))
            except Exception as error:
                log.info("the dispatcher does not answer (%s): asking again", type(error).__name__)
                self._stopping.wait(pause_s)
                pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s)
                continue
            if work is not None:
                self._take(work)
            return work
        return None

    def _take(self, work: Work) -> None:
        """Ours from now on, also while it waits for the batch before it: heartbeats keep its leases."""
        taken = {lease.task_id: _Held(lease) for lease in work.leases}
        with self._lock:
            self._held |= taken
            # What an earlier attempt here was told does not concern this one.
            self._unwanted = self._unwanted - taken.keys()

    def _render(self, work: Work) -> "Future[Work | None] | None":
        """Render a batch; the answer to the pull that it made for the next one, if it made one."""
        with self._lock:
            for lease in work.leases:
                self._held.setdefault(lease.task_id, _Held(lease)).stage = "rendering"
        self._say_begun(work)
        work, done_before = self._leave_out_found(work)
        ended = [Ended(lease, _success(record)) for lease, record in done_before]
        coming: Future[Work | None] | None = None
        # It may be what killed a replica: nobody else's work is in this process while it renders.
        suspect = any(lease.attempt > 1 for lease in work.leases)
        if suspect:
            self._wait_for_published()

        def on_step(done: int, total: int) -> None:
            nonlocal coming
            watch.restart()
            with self._lock:
                for lease in work.leases:
                    if lease.task_id in self._held:
                        self._held[lease.task_id].progress = done / max(1, total)
            if done >= total and coming is None and not suspect and not self._stopping.is_set():
                coming = self._pulls.submit(self._pull)

        outcomes: list[Rendered | TaskFailure] = []
        started = time.perf_counter()
        if work.batch.tasks:
            with Stopwatch(self._queue.stall_s) as watch:
                outcomes = self._renderer.render(work.batch, on_step, lambda: self._unwanted)
        call_s = time.perf_counter() - started
        with self._lock:
            for lease in work.leases:
                if lease.task_id in self._held:
                    self._held[lease.task_id].stage = "encoding"
        one_call = bool(outcomes) and all(isinstance(o, Rendered) and o.attempts == 1 for o in outcomes)
        self._unpublished.append(
            self._publishing.submit(self._publish, work, outcomes, ended, call_s if one_call else 0.0)
        )
        # A slow store slows the model down before memory fills up.
        self._wait_for_published(_UNPUBLISHED_BATCHES - 1)
        return coming

    def _say_begun(self, work: Work) -> None:
        said = Begun(self._hello.replica, frozenset((lease.task_id, lease.epoch) for lease in work.leases))
        try:
            self._link.begun(said)
        except Exception as error:  # heartbeats say it too
            log.info("the dispatcher does not answer (%s): rendering all the same", type(error).__name__)

    def _wait_for_published(self, most: int = 0) -> None:
        """Until no more than so many batches are being published."""
        while len(self._unpublished) > most:
            self._unpublished.pop(0).result()

    def _leave_out_found(self, work: Work) -> tuple[Work, list[tuple[Lease, Record]]]:
        """Later leases first look whether the clip is there: the process that stored it may have died just then."""
        found: list[tuple[Lease, Record]] = []
        rest = []
        for task, lease, queue_s in zip(work.batch.tasks, work.leases, work.queue_s, strict=True):
            record = self._publisher.found(task, work.batch.group) if lease.epoch > 1 else None
            if record is None:
                rest.append((task, lease, queue_s))
            else:
                found.append((lease, record))
        batch = RenderBatch(work.batch.group, tuple(task for task, _, _ in rest))
        left = Work(batch, tuple(lease for _, lease, _ in rest), tuple(queue_s for _, _, queue_s in rest), work.lease_s)
        return left, found

    # -- publishing ----------------------------------------------------------------------------------------------

    def _publish(self, work: Work, outcomes: list[Rendered | TaskFailure], ended: list[Ended], render_s: float) -> None:
        for outcome, lease, queue_s in zip(outcomes, work.leases, work.queue_s, strict=True):
            ended.append(self._ended(outcome, lease, queue_s))
        self._tell(Results(self._hello.replica, work.batch.group, tuple(ended), render_s))
        with self._lock:
            for end in ended:
                if self._holds(end.lease.task_id, end.lease.epoch):
                    del self._held[end.lease.task_id]
            self._unwanted = self._unwanted & self._held.keys()

    def _ended(self, outcome: Rendered | TaskFailure, lease: Lease, queue_s: float) -> Ended:
        variant = self._hello.variant
        if isinstance(outcome, Rendered):
            try:
                return Ended(lease, _success(self._publisher.publish(outcome, queue_s=queue_s)))
            except RushesError as error:
                outcome = TaskFailure(outcome.task, outcome.group, error, outcome.lost_s + outcome.render_s)
            except Exception as error:
                # An encoder's error, a full disk: of this machine, so another may do better.
                log.exception("task %s: its clip could not be published", lease.task_id)
                return Ended(lease, None, "its clip could not be encoded or stored", type(error).__name__)
        cause = outcome.error
        if is_transient(cause):
            return Ended(lease, None, _told(cause)[0], type(cause).__name__)
        status = Status.CANCELLED if isinstance(cause, CancelledError) else Status.FAILED
        failure, code = ("", "") if status is Status.CANCELLED else _told(cause)
        return Ended(
            lease,
            Outcome(
                status=status,
                variant=variant,
                failure=failure,
                failure_code=code,
            ),
        )

    def _tell(self, results: Results) -> None:
        pause_s, started = _FIRST_PAUSE_S, time.monotonic()
        while time.monotonic() - started < _TELL_S:
            try:
                return self._link.done(results)
            except Exception as error:
                log.info("results wait: the dispatcher does not answer (%s)", type(error).__name__)
                time.sleep(pause_s)
                pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s)
        log.error("results of %d tasks are lost to the dispatcher: their leases run out", len(results.ended))
        return None

    # -- heartbeats ----------------------------------------------------------------------------------------------

    def _beat_all(self) -> None:
        while not self._idle.wait(self._queue.heartbeat_s):
            with self._lock:
                held = tuple(Progress(h.lease.task_id, h.lease.epoch, h.progress, h.stage) for h in self._held.values())
            try:
                unwanted = self._link.beat(Beat(self._hello.replica, held, self._hello.variant))
            except Exception as error:
                log.info("no heartbeat: the dispatcher does not answer (%s)", type(error).__name__)
                continue
            told = {at.task_id: at.epoch for at in held if at.task_id in unwanted}
            with self._lock:  # an answer about a lease that is over is none about the next
                mine = {task_id for task_id, epoch in told.items() if self._holds(task_id, epoch)}
                self._unwanted = self._unwanted | mine

    def _holds(self, task_id: str, epoch: int) -> bool:
        held = self._held.get(task_id)
        return held is not None and held.lease.epoch == epoch


def _success(record: Record) -> Outcome:
    return Outcome(
        status=Status.SUCCEEDED,
        variant=record.variant,
        clip=record.clip,
        timings=record.timings,
        billed_usd=record.billed_usd,
        billed_gpu_s=record.billed_gpu_s,
    )


def _told(error: RushesError) -> tuple[str, str]:
    """For the client: (what failed, Runway's code). Details stay in the log: they may name paths."""
    log.warning("a task failed: %s: %s", type(error).__name__, error)
    if isinstance(error, MediaError):
        return "an input image or video cannot be read", "ASSET.INVALID"
    if isinstance(error, BadOutputError):
        return "the model's output is no clip", "INTERNAL.BAD_OUTPUT.CODE01"
    return f"the model failed on this task ({type(error).__name__})", "INTERNAL"
