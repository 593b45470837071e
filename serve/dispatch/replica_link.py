"""The dispatcher, as the worker of a replica reaches it: work is pulled, and what becomes of it is told.

A dispatcher that is away is asked again; what was rendered meanwhile is kept until it was told.
"""

import logging
import time
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

from tenacity import Retrying, before_sleep_log, stop_after_delay, wait_exponential

from actors.failures import explain
from actors.publisher import Publisher
from actors.renderer import TaskFailure
from actors.work import BatchEnd, ItemEnd, ItemProgress, WorkBatch, WorkItem
from schemas.clip import Record, Status, Timings
from schemas.errors import CancelledError, ModerationRefusedError
from schemas.task import Group
from serve.dispatch.messages import Beat, Begun, Ended, Hello, Results, Work
from serve.store.contract import Progress
from serve.tasks import Lease, Outcome

log = logging.getLogger(__name__)

_Retrying = partial(
    Retrying, wait=wait_exponential(multiplier=0.1, max=2.0), before_sleep=before_sleep_log(log, logging.INFO)
)
_ASK_S = 2.0  # then the worker may have been stopped
_TELL_S = 900.0  # how long results are kept for a dispatcher that does not answer


class DispatcherCalls(Protocol):
    """What a replica asks and tells. Each may raise anything: the dispatcher may be away."""

    def pull(self, hello: Hello) -> Work | None:
        """The next batch. Waits a while for one; None when there was none."""
        ...

    def begun(self, said: Begun) -> None: ...
    def beat(self, beat: Beat) -> tuple[str, ...]: ...
    def done(self, results: Results) -> None: ...


@dataclass(frozen=True, eq=False)
class LeasedItem(WorkItem):
    """A task of which this replica has the lease."""

    lease: Lease = field(kw_only=True)


class ReplicaLink:
    """The worker's Link over `dispatcher`. Raises nothing."""

    def __init__(self, dispatcher: DispatcherCalls, hello: Hello, publisher: Publisher) -> None:
        self._dispatcher, self._hello, self._publisher = dispatcher, hello, publisher

    def next(self, held: tuple[LeasedItem, ...]) -> WorkBatch[LeasedItem] | None:
        hello = replace(self._hello, holds=tuple(item.lease for item in held))
        ask = _Retrying(stop=stop_after_delay(_ASK_S), retry_error_callback=lambda tries: None)
        work: Work | None = ask(self._dispatcher.pull, hello)
        if work is None:
            return None
        now = time.time()
        items = tuple(
            # A later lease first looks whether the clip is there: the process that stored it may have died just then.
            LeasedItem(task, now - queue_s, lease.attempt - 1, lease.epoch > 1, lease=lease)
            for task, lease, queue_s in zip(work.batch.tasks, work.leases, work.queue_s, strict=True)
            if lease not in hello.holds
        )
        return WorkBatch(work.batch.group, items)

    def found(self, group: Group, item: LeasedItem) -> Record | None:
        return self._publisher.found(item.task, group)

    def begin(self, batch: WorkBatch[LeasedItem]) -> None:
        """From here on it is an attempt: what ends the process has cost one."""
        leases = frozenset((item.lease.task_id, item.lease.epoch) for item in batch.items)
        try:
            self._dispatcher.begun(Begun(self._hello.replica, leases))
        except Exception as error:  # heartbeats say it too
            log.info("the dispatcher does not answer (%s): rendering all the same", type(error).__name__)

    def rendered(self, batch: WorkBatch[LeasedItem]) -> None:
        """Heartbeats say it."""

    def beat(self, progress: tuple[ItemProgress[LeasedItem], ...]) -> Collection[LeasedItem]:
        told = tuple(Progress(at.item.lease.task_id, at.item.lease.epoch, at.share, at.stage.value) for at in progress)
        try:
            unwanted = self._dispatcher.beat(Beat(self._hello.replica, told, self._hello.variant))
        except Exception as error:
            log.info("no heartbeat: the dispatcher does not answer (%s)", type(error).__name__)
            return ()
        return [at.item for at in progress if at.item.lease.task_id in unwanted]

    def ended(self, end: BatchEnd[LeasedItem]) -> None:
        results = Results(
            self._hello.replica,
            end.group,
            tuple(self._ended(one) for one in end.ends),
            end.busy_s if end.one_call else 0.0,
        )
        try:
            _Retrying(stop=stop_after_delay(_TELL_S), reraise=True)(self._dispatcher.done, results)
        except Exception as error:
            log.error("results of %d tasks are lost, their leases run out: %s", len(results.ended), error)

    def _ended(self, one: ItemEnd[LeasedItem]) -> Ended:
        """For the store, and so for the client: details stay in the log, as they may name paths."""
        lease, end = one.item.lease, one.end
        if isinstance(end, TaskFailure):
            return self._failed(lease, end)
        outcome = Outcome(
            status=Status.SUCCEEDED,
            variant=end.variant,
            clip=end.clip,
            timings=end.timings,
            billed_usd=end.billed_usd,
            billed_gpu_s=end.billed_gpu_s,
            billed_finish_usd=end.billed_finish_usd,
            moderation=end.moderation,
        )
        return Ended(lease, outcome)

    def _failed(self, lease: Lease, failure: TaskFailure) -> Ended:
        error, variant = failure.error, self._hello.variant
        if isinstance(error, CancelledError):
            return Ended(lease, Outcome(status=Status.CANCELLED, variant=variant))
        said = explain(error)
        log.warning("task %s failed: %s: %s", lease.task_id, type(error).__name__, error)
        if said.transient:
            return Ended(lease, None, said.message, type(error).__name__, blameless=said.of_store)
        outcome = Outcome(status=Status.FAILED, variant=variant, failure=said.message, failure_code=said.code)
        if isinstance(error, ModerationRefusedError):
            refused = {"moderation": error.moderation, "timings": Timings(render_s=failure.lost_s)}
            outcome = outcome.model_copy(update={**refused, **self._publisher.bill_of(failure)})
        return Ended(lease, outcome)
