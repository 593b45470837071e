"""A store in memory, for simulations and tests of what works on a store: tasks, batches, deliveries, notes, keys.

It forgets everything with its process, so no endpoint may be opened on it: `open_store` never gives one.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from threading import RLock

from pydantic import JsonValue, TypeAdapter

from schemas.clip import Status
from schemas.errors import PermanentError
from serve.store.contract import ApiKey, Batch, Delivery
from serve.store.cutoffs import BATCH_NOTES, Cutoffs, Pruned
from serve.store.memory_tasks import MemoryTasks
from serve.store.messages import Sums, batch_message, delivery, task_message
from serve.tasks import LIVE, StoredTask

_JSON: TypeAdapter[JsonValue] = TypeAdapter(JsonValue)


class MemoryStore:
    """The stores of one process, under one lock."""

    def __init__(self) -> None:
        lock = RLock()
        self.deliveries = MemoryDeliveries(lock)
        self.batches = MemoryBatches(lock, self.deliveries)
        self.tasks = MemoryTasks(
            lock,
            has_batch=lambda batch_id: batch_id in self.batches.kept,
            add_batch=lambda batch: self.batches.create(batch),
            refuses=self._refuses,
            ended=self._ended,
        )
        self.batches.tasks = self.tasks
        self.notes = MemoryNotes()
        self.keys = MemoryKeys(lock)

    def prune(self, before: Cutoffs, limit: int = 500) -> Pruned:
        """As `Store.prune`; there is no router's log."""
        keys = self.tasks.prune_keys(before.idempotency, limit)
        deliveries = self.deliveries.prune(before.deliveries, limit)
        tasks = 0 if keys == limit else self.tasks.prune(before.tasks, limit, is_open=self.batches.is_open)
        batches = self.batches.prune(before.batches, limit)
        for batch_id in batches:
            for prefix in BATCH_NOTES:
                self.notes.forget(prefix + batch_id)
        return Pruned(idempotency=keys, deliveries=deliveries, tasks=tasks, batches=len(batches))

    def close(self) -> None:
        """Nothing is open."""

    def _refuses(self, task: StoredTask) -> str | None:
        told = task.webhook_url is not None and f"msg_{task.id}" in self.deliveries.kept
        return f"a message msg_{task.id} is there" if told else None

    def _ended(self, tasks: Sequence[StoredTask]) -> None:
        last: dict[str, float] = {}
        for task in tasks:
            outcome, at = task.outcome, task.finished_at
            assert outcome is not None
            assert at is not None
            if task.webhook_url is not None:
                message = task_message(
                    task_id=task.id,
                    kind=task.kind,
                    model=task.model,
                    variant=task.variant,
                    batch_id=task.batch_id,
                    outcome=outcome,
                    now=at,
                )
                self.deliveries.add(delivery(task.id, task.key_id, task.webhook_url, message, at))
            if task.batch_id is not None:
                last[task.batch_id] = max(at, last.get(task.batch_id, at))
        for batch_id, at in last.items():
            self.batches.settle(batch_id, at)


class MemoryBatches:
    """`BatchStore` in memory. `tasks` is set by the store that they share."""

    tasks: MemoryTasks

    def __init__(self, lock: AbstractContextManager[object], deliveries: "MemoryDeliveries") -> None:
        self._lock, self._deliveries = lock, deliveries
        self.kept: dict[str, Batch] = {}

    def create(self, batch: Batch) -> None:
        with self._lock:
            if batch.id in self.kept:
                raise PermanentError("the task store refuses: a batch of that id is there")
            self.kept[batch.id] = batch

    def get(self, batch_id: str, key_id: str | None = None) -> Batch | None:
        with self._lock:
            batch = self.kept.get(batch_id)
            if batch is None or key_id not in (None, batch.key_id):
                return None
            if batch.run_uri is not None or batch.finished_at is not None:
                return batch
            now = self._sums(batch_id)
        status = now.status if now.status in LIVE else Status.RUNNING  # Ended, but more is being submitted.
        return replace(batch, status=status, counts=now.counts, billed_usd=now.billed_usd)

    def update(
        self, batch_id: str, status: Status, counts: Mapping[str, int], billed_usd: float, now: float, failure: str = ""
    ) -> None:
        with self._lock:
            batch = self.kept.get(batch_id)
            if batch is None or batch.finished_at is not None:
                return
            if status in LIVE:
                self.kept[batch_id] = replace(
                    batch, status=status, counts=dict(counts), billed_usd=billed_usd, failure=failure
                )
            else:
                self._end(batch, status, Sums(dict(counts), billed_usd), now, failure)

    def planned(self, batch_id: str, total: int, quote_usd: float) -> None:
        with self._lock:
            if batch_id in self.kept:
                self.kept[batch_id] = replace(self.kept[batch_id], total=total, quote_usd=quote_usd)

    def unfinished_runs(self) -> tuple[Batch, ...]:
        with self._lock:
            runs = [batch for batch in self.kept.values() if batch.run_uri is not None and batch.finished_at is None]
        return tuple(sorted(runs, key=lambda batch: batch.created_at))

    def cancel(self, batch_id: str, key_id: str | None, now: float) -> int:
        with self._lock:
            batch = self.kept.get(batch_id)
            if batch is None or key_id not in (None, batch.key_id):
                return 0
            return self.tasks.cancel_batch(batch_id, now)

    def is_open(self, batch_id: str) -> bool:
        return self.kept[batch_id].finished_at is None

    def prune(self, before: float, limit: int) -> list[str]:
        """The ids of those that are gone."""
        with self._lock:
            ended = [batch.id for batch in self.kept.values() if (batch.finished_at or before) < before]
            gone = [batch_id for batch_id in ended if not self.tasks.of_batch(batch_id)][:limit]
            for batch_id in gone:
                del self.kept[batch_id]
            return gone

    def settle(self, batch_id: str, now: float) -> None:
        """A task of it has ended: the batch ends where that was the last."""
        with self._lock:
            batch = self.kept[batch_id]
            of = self._sums(batch_id)
            if batch.finished_at is None and of.status not in LIVE and of.total >= batch.total:
                self._end(batch, of.status, of, now)

    def _sums(self, batch_id: str) -> Sums:
        tasks = self.tasks.of_batch(batch_id)
        counts = Counter(task.status.value for task in tasks)
        return Sums(dict(counts), sum(task.outcome.billed_usd for task in tasks if task.outcome is not None))

    def _end(self, batch: Batch, status: Status, of: Sums, now: float, failure: str = "") -> None:
        self.kept[batch.id] = replace(
            batch, status=status, counts=of.counts, billed_usd=of.billed_usd, finished_at=now, failure=failure
        )
        if batch.webhook_url is not None:
            message = batch_message(
                batch_id=batch.id, status=status, total=batch.total, counts=of.counts, failure=failure, now=now
            )
            self._deliveries.add(delivery(batch.id, batch.key_id, batch.webhook_url, message, now))


