"""The rows of tasks in memory, and every question that `TaskStore` answers of them."""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any

from schemas.clip import Status
from serve.config import DAY_S
from serve.store.contract import MOST_AHEAD, Counts, LiveRow
from serve.tasks import LIVE, StoredTask

WAITING = (Status.PENDING, Status.THROTTLED)


class MemoryRows:
    """By id; those that are live apart, since they are few. Values are frozen: what was handed out never changes."""

    def __init__(self, lock: AbstractContextManager[object]) -> None:
        self._lock = lock
        self._rows: dict[str, StoredTask] = {}
        self._live: dict[str, StoredTask] = {}
        self._ids: dict[int, str] = {}  # by seq
        self._purged: set[str] = set()
        self._days: defaultdict[tuple[str, int, str], list[float]] = defaultdict(list)  # bills of pruned tasks
        self._last_seq = 0

    def get(self, task_id: str, key_id: str | None = None) -> StoredTask | None:
        task = self._rows.get(task_id)
        if task is None or task.deleted or key_id not in (None, task.key_id):
            return None
        return task

    def get_many(self, task_ids: Sequence[str]) -> tuple[StoredTask, ...]:
        with self._lock:
            return tuple(self._rows[task_id] for task_id in task_ids if task_id in self._rows)

    def positions(self, tasks: Sequence[StoredTask]) -> tuple[int, ...]:
        with self._lock:
            queue = sorted((-task.priority, task.seq) for task in self._with(Status.PENDING))
        return tuple(
            min(MOST_AHEAD, bisect_left(queue, (-task.priority, task.seq))) if task.status in WAITING else 0
            for task in tasks
        )

    def pending(self, after_seq: int = 0, limit: int = 5000) -> tuple[StoredTask, ...]:
        with self._lock:
            return tuple(self._with(Status.PENDING, after_seq)[:limit])

    def live_index(self, after_seq: int = 0, limit: int = 200_000) -> tuple[LiveRow, ...]:
        with self._lock:
            rows = sorted((*self._with(Status.PENDING, after_seq), *self._with(Status.RUNNING, after_seq)), key=_seq)
        return tuple(
            LiveRow(
                task.seq,
                task.id,
                task.status,
                task.epoch,
                task.attempts,
                task.holder,
                task.lease_until,
                task.not_before,
                task.cancelled,
            )
            for task in rows[:limit]
        )

    def waiting_again(self, now: float) -> tuple[StoredTask, ...]:
        with self._lock:
            again = [task for task in self._with(Status.PENDING) if task.attempts > 0 and task.not_before <= now]
        return tuple(sorted(again, key=lambda task: task.not_before))

    def expired(self, now: float) -> tuple[StoredTask, ...]:
        return tuple(task for task in self.running() if task.lease_until < now)

    def running(self) -> tuple[StoredTask, ...]:
        with self._lock:
            return tuple(self._with(Status.RUNNING))

    def throttled_keys(self) -> tuple[str, ...]:
        with self._lock:
            return tuple(sorted({task.key_id for task in self._with(Status.THROTTLED)}))

    def counts(self, key_id: str | None = None, *, statuses: Sequence[Status] = tuple(Status)) -> Counts:
        with self._lock:
            found = [task for task in self._rows.values() if key_id in (None, task.key_id)]
        by_status = Counter(task.status for task in found)
        dead = sum(task.outcome is not None and task.outcome.dead for task in found)
        return Counts({status: by_status[status] for status in statuses}, dead)

    def recent(
        self,
        limit: int = 20,
        *,
        statuses: Sequence[Status] = (),
        key_id: str | None = None,
        batch_id: str | None = None,
        before_seq: int | None = None,
    ) -> tuple[StoredTask, ...]:
        with self._lock:
            found = [
                task
                for task in self._rows.values()
                if not task.deleted
                and (not statuses or task.status in statuses)
                and key_id in (None, task.key_id)
                and batch_id in (None, task.batch_id)
                and (before_seq is None or task.seq < before_seq)
            ]
        return tuple(sorted(found, key=_seq, reverse=True)[:limit])

    def usage(self, key_id: str, start: float, before: float) -> tuple[tuple[str, str, int, float], ...]:
        bills: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
        with self._lock:
            for task in self._rows.values():
                if task.key_id == key_id and start <= task.created_at < before:
                    bills[_date(task.created_at), task.model].append(_bill(task))
            for (owner, day, model), usd in self._days.items():
                if owner == key_id and start <= day * DAY_S < before:
                    bills[_date(day * DAY_S), model] += usd
        return tuple((date, model, len(usd), sum(usd)) for (date, model), usd in sorted(bills.items()))

    def media_in_use(self) -> frozenset[str]:
        with self._lock:
            requests = [task.request for task in self._live.values()]
        return frozenset(given.input.uri for request in requests for given in request.all_inputs)

    def of_batch(self, batch_id: str) -> tuple[StoredTask, ...]:
        with self._lock:
            return tuple(task for task in self._rows.values() if task.batch_id == batch_id)

    def unpurged(self, limit: int = 500) -> tuple[str, ...]:
        with self._lock:
            found = [
                task
                for task in self._rows.values()
                if task.deleted and task.finished_at is not None and task.id not in self._purged
            ]
        return tuple(task.id for task in sorted(found, key=_seq)[:limit])

    def _put(self, task: StoredTask) -> None:
        self._rows[task.id] = task
        self._ids[task.seq] = task.id
        if task.status in LIVE:
            self._live[task.id] = task
        else:
            self._live.pop(task.id, None)

    def _change(self, task: StoredTask, **fields: Any) -> StoredTask:
        changed = task.model_copy(update=fields)
        self._put(changed)
        return changed

    def _with(self, status: Status, after_seq: int = 0) -> list[StoredTask]:
        """Live tasks of that status, by seq."""
        return sorted(
            (task for task in self._live.values() if task.status is status and task.seq > after_seq), key=_seq
        )

    def _number(self) -> int:
        self._last_seq += 1
        return self._last_seq

    def _forget(self, task: StoredTask) -> None:
        """Its bill stays in the usage."""
        self._days[task.key_id, int(task.created_at // DAY_S), task.model].append(_bill(task))
        del self._rows[task.id], self._ids[task.seq]
        self._purged.discard(task.id)


def _seq(task: StoredTask) -> int:
    return task.seq


def _date(instant: float) -> str:
    return datetime.fromtimestamp(instant, UTC).date().isoformat()


def _bill(task: StoredTask) -> float:
    return 0.0 if task.outcome is None else task.outcome.billed_usd
