"""Batches."""

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update

from schemas.clip import Status
from serve.store import tables
from serve.store.contract import Batch
from serve.store.database import AnyRow, Database, reading, writing
from serve.store.ends import Sums, end_batch, open_batch, sums
from serve.store.leases import cancel_batch
from serve.tasks import LIVE

_BATCHES = tables.batches
_GET = select(_BATCHES).where(_BATCHES.c.id == bindparam("batch"))
_OPEN_RUNS = (
    select(_BATCHES)
    .where(_BATCHES.c.run_uri.is_not(None), _BATCHES.c.finished_at.is_(None))
    .order_by(_BATCHES.c.created_at)
)
_UPDATE = update(_BATCHES).where(_BATCHES.c.id == bindparam("batch"))


class SqlBatches:
    """`BatchStore` over a database. Store the batch first, then its tasks in one submit."""

    def __init__(self, db: Database) -> None:
        self._db = db

    @writing
    def create(self, connection: Connection, batch: Batch) -> None:
        row = {**vars(batch), "status": batch.status.value, "counts": json.dumps(dict(batch.counts))}
        connection.execute(insert(_BATCHES), row)

    @reading
    def get(self, connection: Connection, batch_id: str, key_id: str | None = None) -> Batch | None:
        row = connection.execute(_GET, {"batch": batch_id}).one_or_none()
        if row is None or (key_id is not None and row.key_id != key_id):
            return None
        if row.run_uri is not None or row.finished_at is not None:
            return _batch(row)
        now = sums(connection, batch_id)
        status = now.status if now.status in LIVE else Status.RUNNING  # Ended, but more is being submitted.
        return _batch(row, status=status, counts=now.counts, billed_usd=now.billed_usd)

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
    def planned(self, connection: Connection, batch_id: str, total: int, quote_usd: float) -> None:
        connection.execute(_UPDATE, {"batch": batch_id, "total": total, "quote_usd": quote_usd})

    @reading
    def unfinished_runs(self, connection: Connection) -> tuple[Batch, ...]:
        return tuple(map(_batch, connection.execute(_OPEN_RUNS)))

    @writing
    def cancel(self, connection: Connection, batch_id: str, key_id: str | None, now: float) -> int:
        row = connection.execute(_GET, {"batch": batch_id}).one_or_none()
        if row is None or (key_id is not None and row.key_id != key_id):
            return 0
        return cancel_batch(connection, batch_id, now)


def _batch(row: AnyRow, **instead: Any) -> Batch:
    fields = {**row._mapping, "status": Status(row.status), "counts": json.loads(row.counts)}
    return Batch(**{**fields, **instead})
