"""Batches."""

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update

from schemas.clip import Status
from serve.store import allowance, tables
from serve.store.audit import tell, teller_of
from serve.store.audit_entries import batch_cancel_requested, batch_created, batch_planned
from serve.store.contract import Batch, Idempotency
from serve.store.database import AnyRow, Database, reading, writing
from serve.store.ends import end_batch, open_batch, sums
from serve.store.idempotency import Seen, remember, seen_before
from serve.store.leases import cancel_batch
from serve.store.messages import Sums
from serve.tasks import LIVE

_BATCHES = tables.batches
_GET = select(_BATCHES).where(_BATCHES.c.id == bindparam("batch"))
_BATCH_OF = select(tables.tasks.c.batch_id).where(tables.tasks.c.id == bindparam("task"))
_OPEN_RUNS = (
    select(_BATCHES)
    .where(_BATCHES.c.run_uri.is_not(None), _BATCHES.c.finished_at.is_(None))
    .order_by(_BATCHES.c.created_at)
)
_UPDATE = update(_BATCHES).where(_BATCHES.c.id == bindparam("batch"))


class SqlBatches:
    """`BatchStore` over a database. The tasks of one are stored with it, or after it."""

    def __init__(self, db: Database) -> None:
        self._db = db

    @writing
    def create(self, connection: Connection, batch: Batch) -> None:
        add_batch(connection, batch)

    @writing
    def begin(
        self,
        connection: Connection,
        batch: Batch,
        *,
        idempotency: Idempotency | None = None,
        max_since: tuple[float, int] | None = None,
        max_month_usd: float | None = None,
    ) -> Batch:
        if idempotency is not None:
            seen = remember(connection, batch.key_id, idempotency, batch.created_at, batch_id=batch.id)
            then = None if seen is None else _of(connection, seen)
            if then is not None:
                return then
        allowance.hold(connection, batch.key_id)
        # A manifest's rows are counted once it was read; one at least there will be.
        allowance.check_daily(connection, batch.key_id, max(1, batch.total), max_since)
        allowance.reserve(connection, batch.key_id, batch.created_at, batch.quote_usd, max_month_usd)
        add_batch(connection, batch)
        return batch

    @reading
    def replay(self, connection: Connection, key_id: str, idempotency: Idempotency) -> Batch | None:
        seen = seen_before(connection, key_id, idempotency)
        return None if seen is None else _of(connection, seen)

    @reading
    def get(self, connection: Connection, batch_id: str, key_id: str | None = None) -> Batch | None:
        row = connection.execute(_GET, {"batch": batch_id}).one_or_none()
        if row is None or (key_id is not None and row.key_id != key_id):
            return None
        return _as_it_is(connection, row)

    @writing
    def update(
        self,
        connection: Connection,
        batch_id: str,
        status: Status,
        counts: Mapping[str, int],
        billed_usd: float,
        now: float,
        failure: str = "",
    ) -> None:
        """What a bulk run came to so far. A final status ends it, and makes its webhook due; then it stays."""
        batch = open_batch(connection, batch_id)
        if batch is None:
            return
        if status not in LIVE:
            end_batch(connection, batch, status, Sums(dict(counts), billed_usd), now, failure)
            return
        connection.execute(
            _UPDATE,
            {
                "batch": batch_id,
                "status": status.value,
                "counts": json.dumps(dict(counts)),
                "billed_usd": billed_usd,
                "failure": failure,
            },
        )

    @writing
    def planned(
        self,
        connection: Connection,
        batch_id: str,
        total: int,
        quote_usd: float,
        *,
        max_since: tuple[float, int] | None = None,
        max_month_usd: float | None = None,
    ) -> None:
        batch = open_batch(connection, batch_id)
        if batch is None:
            return
        allowance.hold(connection, batch.key_id)
        allowance.check_daily(connection, batch.key_id, total, max_since, batch_id)
        more_usd = quote_usd - batch.quote_usd
        if more_usd > 0:
            allowance.reserve(connection, batch.key_id, batch.created_at, more_usd, max_month_usd)
        else:
            allowance.spend(connection, [(batch.key_id, batch.created_at, more_usd)])
        connection.execute(_UPDATE, {"batch": batch_id, "total": total, "quote_usd": quote_usd})
        teller = teller_of(connection)
        tell(connection, [batch_planned(batch, total, quote_usd, teller.now(), teller)])

    @reading
    def unfinished_runs(self, connection: Connection) -> tuple[Batch, ...]:
        return tuple(map(_batch, connection.execute(_OPEN_RUNS)))

    @writing
    def cancel(self, connection: Connection, batch_id: str, key_id: str | None, now: float) -> int:
        row = connection.execute(_GET, {"batch": batch_id}).one_or_none()
        if row is None or (key_id is not None and row.key_id != key_id):
            return 0
        by = teller_of(connection).who(key_id)
        cancelled = cancel_batch(connection, batch_id, now, by)
        tell(connection, [batch_cancel_requested(row, cancelled, by, now)])
        return cancelled


def add_batch(connection: Connection, batch: Batch) -> None:
    row = {
        **vars(batch),
        "status": batch.status.value,
        "counts": json.dumps(dict(batch.counts)),
        "details": json.dumps(dict(batch.details)) if batch.details else None,
    }
    connection.execute(insert(_BATCHES), row)
    tell(connection, batch_created(batch))


def _of(connection: Connection, seen: Seen) -> Batch | None:
    """The batch that an earlier request made; None where it made none, or where it is pruned."""
    batch_id = seen.batch_id
    if batch_id is None and seen.task_ids:
        batch_id = connection.execute(_BATCH_OF, {"task": seen.task_ids[0]}).scalar_one_or_none()
    row = None if batch_id is None else connection.execute(_GET, {"batch": batch_id}).one_or_none()
    return None if row is None else _as_it_is(connection, row)


def _as_it_is(connection: Connection, row: AnyRow) -> Batch:
    if row.run_uri is not None or row.finished_at is not None:
        return _batch(row)
    now = sums(connection, row.id)
    status = now.status if now.status in LIVE else Status.RUNNING  # Ended, but more is being submitted.
    return _batch(row, status=status, counts=now.counts, billed_usd=now.billed_usd)


def _batch(row: AnyRow, **instead: Any) -> Batch:
    fields = {
        **row._mapping,
        "status": Status(row.status),
        "counts": json.loads(row.counts),
        "details": json.loads(row.details) if row.details else {},
    }
    return Batch(**{**fields, **instead})