class MemoryDeliveries:
    """`DeliveryStore` in memory."""

    def __init__(self, lock: AbstractContextManager[object]) -> None:
        self._lock = lock
        self.kept: dict[str, Delivery] = {}

    def due(self, now: float, limit: int = 100, *, claim_s: float = 60.0) -> tuple[Delivery, ...]:
        with self._lock:
            due = [message for message in self.kept.values() if _waits(message) and message.due_at <= now]
            due = sorted(due, key=lambda message: message.due_at)[:limit]
            claimed = tuple(replace(message, due_at=now + claim_s) for message in due)
            self.kept |= {message.id: message for message in claimed}
            return claimed

    def add(self, delivery: Delivery) -> None:
        with self._lock:
            if delivery.id in self.kept:
                raise PermanentError("the task store refuses: a message of that id is there")
            self.kept[delivery.id] = delivery

    def delivered(self, delivery_id: str, now: float) -> None:
        self._tried(delivery_id, delivered_at=now)

    def failed(self, delivery_id: str, error: str, due_at: float | None) -> None:
        then = {"given_up": True} if due_at is None else {"due_at": due_at}
        self._tried(delivery_id, last_error=error, **then)

    def counts(self) -> Mapping[str, int]:
        with self._lock:
            kept = list(self.kept.values())
        given_up = sum(message.given_up for message in kept)
        delivered = sum(message.delivered_at is not None for message in kept)
        return {"waiting": len(kept) - given_up - delivered, "delivered": delivered, "given_up": given_up}

    def prune(self, before: float, limit: int) -> int:
        def is_old(message: Delivery) -> bool:
            if message.delivered_at is not None:
                return message.delivered_at < before
            return message.given_up and message.due_at < before

        with self._lock:
            old = [message.id for message in self.kept.values() if is_old(message)][: 2 * limit]
            for message_id in old:
                del self.kept[message_id]
            return len(old)

    def _tried(self, delivery_id: str, **fields: object) -> None:
        with self._lock:
            message = self.kept.get(delivery_id)
            if message is not None and _waits(message):
                self.kept[delivery_id] = replace(message, attempts=message.attempts + 1, **fields)  # type: ignore[arg-type]


class MemoryNotes:
    """`NoteStore` in memory. Values are kept as JSON, so that nobody shares one with somebody else."""

    def __init__(self) -> None:
        self._kept: dict[str, bytes] = {}

    def read(self, name: str) -> JsonValue:
        value = self._kept.get(name)
        return None if value is None else _JSON.validate_json(value)

    def write(self, name: str, value: JsonValue) -> None:
        self._kept[name] = _JSON.dump_json(value)

    def write_once(self, name: str, value: JsonValue) -> None:
        self._kept.setdefault(name, _JSON.dump_json(value))

    def forget(self, name: str) -> None:
        self._kept.pop(name, None)

    def read_many(self, prefix: str) -> Mapping[str, JsonValue]:
        names = sorted(name for name in list(self._kept) if name.startswith(prefix))
        return {name: self.read(name) for name in names}


class MemoryKeys:
    """`KeyStore` in memory."""

    def __init__(self, lock: AbstractContextManager[object]) -> None:
        self._lock = lock
        self._kept: dict[str, ApiKey] = {}
        self._ids: dict[str, str] = {}  # by the digest of the secret

    def add(self, key: ApiKey, digest: str) -> None:
        with self._lock:
            if key.id in self._kept or digest in self._ids:
                raise PermanentError("the task store refuses: a key of that id or secret is there")
            self._kept[key.id], self._ids[digest] = key, key.id

    def find(self, digest: str) -> ApiKey | None:
        key = self._kept.get(self._ids.get(digest, ""))
        return None if key is None or key.revoked_at is not None else key

    def get(self, key_id: str) -> ApiKey | None:
        return self._kept.get(key_id)

    def all(self) -> tuple[ApiKey, ...]:
        return tuple(sorted(self._kept.values(), key=lambda key: (key.created_at, key.id)))

    def change(self, key: ApiKey) -> bool:
        with self._lock:
            known = self._kept.get(key.id)
            if known is None or known.revoked_at is not None:
                return False
            self._kept[key.id] = replace(key, created_at=known.created_at, revoked_at=None)
            return True

    def revoke(self, key_id: str, now: float) -> bool:
        with self._lock:
            key = self._kept.get(key_id)
            if key is None or key.revoked_at is not None:
                return False
            self._kept[key_id] = replace(key, revoked_at=now)
            return True


def _waits(message: Delivery) -> bool:
    return message.delivered_at is None and not message.given_up
