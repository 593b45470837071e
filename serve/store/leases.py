"""The right to finish a task: taken, prolonged, used up, lost. Everything here is fenced by the task's epoch.

Whoever locks several tasks does so in the order of their ids, then their batches: no two wait for each other.
"""

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, bindparam, literal_column, null, select, update

from schemas.clip import Status
from serve.store.contract import Progress
from serve.store.database import AnyRow, Database, reading, writing
from serve.store.ends import ENDED_COLUMNS, LIVE_VALUES, announce
from serve.store.rows import select_tasks, stored_task
from serve.store.tables import tasks
from serve.tasks import Lease, Outcome, StoredTask

_RUNNING = tasks.c.status == literal_column(f"'{Status.RUNNING}'")
_PENDING = tasks.c.status == literal_column(f"'{Status.PENDING}'")

# Waits for whoever holds one of these rows, instead of skipping it: the caller names its tasks and would take one that
# is left out for gone, while a change of its price may be all that goes on.
_TAKEABLE = (
    select(tasks.c.seq)
    .where(tasks.c.seq.in_(bindparam("seqs", expanding=True)), _PENDING, tasks.c.cancelled_at.is_(None))
    .order_by(tasks.c.id)
    .with_for_update()
)
_LEASE = (
    update(tasks)
    .where(tasks.c.seq.in_(bindparam("free", expanding=True)))
    .values(
        status=Status.RUNNING.value,
        epoch=tasks.c.epoch + 1,
        attempts=tasks.c.attempts + 1,
        holder=bindparam("by"),
        variant=bindparam("on"),
        lease_until=bindparam("until"),
        started_at=bindparam("now"),
        fallback="",
        progress=0.0,
        stage="",
    )
    .returning(tasks.c.id, tasks.c.seq, tasks.c.epoch, tasks.c.attempts)
)
_REGROUP = update(tasks).where(tasks.c.seq == bindparam("of")).values(render_group=bindparam("group"))
_EXCUSE = update(tasks).where(tasks.c.seq == bindparam("of")).values(fallback=bindparam("why"))

_HELD = (
    select(tasks.c.id, tasks.c.epoch, tasks.c.status, tasks.c.cancelled_at)
    .where(tasks.c.id.in_(bindparam("ids", expanding=True)))
    .order_by(tasks.c.id)
    .with_for_update()
)
_RENEW = (
    update(tasks)
    .where(tasks.c.id == bindparam("task"))
    .values(lease_until=bindparam("until"), progress=bindparam("share"), stage=bindparam("at"))
)
_ONE = (
    select(*ENDED_COLUMNS, tasks.c.status, tasks.c.epoch, tasks.c.cancelled_at, tasks.c.outcome, tasks.c.progress)
    .where(tasks.c.id == bindparam("task"))
    .with_for_update()
)
_END = (
    update(tasks)
    .where(tasks.c.id == bindparam("task"))
    .values(
        status=bindparam("ended"),
        finished_at=bindparam("now"),
        outcome=bindparam("told"),
        billed_usd=bindparam("usd"),
        dead=bindparam("gave_up"),
        variant=bindparam("on"),
        progress=bindparam("share"),
        stage="",
        lease_until=0.0,
    )
)
_GIVE_BACK = (
    update(tasks)
    .where(tasks.c.id == bindparam("task"))
    .values(
        status=Status.PENDING.value,
        holder="",
        lease_until=0.0,
        started_at=null(),
        progress=0.0,
        stage="",
        last_error=bindparam("why"),
        not_before=bindparam("at"),
        attempts=tasks.c.attempts - bindparam("unspent"),
        epoch=tasks.c.epoch + bindparam("unspent"),  # fenced: a lease that goes on would be an attempt
    )
)
_TAKE_UP = (
    update(tasks)
    .where(
        tasks.c.id == bindparam("task"),
        tasks.c.epoch == bindparam("of"),
        tasks.c.status == Status.PENDING.value,
        tasks.c.cancelled_at.is_(None),
    )
    .values(
        status=Status.RUNNING.value, holder=bindparam("by"), lease_until=bindparam("until"), started_at=bindparam("now")
    )
)
_LIVE_OF_BATCH = (
    select(*ENDED_COLUMNS, tasks.c.status, tasks.c.cancelled_at, tasks.c.progress)
    .where(tasks.c.batch_id == bindparam("batch"), tasks.c.status.in_(LIVE_VALUES))
    .order_by(tasks.c.id)
    .with_for_update()
)
_MARK = update(tasks).where(tasks.c.id == bindparam("task")).values(cancelled_at=bindparam("now"))
_ALL_RUNNING = select_tasks().where(_RUNNING).order_by(tasks.c.seq)
_EXPIRED = _ALL_RUNNING.where(tasks.c.lease_until < bindparam("now"))


