"""Tasks in memory: the contract of `TaskStore` without a database, for simulations that run thousands of times.

Nothing outlives the process. Each method holds the one lock of its store, so it is thread-safe and needs no thread.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager

from pydantic_core import from_json

from schemas.clip import Status
from schemas.errors import PermanentError
from schemas.task import Group
from serve.config import DAY_S
from serve.errors import DailyLimitError, IdempotencyError
from serve.store.allowance import month_of, spend_limit
from serve.store.attempts import AttemptEnd, EachAlone, Returned, judge
from serve.store.contract import Batch, Idempotency, Progress, Submitted
from serve.store.memory_rows import WAITING, MemoryRows
from serve.tasks import LIVE, Lease, NewTask, Outcome, StoredTask

_CANCELLED = Outcome(status=Status.CANCELLED, variant="")


class MemoryTasks(MemoryRows, EachAlone):
    """`TaskStore` in memory. `ended` is told, within the change, of the tasks that it ends; `refuses` says before any
    change why a task cannot end."""

    def __init__(
        self,
        lock: AbstractContextManager[object],
        *,
        has_batch: Callable[[str], bool],
        add_batch: Callable[[Batch], None],
        refuses: Callable[[StoredTask], str | None],
        ended: Callable[[Sequence[StoredTask]], None],
    ) -> None:
        super().__init__(lock)
        self._has_batch, self._add_batch, self._refuses, self._ended = has_batch, add_batch, refuses, ended
        self._cancelled_at: dict[str, float] = {}
        self._keys: dict[tuple[str, str], tuple[str, tuple[str, ...], float]] = {}

    def submit(
        self,
        tasks: Sequence[NewTask],
        now: float,
        *,
        idempotency: Idempotency | None = None,
        max_live: int | None = None,
        max_since: tuple[float, int] | None = None,
        max_month_usd: float | None = None,
        batch: Batch | None = None,
    ) -> Submitted:
        if not tasks:
            return Submitted(())
        key_id = tasks[0].key_id
        if any(task.key_id != key_id for task in tasks):
            raise ValueError("tasks of several keys in one submit")
        with self._lock:
            if idempotency is not None and (then := self.replay(key_id, idempotency)) is not None:
                return Submitted(then, replayed=True)
            free = self._room(key_id, len(tasks), max_live, max_since)
            ids = [task.id for task in tasks]
            if len(set(ids)) < len(ids) or not self._rows.keys().isdisjoint(ids):
                raise PermanentError("the task store refuses: a task of that id is there")
            self._check_spending(key_id, sum(task.offer.usd for task in tasks), now, max_month_usd)
            if batch is not None:
                self._add_batch(batch)
            if not all(task.batch_id is None or self._has_batch(task.batch_id) for task in tasks):
                raise PermanentError("the task store refuses: there is no such batch")
            if idempotency is not None:
                self._keys[key_id, idempotency.key] = idempotency.digest, tuple(ids), now
            stored = []
            waiting = iter(range(len(tasks)))
            for task in tasks:
                fields = {**dict(task), "seq": self._number(), "created_at": now, "story": task.offer.story}
                if task.outcome is not None:
                    fields |= {"status": task.outcome.status, "finished_at": now, "variant": task.outcome.variant}
                else:
                    fields["status"] = Status.PENDING if next(waiting) < free else Status.THROTTLED
                stored.append(StoredTask.model_construct(**fields))
                self._put(stored[-1])
            self._ended([task for task in stored if task.outcome is not None])
            return Submitted(tuple(stored))

    def replay(self, key_id: str, idempotency: Idempotency) -> tuple[StoredTask, ...] | None:
        with self._lock:
            seen = self._keys.get((key_id, idempotency.key))
            if seen is None:
                return None
            digest, ids, _ = seen
            if digest != idempotency.digest:
                raise IdempotencyError("this Idempotency-Key was used with another body")
            return self.get_many(ids)

    def lease(
        self,
        seqs: Sequence[int],
        holder: str,
        variant: str,
        until: float,
        now: float,
        *,
        groups: Mapping[int, str] | None = None,
        fallback: Mapping[int, str] | None = None,
    ) -> tuple[Lease, ...]:
        leases = []
        with self._lock:
            for seq in dict.fromkeys(seqs):
                task = self._live.get(self._ids.get(seq, ""))
                if task is None or task.status is not Status.PENDING or task.cancelled:
                    continue
                regrouped = {"group": Group.model_validate_json(groups[seq])} if groups and seq in groups else {}
                task = self._change(
                    task,
                    status=Status.RUNNING,
                    epoch=task.epoch + 1,
                    attempts=task.attempts + 1,
                    holder=holder,
                    variant=variant,
                    lease_until=until,
                    started_at=now,
                    fallback=(fallback or {}).get(seq, ""),
                    progress=0.0,
                    stage="",
                    **regrouped,
                )
                leases.append(Lease(task_id=task.id, seq=seq, epoch=task.epoch, attempt=task.attempts))
        return tuple(leases)

    def renew(self, progress: Sequence[Progress], until: float) -> tuple[str, ...]:
        with self._lock:
            return tuple(at.task_id for at in progress if not self._renewed(at, until))

    def settle(self, ends: Sequence[AttemptEnd], now: float) -> tuple[Status | None, ...]:
        with self._lock:
            for end in ends:
                if end.task_id in self._live and (why := self._refuses(self._live[end.task_id])):
                    raise PermanentError(f"the task store refuses: {why}")
            over: list[StoredTask] = []
            answers = tuple(self._settled(end, now, over) for end in ends)
            self._ended(over)
            return answers

    def take_up(self, task_id: str, epoch: int, holder: str, until: float, now: float) -> bool:
        with self._lock:
            task = self._live.get(task_id)
            if task is None or task.status is not Status.PENDING or task.epoch != epoch:
                return False
            self._change(task, status=Status.RUNNING, holder=holder, lease_until=until, started_at=now)
            return True

    def cancel(self, task_id: str, key_id: str | None, now: float) -> Status | None:
        with self._lock:
            task = self.get(task_id, key_id)
            if task is None:
                return None
            self._cancel([task], now)
            return task.status

    def cancel_batch(self, batch_id: str, now: float) -> int:
        """Cancel its unfinished tasks; how many were not cancelled before."""
        with self._lock:
            return self._cancel([task for task in self._live.values() if task.batch_id == batch_id], now)

    def delete(self, task_id: str, key_id: str | None) -> bool:
        with self._lock:
            task = self.get(task_id, key_id)
            if task is not None:
                self._change(task, deleted=True)
                if task.epoch == 0:
                    self._purged.add(task.id)
            return task is not None

    def purged(self, task_ids: Sequence[str]) -> None:
        with self._lock:
            self._purged |= {task_id for task_id in task_ids if task_id in self._rows and self._rows[task_id].deleted}

    def prune_keys(self, before: float, limit: int) -> int:
        with self._lock:
            old = [name for name, (_, _, used_at) in self._keys.items() if used_at < before][:limit]
            for name in old:
                del self._keys[name]
            return len(old)

    def prune(self, before: float, limit: int, *, is_open: Callable[[str], bool]) -> int:
        """Those that ended before; not of batches that are open."""
        with self._lock:
            old = [
                task
                for task in sorted(self._rows.values(), key=lambda task: task.finished_at or 0.0)
                if task.finished_at is not None
                and task.finished_at < before
                and (not task.deleted or task.id in self._purged)
                and (task.batch_id is None or not is_open(task.batch_id))
            ][:limit]
            for task in old:
                self._forget(task)
                self._cancelled_at.pop(task.id, None)
            return len(old)

    def release(self, key_id: str, max_live: int, now: float) -> tuple[StoredTask, ...]:  # noqa: ARG002 - the contract's
        with self._lock:
            free = max(0, int(self._room(key_id, 0, max_live, None)))
            waiting = [task for task in self._with(Status.THROTTLED) if task.key_id == key_id]
            released = []
            for task in waiting[:free]:
                del self._ids[task.seq]
                released.append(self._change(task, seq=self._number(), status=Status.PENDING))
            return tuple(released)

    def reprice(self, task_id: str, group: str, story: str) -> None:
        with self._lock:
            task = self._live.get(task_id)
            if task is not None and task.status in WAITING:
                self._change(task, group=Group.model_validate_json(group), story=tuple(from_json(story)))

    def _room(self, key_id: str, wanted: int, max_live: int | None, max_since: tuple[float, int] | None) -> float:
        """How many more tasks of a key may be PENDING."""
        if max_since is not None:
            since, most = max_since
            made = sum(task.key_id == key_id and task.created_at >= since for task in self._rows.values())
            if made + wanted > most:
                raise DailyLimitError(f"{most} tasks a day, {made} made, {wanted} more asked for", since + DAY_S)
        if max_live is None:
            return float("inf")
        live = sum(task.key_id == key_id and task.status is not Status.THROTTLED for task in self._live.values())
        return max_live - live

    def _check_spending(self, key_id: str, usd: float, now: float, most_usd: float | None) -> None:
        if most_usd is None or usd <= 0:
            return
        spent = sum(
            task.offer.usd if task.outcome is None else task.outcome.billed_usd
            for task in self._rows.values()
            if task.key_id == key_id and month_of(task.created_at) == month_of(now)
        )
        if spent + usd > most_usd + 1e-9:
            raise spend_limit(most_usd, spent, usd, now)

    def _renewed(self, at: Progress, until: float) -> bool:
        """False: its holder must stop."""
        task = self._live.get(at.task_id)
        if task is None or task.status is not Status.RUNNING or task.epoch != at.epoch:
            return False
        self._change(task, lease_until=until, progress=at.progress, stage=at.stage)
        return not task.cancelled

    def _settled(self, end: AttemptEnd, now: float, over: list[StoredTask]) -> Status | None:
        task = self._rows.get(end.task_id)
        if task is None:
            return None
        verdict = judge(
            end,
            status=task.status,
            epoch=task.epoch,
            variant=task.variant,
            cancelled_at=self._cancelled_at.get(task.id),
            outcome=None if task.outcome is None else task.outcome.model_dump_json(),
            now=now,
        )
        if verdict.outcome is not None:
            over.append(self._over(task, verdict.outcome, verdict.at))
        elif isinstance(end, Returned) and verdict.status is Status.PENDING:
            unspent = 0 if end.spent else 1
            self._change(
                task,
                status=Status.PENDING,
                holder="",
                lease_until=0.0,
                started_at=None,
                progress=0.0,
                stage="",
                last_error=end.error,
                not_before=end.not_before,
                attempts=task.attempts - unspent,
                epoch=task.epoch + unspent,
            )
        return verdict.status

    def _cancel(self, tasks: Iterable[StoredTask], now: float) -> int:
        over, marked = [], 0
        for task in tasks:
            if task.status not in LIVE or task.cancelled:
                continue
            marked += 1
            self._cancelled_at[task.id] = now
            task = self._change(task, cancelled=True)
            if task.status in WAITING:
                over.append(self._over(task, _CANCELLED, now))
        self._ended(over)
        return marked

    def _over(self, task: StoredTask, outcome: Outcome, at: float) -> StoredTask:
        return self._change(
            task,
            status=outcome.status,
            finished_at=at,
            outcome=outcome,
            variant=outcome.variant or task.variant,
            progress=1.0 if outcome.status is Status.SUCCEEDED else task.progress,
            stage="",
            lease_until=0.0,
        )
