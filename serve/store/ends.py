"""What the end of a task sets off, in the transaction that ends it: webhooks become due, a batch may be over."""

import json
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, func, insert, literal, select, update

from schemas.clip import Status
from serve.store.allowance import spend
from serve.store.audit import tell, teller_of
from serve.store.audit_entries import batch_ended
from serve.store.database import AnyRow
from serve.store.messages import LIVE_VALUES, Sums, batch_message, delivery, task_message
from serve.store.tables import batches, deliveries, tasks
from serve.tasks import Outcome

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
    tasks.c.created_at,
    tasks.c.quoted_usd,
)


@dataclass(frozen=True)
class TaskEnd:
    """A task whose row (with `ENDED_COLUMNS`) the caller holds ended so, at this instant."""

    row: AnyRow
    outcome: Outcome
    at: float


def sums(connection: Connection, batch_id: str) -> Sums:
    rows = connection.execute(_BATCH_SUMS, {"batch": batch_id}).all()
    return Sums({status: count for status, count, _ in rows}, sum(billed for _, _, billed in rows))


def announce(connection: Connection, ended: Iterable[TaskEnd]) -> None:
    """Make the webhooks of tasks that ended just now due, and those of the batches that this completes; their bills
    take the place of their quotes."""
    ended = tuple(ended)
    last: dict[str, float] = {}
    for end in ended:
        task = end.row
        if task.webhook_url is not None:
            message = task_message(
                task_id=task.id,
                kind=task.kind,
                model=task.model,
                variant=task.variant,
                batch_id=task.batch_id,
                outcome=end.outcome,
                now=end.at,
            )
            _add(connection, task.id, task.key_id, task.webhook_url, message, end.at)
        if task.batch_id is not None:
            last[task.batch_id] = max(end.at, last.get(task.batch_id, end.at))
    # Sorted: two transactions that wait for several batches wait in the same order.
    for batch_id in sorted(last):
        _settle(connection, batch_id, last[batch_id])
    spend(
        connection,
        ((end.row.key_id, end.row.created_at, end.outcome.billed_usd - end.row.quoted_usd) for end in ended),
    )


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
    tell(connection, [batch_ended(batch, status, of.counts, of.billed_usd, failure, now, teller_of(connection))])
    if batch.run_uri is not None:
        spend(connection, [(batch.key_id, batch.created_at, of.billed_usd - batch.quote_usd)])
    if batch.webhook_url is not None:
        message = batch_message(
            batch_id=batch.id, status=status, total=batch.total, counts=of.counts, failure=failure, now=now
        )
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


def _add(connection: Connection, about: str, key_id: str, url: str, payload: str, now: float) -> None:
    message = delivery(about, key_id, url, payload, now)
    connection.execute(_ADD_DELIVERY, {**vars(message), "given_up": 0})