class Leases:
    """The half of `TaskStore` that somebody who holds a task, or wants one, talks to; and cancelling."""

    def __init__(self, db: Database) -> None:
        self._db = db

    @writing
    def lease(
        self,
        connection: Connection,
        seqs: Sequence[int],
        holder: str,
        variant: str,
        until: float,
        now: float,
        *,
        groups: Mapping[int, str] | None = None,
        fallback: Mapping[int, str] | None = None,
    ) -> tuple[Lease, ...]:
        free = connection.execute(_TAKEABLE, {"seqs": list(seqs)}).scalars().all()
        if not free:
            return ()
        taken = connection.execute(
            _LEASE, {"free": free, "by": holder, "on": variant, "until": until, "now": now}
        ).all()
        regrouped = [{"of": seq, "group": (groups or {})[seq]} for seq in free if seq in (groups or {})]
        excused = [{"of": seq, "why": (fallback or {})[seq]} for seq in free if seq in (fallback or {})]
        if regrouped:
            connection.execute(_REGROUP, regrouped)
        if excused:
            connection.execute(_EXCUSE, excused)
        leases = {seq: Lease(task_id=task_id, seq=seq, epoch=epoch, attempt=n) for task_id, seq, epoch, n in taken}
        return tuple(leases[seq] for seq in dict.fromkeys(seqs) if seq in leases)

    @writing
    def renew(self, connection: Connection, progress: Sequence[Progress], until: float) -> tuple[str, ...]:
        if not progress:
            return ()
        held = {row.id: row for row in connection.execute(_HELD, {"ids": [at.task_id for at in progress]})}
        mine = [at for at in progress if at.task_id in held and _holds(held[at.task_id], at.epoch)]
        if mine:
            connection.execute(
                _RENEW,
                [{"task": at.task_id, "until": until, "share": at.progress, "at": at.stage} for at in mine],
            )
        going_on = {at.task_id for at in mine if held[at.task_id].cancelled_at is None}
        return tuple(at.task_id for at in progress if at.task_id not in going_on)

    @writing
    def finish(self, connection: Connection, task_id: str, epoch: int, outcome: Outcome, now: float) -> Status | None:
        """A second call with what the first one said answers as the first one did."""
        task = connection.execute(_ONE, {"task": task_id}).one_or_none()
        if task is None or task.epoch != epoch:
            return None
        if task.cancelled_at is not None:
            outcome = _cancelled(outcome)
        if _holds(task, epoch):
            _end(connection, [task], outcome, now)
        elif task.outcome != outcome.model_dump_json():
            return None
        return outcome.status

    @writing
    def give_back(
        self, connection: Connection, task_id: str, epoch: int, error: str, not_before: float, *, spent: bool = True
    ) -> Status | None:
        """One that was cancelled meanwhile ends CANCELLED, as of when that was asked for."""
        task = connection.execute(_ONE, {"task": task_id}).one_or_none()
        if task is None or not _holds(task, epoch):
            return None
        if task.cancelled_at is not None:
            _end(connection, [task], Outcome(status=Status.CANCELLED, variant=task.variant), task.cancelled_at)
            return Status.CANCELLED
        told = {"task": task_id, "why": error, "at": not_before, "unspent": 0 if spent else 1}
        connection.execute(_GIVE_BACK, told)
        return Status.PENDING

    @writing
    def take_up(self, connection: Connection, task_id: str, epoch: int, holder: str, until: float, now: float) -> bool:
        told = {"task": task_id, "of": epoch, "by": holder, "until": until, "now": now}
        return connection.execute(_TAKE_UP, told).rowcount > 0

    @reading
    def expired(self, connection: Connection, now: float) -> tuple[StoredTask, ...]:
        return tuple(map(stored_task, connection.execute(_EXPIRED, {"now": now})))

    @reading
    def running(self, connection: Connection) -> tuple[StoredTask, ...]:
        return tuple(map(stored_task, connection.execute(_ALL_RUNNING)))

    @writing
    def cancel(self, connection: Connection, task_id: str, key_id: str | None, now: float) -> Status | None:
        statement = _ONE.where(tasks.c.deleted.is_(False))
        if key_id is not None:
            statement = statement.where(tasks.c.key_id == key_id)
        task = connection.execute(statement, {"task": task_id}).one_or_none()
        if task is None:
            return None
        if task.status in LIVE_VALUES:
            cancel_live(connection, [task], now)
        return Status(task.status)


def cancel_batch(connection: Connection, batch_id: str, now: float) -> int:
    """Cancel the unfinished tasks of a batch; how many."""
    return cancel_live(connection, connection.execute(_LIVE_OF_BATCH, {"batch": batch_id}).all(), now)


def cancel_live(connection: Connection, live: Sequence[AnyRow], now: float) -> int:
    """End those that wait, mark those that run; how many were not marked before. The caller holds the rows."""
    running = [task for task in live if task.status == Status.RUNNING and task.cancelled_at is None]
    if running:
        connection.execute(_MARK, [{"task": task.id, "now": now} for task in running])
    waiting = [task for task in live if task.status != Status.RUNNING]
    if waiting:
        connection.execute(_MARK, [{"task": task.id, "now": now} for task in waiting])
        _end(connection, waiting, Outcome(status=Status.CANCELLED, variant=""), now)
    return len(running) + len(waiting)


def _holds(task: AnyRow, epoch: int) -> bool:
    return bool(task.status == Status.RUNNING and task.epoch == epoch)


def _cancelled(outcome: Outcome) -> Outcome:
    """What was done and billed until then; whether it would have failed is nobody's business any more."""
    nothing = {"clip": None, "failure": "", "failure_code": "", "dead": False}
    return outcome.model_copy(update={"status": Status.CANCELLED, **nothing})


def _end(connection: Connection, ended: Sequence[AnyRow], outcome: Outcome, now: float) -> None:
    told = outcome.model_dump_json()
    connection.execute(
        _END,
        [
            {
                "task": task.id,
                "ended": outcome.status.value,
                "now": now,
                "told": told,
                "usd": outcome.billed_usd,
                "gave_up": outcome.dead,
                "on": outcome.variant or task.variant,
                "share": 1.0 if outcome.status is Status.SUCCEEDED else task.progress,
            }
            for task in ended
        ],
    )
    announce(connection, ended, outcome, now)
