"""Tasks: accepted, looked up, queued, throttled, counted. Their leases and ends are in `leases.py`."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic_core import from_json
from sqlalchemy import (
    BindParameter,
    Connection,
    Double,
    Integer,
    Select,
    bindparam,
    cast,
    func,
    insert,
    literal_column,
    select,
    text,
    union_all,
    update,
)

from schemas.clip import Status
from serve.config import DAY_S
from serve.store import allowance, tables
from serve.store.audit import tell, teller_of
from serve.store.audit_entries import task_created, task_deleted, task_ended
from serve.store.batches import add_batch
from serve.store.contract import Batch, Counts, Idempotency, LiveRow, Submitted
from serve.store.database import AnyRow, reading, writing
from serve.store.ends import ENDED_COLUMNS, TaskEnd, announce
from serve.store.idempotency import Seen, remember, seen_before
from serve.store.leases import Leases
from serve.store.messages import LIVE_VALUES
from serve.store.positions import positions
from serve.store.rows import as_stored, ended_row_of, row_of, select_tasks, stored_task
from serve.tasks import NewTask, StoredTask

_TASKS = tables.tasks
# Postgres. The first: whoever numbers tasks holds it, shared, until their commit is seen.
_HOLD_ORDER = text("SELECT pg_advisory_xact_lock_shared(1920300904)")
_SETTLE_ORDER = text("SELECT pg_advisory_xact_lock(1920300904)")
_NEXT_SEQS = text("SELECT nextval('task_seq') FROM generate_series(1, :n)")
_LAST_SEQ = text("SELECT last_value FROM task_seq")
_LARGEST_SEQ = select(func.coalesce(func.max(_TASKS.c.seq), 0))

_PENDING = _TASKS.c.status == literal_column(f"'{Status.PENDING}'")
_ADD = insert(_TASKS)
_GET = select_tasks().where(_TASKS.c.id == bindparam("id"), _TASKS.c.deleted.is_(False))
_GET_MANY = select_tasks().where(_TASKS.c.id.in_(bindparam("ids", expanding=True)))
_ENDED = select(*ENDED_COLUMNS).where(_TASKS.c.id.in_(bindparam("ids", expanding=True)))
_QUEUE = (
    select_tasks()
    .where(_PENDING, _TASKS.c.seq > bindparam("after"), _TASKS.c.seq <= bindparam("last"))
    .order_by(_TASKS.c.seq)
    .limit(bindparam("n"))
)
_LIVE = tables.by_index(
    select(*tables.LIVE_COLUMNS)
    .where(tables.LIVE, _TASKS.c.seq > bindparam("after"))
    .order_by(_TASKS.c.seq)
    .limit(bindparam("n")),
    "tasks_live",
)
_AGAIN = tables.by_index(
    select_tasks()
    .where(_PENDING, _TASKS.c.attempts > literal_column("0"), _TASKS.c.not_before <= bindparam("now"))
    .order_by(_TASKS.c.not_before),
    "tasks_again",
)
_UNTHROTTLED = (
    select(func.count())
    .select_from(_TASKS)
    .where(_TASKS.c.key_id == bindparam("key"), _TASKS.c.status.in_((Status.PENDING.value, Status.RUNNING.value)))
)
_THROTTLED = _TASKS.c.status == literal_column(f"'{Status.THROTTLED}'")
_THROTTLED_OF = (
    select(_TASKS.c.seq)
    .where(_THROTTLED, _TASKS.c.key_id == bindparam("key"))
    .order_by(_TASKS.c.seq)
    .limit(bindparam("n"))
    .with_for_update(skip_locked=True)  # one that is being cancelled is none to release
)
_THROTTLED_KEYS = tables.by_index(
    select(_TASKS.c.key_id).where(_THROTTLED).distinct().order_by(_TASKS.c.key_id), "tasks_throttled"
)
_RELEASE = (
    update(_TASKS).where(_TASKS.c.seq == bindparam("old")).values(seq=bindparam("new"), status=Status.PENDING.value)
)
_BY_SEQ = select_tasks().where(_TASKS.c.seq.in_(bindparam("seqs", expanding=True))).order_by(_TASKS.c.seq)
_HIDE = (
    update(_TASKS)
    .where(_TASKS.c.id == bindparam("task"), _TASKS.c.deleted.is_(False))
    .values(deleted=True, purged=_TASKS.c.epoch == literal_column("0"))
    .returning(_TASKS.c.key_id)
)
_UNPURGED = tables.by_index(
    select(_TASKS.c.id).where(tables.UNPURGED).order_by(_TASKS.c.seq).limit(bindparam("n")), "tasks_unpurged"
)
_PURGED = (
    update(_TASKS)
    .where(_TASKS.c.id.in_(bindparam("ids", expanding=True)), _TASKS.c.deleted.is_(True))
    .values(purged=True)
)
_REPRICE = (
    update(_TASKS)
    .where(_TASKS.c.id == bindparam("task"), _TASKS.c.status.in_((Status.PENDING.value, Status.THROTTLED.value)))
    .values(render_group=bindparam("group"), story=bindparam("told"))
)
_LIVE_BODIES = select(_TASKS.c.body).where(_TASKS.c.status.in_(LIVE_VALUES))
_DEAD = tables.by_index(select(func.count()).select_from(_TASKS).where(_TASKS.c.dead.is_(True)), "tasks_dead")
_DAYS, _RUNS = tables.usage_days, tables.batches
# Typed: beside days, which are whole, Postgres would take them for integers, which end in 2038.
_START: BindParameter[float] = bindparam("start", type_=Double)
_BEFORE: BindParameter[float] = bindparam("before", type_=Double)


def _usage(is_sqlite: bool) -> Select[Any]:
    """By date and model: of tasks, of bulk runs, of what was pruned. One statement: nothing is counted twice that is
    pruned meanwhile."""
    days = _RUNS.c.created_at / literal_column(str(DAY_S))
    each = union_all(
        select(
            _TASKS.c.day, _TASKS.c.model, func.count().label("tasks"), func.sum(_TASKS.c.billed_usd).label("billed_usd")
        )
        .where(
            _TASKS.c.key_id == bindparam("key"),
            _TASKS.c.created_at >= _START,
            _TASKS.c.created_at < _BEFORE,
        )
        .group_by(_TASKS.c.day, _TASKS.c.model),
        # SQLite's cast cuts off, Postgres' rounds.
        select(
            cast(days if is_sqlite else func.floor(days), Integer), _RUNS.c.model, _RUNS.c.total, _RUNS.c.billed_usd
        ).where(
            _RUNS.c.key_id == bindparam("key"),
            _RUNS.c.run_uri.is_not(None),
            _RUNS.c.created_at >= _START,
            _RUNS.c.created_at < _BEFORE,
        ),
        select(_DAYS.c.day, _DAYS.c.model, _DAYS.c.tasks, _DAYS.c.billed_usd).where(
            _DAYS.c.key_id == bindparam("key"),
            _DAYS.c.day * literal_column(str(DAY_S)) >= _START,
            _DAYS.c.day * literal_column(str(DAY_S)) < _BEFORE,
        ),
    ).subquery()
    return (
        select(each.c.day, each.c.model, func.sum(each.c.tasks), func.sum(each.c.billed_usd))
        .group_by(each.c.day, each.c.model)
        .order_by(each.c.day, each.c.model)
    )


_USAGE = {is_sqlite: _usage(is_sqlite) for is_sqlite in (True, False)}


class SqlTasks(Leases):
    """`TaskStore` over a database."""

    @writing
    def submit(
        self,
        connection: Connection,
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
        if idempotency is not None:
            seen = remember(connection, key_id, idempotency, now, task_ids=[task.id for task in tasks])
            if seen is not None:
                return Submitted(_in_order(connection, seen.task_ids), replayed=True)
        free = self._room(connection, key_id, len(tasks), max_live, max_since)
        waiting = iter(range(len(tasks)))
        usd = math.fsum(task.offer.usd for task in tasks)
        allowance.reserve(connection, key_id, now, usd, max_month_usd)
        if batch is not None:
            add_batch(connection, batch)
        stored: list[StoredTask] = []
        for task, seq in zip(tasks, self._numbers(connection, len(tasks)), strict=True):
            if task.outcome is not None:
                status = task.outcome.status
            else:
                status = Status.PENDING if next(waiting) < free else Status.THROTTLED
            stored.append(as_stored(task, seq, status, now))
        if live := [row_of(task, task.seq, task.status, now) for task in stored if task.outcome is None]:
            connection.execute(_ADD, live)
        teller = teller_of(connection)
        tell(connection, (task_created(task, task.status, now, teller) for task in stored))
        self._add_ended(connection, stored, now)
        return Submitted(tuple(stored))

    def _add_ended(self, connection: Connection, stored: Sequence[StoredTask], now: float) -> None:
        """Those that end as they are accepted, last: a batch in which nothing lives is over with them."""
        ended = {task.id: task.outcome for task in stored if task.outcome is not None}
        if not ended:
            return
        rows = [ended_row_of(task, task.outcome, task.seq, now) for task in stored if task.outcome is not None]
        connection.execute(_ADD, rows)
        found = connection.execute(_ENDED, {"ids": list(ended)})
        ends = [TaskEnd(row, ended[row.id], now) for row in found]
        teller = teller_of(connection)
        tell(connection, (task_ended(end.row, end.outcome, now, teller) for end in ends))
        announce(connection, ends)

    @reading
    def replay(self, connection: Connection, key_id: str, idempotency: Idempotency) -> tuple[StoredTask, ...] | None:
        seen: Seen | None = seen_before(connection, key_id, idempotency)
        return None if seen is None else _in_order(connection, seen.task_ids)

    @reading
    def get(self, connection: Connection, task_id: str, key_id: str | None = None) -> StoredTask | None:
        row = connection.execute(_GET, {"id": task_id}).one_or_none()
        return None if row is None or (key_id is not None and row.key_id != key_id) else stored_task(row)

    @reading
    def get_many(self, connection: Connection, task_ids: Sequence[str]) -> tuple[StoredTask, ...]:
        """In the order given, without those that do not exist; deleted ones are in it, and say so."""
        return _in_order(connection, task_ids)

    @reading
    def positions(self, connection: Connection, tasks: Sequence[StoredTask]) -> tuple[int, ...]:
        waiting = [(task.priority, task.seq) for task in tasks if task.status in (Status.PENDING, Status.THROTTLED)]
        ahead = positions(connection, waiting, is_sqlite=self._db.is_sqlite)
        return tuple(ahead.get((task.priority, task.seq), 0) for task in tasks)

    def pending(self, after_seq: int = 0, limit: int = 5000) -> tuple[StoredTask, ...]:
        last = self._settled_seq()

        def work(connection: Connection) -> Sequence[AnyRow]:
            return connection.execute(_QUEUE, {"after": after_seq, "last": last, "n": limit}).all()

        return tuple(map(stored_task, self._db.read(work)))

    @reading
    def live_index(self, connection: Connection, after_seq: int = 0, limit: int = 200_000) -> tuple[LiveRow, ...]:
        rows = connection.execute(_LIVE, {"after": after_seq, "n": limit})
        return tuple(
            LiveRow(seq, task_id, Status(status), epoch, attempts, holder, until, not_before, cancelled_at is not None)
            for seq, task_id, status, epoch, attempts, holder, until, not_before, cancelled_at in rows
        )

    @reading
    def waiting_again(self, connection: Connection, now: float) -> tuple[StoredTask, ...]:
        return tuple(map(stored_task, connection.execute(_AGAIN, {"now": now})))

    @writing
    def delete(self, connection: Connection, task_id: str, key_id: str | None) -> bool:
        statement = _HIDE if key_id is None else _HIDE.where(_TASKS.c.key_id == key_id)
        owner = connection.execute(statement, {"task": task_id}).scalar_one_or_none()
        if owner is None:
            return False
        teller = teller_of(connection)
        tell(connection, [task_deleted(task_id, owner, teller.who(key_id), teller.now())])
        return True

    @reading
    def unpurged(self, connection: Connection, limit: int = 500) -> tuple[str, ...]:
        return tuple(connection.execute(_UNPURGED, {"n": limit}).scalars())

    @writing
    def purged(self, connection: Connection, task_ids: Sequence[str]) -> None:
        if task_ids:
            connection.execute(_PURGED, {"ids": list(task_ids)})

    @writing
    def release(
        self,
        connection: Connection,
        key_id: str,
        max_live: int,
        now: float,  # noqa: ARG002 - the contract's; nothing of a release is kept
    ) -> tuple[StoredTask, ...]:
        free = self._room(connection, key_id, 0, max_live, None)
        if free <= 0:
            return ()
        old = connection.execute(_THROTTLED_OF, {"key": key_id, "n": int(free)}).scalars().all()
        if not old:
            return ()
        new = self._numbers(connection, len(old))
        connection.execute(_RELEASE, [{"old": was, "new": seq} for was, seq in zip(old, new, strict=True)])
        return tuple(map(stored_task, connection.execute(_BY_SEQ, {"seqs": new})))

    @reading
    def throttled_keys(self, connection: Connection) -> tuple[str, ...]:
        return tuple(connection.execute(_THROTTLED_KEYS).scalars())

    @writing
    def reprice(self, connection: Connection, task_id: str, group: str, story: str) -> None:
        connection.execute(_REPRICE, {"task": task_id, "group": group, "told": story})

    @reading
    def counts(
        self, connection: Connection, key_id: str | None = None, *, statuses: Sequence[Status] = tuple(Status)
    ) -> Counts:
        by_status = select(_TASKS.c.status, func.count()).where(_TASKS.c.status.in_(statuses)).group_by(_TASKS.c.status)
        dead = _DEAD
        if key_id is not None:
            by_status, dead = by_status.where(_TASKS.c.key_id == key_id), dead.where(_TASKS.c.key_id == key_id)
        found: dict[str, int] = dict(connection.execute(by_status).all())
        return Counts({status: found.get(status, 0) for status in statuses}, connection.execute(dead).scalar_one())

    @reading
    def recent(
        self,
        connection: Connection,
        limit: int = 20,
        *,
        statuses: Sequence[Status] = (),
        key_id: str | None = None,
        batch_id: str | None = None,
        before_seq: int | None = None,
    ) -> tuple[StoredTask, ...]:
        latest = select_tasks().where(_TASKS.c.deleted.is_(False)).order_by(_TASKS.c.seq.desc()).limit(limit)
        if key_id is not None:
            latest = latest.where(_TASKS.c.key_id == key_id)
        if batch_id is not None:
            latest = latest.where(_TASKS.c.batch_id == batch_id)
        if before_seq is not None:
            latest = latest.where(_TASKS.c.seq < before_seq)
        # Status by status, each from the end of its index: asked for together they would all be sorted.
        each = [latest.where(_TASKS.c.status == status.value) for status in dict.fromkeys(statuses)] or [latest]
        rows = [row for statement in each for row in connection.execute(statement)]
        rows.sort(key=lambda row: row.seq, reverse=True)
        return tuple(map(stored_task, rows[:limit]))

    @reading
    def media_in_use(self, connection: Connection) -> frozenset[str]:
        bodies = connection.execute(_LIVE_BODIES).scalars()
        requests = [from_json(body)["request"] for body in bodies]
        inputs = (one for request in requests for one in (request, *request.get("inputs", ())))
        uris = (one.get(kind) for one in inputs for kind in ("image", "video"))
        return frozenset(uri for uri in uris if uri is not None)

    @reading
    def usage(
        self, connection: Connection, key_id: str, start: float, before: float
    ) -> tuple[tuple[str, str, int, float], ...]:
        rows = connection.execute(_USAGE[self._db.is_sqlite], {"key": key_id, "start": start, "before": before})
        return tuple((_date(day), model, int(count), float(billed)) for day, model, count, billed in rows)

    def _room(
        self,
        connection: Connection,
        key_id: str,
        wanted: int,
        max_live: int | None,
        max_since: tuple[float, int] | None,
    ) -> float:
        """How many more tasks of a key may be PENDING. What is counted stays true until the transaction ends."""
        if max_live is None and max_since is None:
            return float("inf")
        allowance.hold(connection, key_id)
        allowance.check_daily(connection, key_id, wanted, max_since)
        if max_live is None:
            return float("inf")
        if allowance.has_open_run(connection, key_id):
            return 0
        return max_live - connection.execute(_UNTHROTTLED, {"key": key_id}).scalar_one()

    def _numbers(self, connection: Connection, n: int) -> list[int]:
        """The next n seqs. Whoever sees one of them committed sees all smaller ones, by `_settled_seq`."""
        if self._db.is_sqlite:
            largest = connection.execute(_LARGEST_SEQ).scalar_one()
            return list(range(largest + 1, largest + 1 + n))
        connection.execute(_HOLD_ORDER)
        return list(connection.execute(_NEXT_SEQS, {"n": n}).scalars())

    def _settled_seq(self) -> int:
        """A seq up to which nothing is under way: a reader that goes on from there misses no task.

        Postgres hands out numbers before their rows are committed, and transactions overtake each other.
        """
        if self._db.is_sqlite:
            return 2**62

        def work(connection: Connection) -> int:
            connection.execute(_SETTLE_ORDER)
            return connection.execute(_LAST_SEQ).scalar_one()

        return self._db.write(work)


def _in_order(connection: Connection, task_ids: Sequence[str]) -> tuple[StoredTask, ...]:
    found = {row.id: stored_task(row) for row in connection.execute(_GET_MANY, {"ids": list(task_ids)})}
    return tuple(found[task_id] for task_id in task_ids if task_id in found)


def _date(day: int) -> str:
    return datetime.fromtimestamp(day * DAY_S, UTC).date().isoformat()
