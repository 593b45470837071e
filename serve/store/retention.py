"""What is pruned by age: bounded transactions, oldest first, and the usage stays as it was."""

import math
from collections.abc import Sequence
from typing import Any

from sqlalchemy import BindParameter, Connection, Select, Table, bindparam, delete, func, select, tuple_

from serve.store import tables
from serve.store.audit import tell
from serve.store.audit_entries import Teller, store_pruned
from serve.store.contract import AuditStore
from serve.store.cutoffs import BATCH_NOTES, Cutoffs, Pruned
from serve.store.database import Database
from serve.store.rows import day_of

_TASKS, _BATCHES, _DELIVERIES, _DAYS = tables.tasks, tables.batches, tables.deliveries, tables.usage_days
_KEYS, _DECISIONS = tables.idempotency, tables.router_decisions
_BEFORE: BindParameter[float] = bindparam("before")
_N: BindParameter[int] = bindparam("n")

_OLD_KEYS = select(_KEYS.c.key_id, _KEYS.c.name).where(_KEYS.c.created_at < _BEFORE).limit(_N)
_OLD_DELIVERED = tables.by_index(
    select(_DELIVERIES.c.id).where(tables.DELIVERED, _DELIVERIES.c.delivered_at < _BEFORE).limit(_N),
    "deliveries_delivered",
    _DELIVERIES,
)
_OLD_GIVEN_UP = tables.by_index(
    select(_DELIVERIES.c.id).where(tables.GIVEN_UP, _DELIVERIES.c.due_at < _BEFORE).limit(_N),
    "deliveries_given_up",
    _DELIVERIES,
)
_OLD_DECISIONS = select(_DECISIONS.c.id).where(_DECISIONS.c.created_at < _BEFORE).limit(_N)
# A batch that is still open counts its tasks. Objects of a deleted task are removed first: the row says that they are.
_OF_OPEN_BATCH = (
    select(1).where(_BATCHES.c.id == _TASKS.c.batch_id, _BATCHES.c.finished_at.is_(None)).correlate(_TASKS).exists()
)
_OLD_TASKS = tables.by_index(
    select(_TASKS.c.seq)
    .where(
        tables.ENDED,
        _TASKS.c.finished_at < _BEFORE,
        _TASKS.c.deleted.is_(False) | _TASKS.c.purged.is_(True),
        ~_OF_OPEN_BATCH,
    )
    .order_by(_TASKS.c.finished_at)
    .limit(_N)
    .with_for_update(skip_locked=True),
    "tasks_ended",
)
_OLD_BATCHES = tables.by_index(
    select(_BATCHES.c.id)
    .where(
        tables.ENDED_BATCH,
        _BATCHES.c.finished_at < _BEFORE,
        ~select(1).where(_TASKS.c.batch_id == _BATCHES.c.id).correlate(_BATCHES).exists(),
    )
    .limit(_N),
    "batches_ended",
    _BATCHES,
)
_BILLED = (
    select(_TASKS.c.key_id, _TASKS.c.day, _TASKS.c.model, func.count(), func.sum(_TASKS.c.billed_usd))
    .where(_TASKS.c.seq.in_(bindparam("seqs", expanding=True)))
    .group_by(_TASKS.c.key_id, _TASKS.c.day, _TASKS.c.model)
    .order_by(_TASKS.c.key_id, _TASKS.c.day, _TASKS.c.model)
)
_BILLED_RUNS = (
    select(_BATCHES.c.key_id, _BATCHES.c.created_at, _BATCHES.c.model, _BATCHES.c.total, _BATCHES.c.billed_usd)
    .where(_BATCHES.c.id.in_(bindparam("ids", expanding=True)), _BATCHES.c.run_uri.is_not(None))
    .order_by(_BATCHES.c.key_id, _BATCHES.c.created_at)
)
_FORGET_TASKS = delete(_TASKS).where(_TASKS.c.seq.in_(bindparam("seqs", expanding=True)))


class Pruner:
    """Prunes one database. Each kind of row is a transaction of its own, so that nobody waits long for either."""

    def __init__(self, db: Database, audit: AuditStore, teller: Teller) -> None:
        self._db, self._audit, self._teller = db, audit, teller
        days = db.insert(_DAYS)
        self._add_up = days.on_conflict_do_update(
            index_elements=[_DAYS.c.key_id, _DAYS.c.day, _DAYS.c.model],
            set_={
                "tasks": _DAYS.c.tasks + days.excluded.tasks,
                "billed_usd": _DAYS.c.billed_usd + days.excluded.billed_usd,
            },
        )

    def prune(self, before: Cutoffs, limit: int) -> Pruned:
        keys = self._rows(_OLD_KEYS, _KEYS, before.idempotency, limit, "idempotency")
        deliveries = self._rows(_OLD_DELIVERED, _DELIVERIES, before.deliveries, limit, "deliveries")
        deliveries += self._rows(_OLD_GIVEN_UP, _DELIVERIES, before.deliveries, limit, "deliveries")
        decisions = self._rows(_OLD_DECISIONS, _DECISIONS, before.router_decisions, limit, "router_decisions")
        # While old keys are left their tasks stay: a replay answers with them.
        tasks = 0 if keys == limit else self._db.write(lambda connection: self._tasks(connection, before.tasks, limit))
        batches = self._db.write(lambda connection: self._batches(connection, before.batches, limit))
        audit = 0
        if before.audit > -math.inf:
            audit = self._audit.prune(before.audit, limit, self._teller.now(), self._teller.actor)
        return Pruned(keys, deliveries, decisions, tasks, batches, audit)

    def _rows(self, old: Select[Any], table: Table, before: float, limit: int, kind: str) -> int:
        primary = tuple_(*table.primary_key.columns)

        def work(connection: Connection) -> int:
            found = connection.execute(old, {"before": before, "n": limit}).all()
            if found:
                connection.execute(delete(table).where(primary.in_([tuple(row) for row in found])))
                self._tell(connection, kind, len(found))
            return len(found)

        return self._db.write(work)

    def _tasks(self, connection: Connection, before: float, limit: int) -> int:
        seqs = connection.execute(_OLD_TASKS, {"before": before, "n": limit}).scalars().all()
        if not seqs:
            return 0
        billed = connection.execute(_BILLED, {"seqs": seqs}).all()
        names = [column.name for column in _DAYS.c]
        connection.execute(self._add_up, [dict(zip(names, row, strict=True)) for row in billed])
        connection.execute(_FORGET_TASKS, {"seqs": seqs})
        self._tell(connection, "tasks", len(seqs))
        return len(seqs)

    def _tell(self, connection: Connection, kind: str, count: int) -> None:
        tell(connection, [store_pruned(kind, count, self._teller.now(), self._teller)])

    def _batches(self, connection: Connection, before: float, limit: int) -> int:
        ids: Sequence[str] = connection.execute(_OLD_BATCHES, {"before": before, "n": limit}).scalars().all()
        if not ids:
            return 0
        runs = connection.execute(_BILLED_RUNS, {"ids": ids}).all()
        billed = [
            {"key_id": run.key_id, "day": day_of(run.created_at), "model": run.model, "tasks": run.total}
            | {"billed_usd": run.billed_usd}
            for run in runs
        ]
        if billed:
            connection.execute(self._add_up, billed)
        names = [prefix + batch_id for prefix in BATCH_NOTES for batch_id in ids]
        connection.execute(delete(tables.notes).where(tables.notes.c.name.in_(names)))
        connection.execute(delete(_BATCHES).where(_BATCHES.c.id.in_(ids)))
        self._tell(connection, "batches", len(ids))
        return len(ids)
