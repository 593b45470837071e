"""How attempts end: for good, with another attempt, or given up; and what is learnt from it."""

import logging
from collections.abc import Callable

from cluster.eta import Eta, EtaBook
from schemas.clip import Status
from serve.config import Queue
from serve.messages import Ended
from serve.metrics import DispatchMetrics
from serve.store.contract import TaskStore
from serve.tasks import Lease, Outcome, StoredTask

log = logging.getLogger(__name__)

_LOSSES = 8


class Ends:
    """Writes ends to the store, fenced by the lease's epoch: what is stale changes nothing."""

    def __init__(
        self,
        queue: Queue,
        tasks: TaskStore,
        book: EtaBook,
        metrics: DispatchMetrics,
        on_cancelled: Callable[[str], None],
    ) -> None:
        """`on_cancelled` is told the tasks that ended CANCELLED though somebody had begun them, perhaps repeatedly."""
        self._queue, self._tasks, self._book, self._metrics = queue, tasks, book, metrics
        self._on_cancelled = on_cancelled
        self._running: dict[str, StoredTask] = {}

    def began(self, task: StoredTask) -> None:
        """Kept until it ends, so that its offer need not be read again."""
        self._running[task.id] = task

    def ended(self, ended: Ended, now: float) -> None:
        """An attempt is over."""
        lease = ended.lease
        task = self._running.pop(lease.task_id, None) or next(iter(self._tasks.get_many([lease.task_id])), None)
        if ended.outcome is None:
            if task is not None:
                self.retry(
                    task.model_copy(update={"attempts": lease.attempt}), lease.epoch, ended.error, ended.cause, now
                )
            return
        status = self._tasks.finish(lease.task_id, lease.epoch, ended.outcome, now)
        if status is None:
            log.info("task %s: a stale attempt (epoch %d) ended; ignored", lease.task_id, lease.epoch)
            # It may have stored its clip after the task was cancelled.
            late = self._tasks.get_many([lease.task_id]) if ended.outcome.clip is not None else ()
            if any(task.status is Status.CANCELLED for task in late):
                self._on_cancelled(lease.task_id)
            return
        self._over(lease.task_id, ended.outcome.variant, status)
        if task is not None and status is Status.SUCCEEDED:
            self._compare(task, ended.outcome, now)

    def _compare(self, task: StoredTask, outcome: Outcome, now: float) -> None:
        """What came against what was said."""
        offer = task.offer
        estimate_s, p90_s = offer.eta_at - task.created_at, offer.eta_p90_at - task.created_at
        took_s = now - task.created_at
        self._metrics.eta_error(took_s, estimate_s, p90_s)
        self._metrics.quote_error(outcome.billed_usd, offer.usd)
        if offer.raw_s > 0:
            self._book.complete(Eta(estimate_s, p90_s, offer.regime, offer.raw_s), took_s)

    def not_begun(self, leases: tuple[Lease, ...], why: str, now: float) -> list[str]:
        """Leases of which nobody began anything end, at no cost; the tasks' ids."""
        ids = []
        for lease in leases:
            self._running.pop(lease.task_id, None)
            # Hardly anything is lost so often before it begins: from then on it counts, so that it ends.
            spent = lease.epoch >= _LOSSES * self._queue.max_attempts
            if spent:
                for task in self._tasks.get_many([lease.task_id]):
                    self.retry(task, lease.epoch, why, "NotBegun", now)
            elif self._tasks.give_back(lease.task_id, lease.epoch, why, now, spent=False) is Status.PENDING:
                ids.append(lease.task_id)
        return ids

    def retry(self, task: StoredTask, epoch: int, error: str, cause: str, now: float) -> bool:
        """A failed attempt: back into the queue (True), or dead after `max_attempts`."""
        if task.attempts >= self._queue.max_attempts:
            outcome = Outcome(
                status=Status.FAILED,
                variant=task.variant or task.offer.variant,
                failure=f"given up after {task.attempts} attempts: {error}",
                failure_code="INTERNAL",
                dead=True,
            )
            self._over(task.id, outcome.variant, self._tasks.finish(task.id, epoch, outcome, now))
            return False
        wait_s = self._queue.retry_base_s * 2.0 ** (task.attempts - 1)
        status = self._tasks.give_back(task.id, epoch, error, now + wait_s)
        if status is Status.PENDING:
            self._metrics.retried(cause)
            return True
        self._over(task.id, task.variant, status)
        return False

    def _over(self, task_id: str, variant: str, status: Status | None) -> None:
        if status is not None:
            self._metrics.finished(variant, status)
        if status is Status.CANCELLED:
            self._on_cancelled(task_id)

    def give_up(self, task: StoredTask, why: str, now: float) -> None:
        """End a task that nobody holds, and that nobody ever can."""
        outcome = Outcome(
            status=Status.FAILED, variant=task.offer.variant, failure=why, failure_code="INTERNAL", dead=True
        )
        for lease in self._tasks.lease([task.seq], "broker", outcome.variant, now + 60, now):
            self._over(task.id, outcome.variant, self._tasks.finish(lease.task_id, lease.epoch, outcome, now))
