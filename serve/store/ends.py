"""What the end of a task sets off, in the transaction that ends it: webhooks become due, a batch may be over."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import JsonValue
from sqlalchemy import Connection, bindparam, func, insert, literal, select, update

from schemas.clip import Status
from serve.store.database import AnyRow
from serve.store.tables import batches, deliveries, tasks
from serve.tasks import LIVE, Outcome

LIVE_VALUES = tuple(status.value for status in LIVE)

_LIVE_IN_BATCH = (
    select(literal(1)).where(tasks.c.batch_id == bindparam("batch"), tasks.c.status.in_(LIVE_VALUES)).limit(1)
)
_BATCH_SUMS = (
    select(tasks.c.status, func.count(), func.sum(tasks.c.billed_usd))
    .where(tasks.c.batch_id == bindparam("batch"))
    .group_by(tasks.c.status)
)
# NO KEY: a submit of more tasks into it, which only refers to the row, does not wait.
_OPEN_BATCH = (
    select(batches)
    .where(batches.c.id == bindparam("batch"), batches.c.finished_at.is_(None))
    .with_for_update(key_share=True)
)
_END_BATCH = update(batches).where(batches.c.id == bindparam("batch"))
_ADD_DELIVERY = insert(deliveries)
# What `announce` reads of a task that ended.
ENDED_COLUMNS = (
    tasks.c.id,
    tasks.c.key_id,
    tasks.c.kind,
    tasks.c.model,
    tasks.c.variant,
    tasks.c.batch_id,
    tasks.c.webhook_url,
)


@dataclass(frozen=True)
class Sums:
    """Of a batch's tasks."""

    counts: Mapping[str, int]
    billed_usd: float

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def status(self) -> Status:
        """PENDING, RUNNING, and at the end: CANCELLED when a task was, SUCCEEDED when one did, else FAILED."""
        if any(self.counts.get(live) for live in LIVE_VALUES):
            waiting = self.counts.get(Status.PENDING, 0) + self.counts.get(Status.THROTTLED, 0)
            return Status.PENDING if waiting == self.total else Status.RUNNING
        for status in (Status.CANCELLED, Status.SUCCEEDED, Status.FAILED):
            if self.counts.get(status):
                return status
        return Status.PENDING


def sums(connection: Connection, batch_id: str) -> Sums:
    rows = connection.execute(_BATCH_SUMS, {"batch": batch_id}).all()
    return Sums({status: count for status, count, _ in rows}, sum(billed for _, _, billed in rows))


def announce(connection: Connection, ended: Iterable[AnyRow], outcome: Outcome, now: float) -> None:
    """Make the webhooks of tasks that ended just now due, and those of the batches that this completes.

    Rows have `ENDED_COLUMNS`; all ended alike.
    """
    batch_ids = set()
    for task in ended:
        if task.webhook_url is not None:
            _add(connection, task.id, task.key_id, task.webhook_url, _task_message(task, outcome, now), now)
        if task.batch_id is not None:
            batch_ids.add(task.batch_id)
    # Sorted: two transactions that wait for several batches wait in the same order.
    for batch_id in sorted(batch_ids):
        _settle(connection, batch_id, now)


def end_batch(connection: Connection, batch: AnyRow, status: Status, of: Sums, now: float, failure: str = "") -> None:
    """Close a batch that was open, and make its webhook due. The caller holds its row."""
    connection.execute(
        _END_BATCH,
        {
            "batch": batch.id,
            "status": status.value,
            "counts": json.dumps(of.counts),
            "billed_usd": of.billed_usd,
            "finished_at": now,
            "failure": failure,
        },
    )
    if batch.webhook_url is not None:
        data: dict[str, JsonValue] = {
            "id": batch.id,
            "status": status.value,
            "total": batch.total,
            "counts": dict(of.counts),
        }
        if failure:
            data["failure"] = failure
        message = _message("batch.finished", data, now)
        _add(connection, batch.id, batch.key_id, batch.webhook_url, message, now)


def open_batch(connection: Connection, batch_id: str) -> AnyRow | None:
    """A batch that has not ended, its row held until the transaction ends."""
    return connection.execute(_OPEN_BATCH, {"batch": batch_id}).one_or_none()


def _settle(connection: Connection, batch_id: str, now: float) -> None:
    # First the row's lock, then the question: of two last tasks that end together, the later sees both ended.
    batch = open_batch(connection, batch_id)
    if batch is None or connection.execute(_LIVE_IN_BATCH, {"batch": batch_id}).first() is not None:
        return
    of = sums(connection, batch_id)
    if of.total >= batch.total:  # Fewer: the rest is still being submitted.
        end_batch(connection, batch, of.status, of, now)


def _task_message(task: AnyRow, outcome: Outcome, now: float) -> str:
    """No URL of the clip in it: those are signed for a while only, so the receiver asks for the task."""
    data: dict[str, JsonValue] = {
        "id": task.id,
        "status": outcome.status.value,
        "kind": task.kind,
        "model": task.model,
        "variant": outcome.variant or task.variant,
    }
    if outcome.failure_code:
        data["failureCode"] = outcome.failure_code
    if outcome.failure:
        data["failure"] = outcome.failure
    if task.batch_id is not None:
        data["batchId"] = task.batch_id
    return _message(f"task.{outcome.status.lower()}", data, now)


def _message(kind: str, data: dict[str, JsonValue], now: float) -> str:
    timestamp = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps({"type": kind, "timestamp": timestamp, "data": data}, separators=(",", ":"))


def _add(connection: Connection, about: str, key_id: str, url: str, payload: str, now: float) -> None:
    # One id per end: a receiver that gets the message twice knows it for the same.
    connection.execute(
        _ADD_DELIVERY,
        {
            "id": f"msg_{about}",
            "url": url,
            "key_id": key_id,
            "payload": payload,
            "created_at": now,
            "due_at": now,
            "attempts": 0,
            "last_error": "",
            "given_up": 0,
        },
    )
