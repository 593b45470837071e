"""The right to finish a task: taken, prolonged, used up, lost. Everything here is fenced by the task's epoch.

Whoever locks several tasks does so in the order of their ids, then their batches: no two wait for each other.
"""

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, bindparam, literal_column, null, select, update

from schemas.audit import Told
from schemas.clip import Status
from serve.store.attempts import AttemptEnd, EachAlone, Returned, judge
from serve.store.audit import tell, teller_of
from serve.store.audit_entries import task_cancel_requested, task_ended, task_returned, task_started
from serve.store.contract import Progress
from serve.store.database import AnyRow, Database, reading, writing
from serve.store.ends import ENDED_COLUMNS, TaskEnd, announce
from serve.store.messages import LIVE_VALUES
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
    .returning(tasks.c.id, tasks.c.seq, tasks.c.epoch, tasks.c.attempts, tasks.c.key_id)
)
_REGROUP = update(tasks).where(tasks.c.seq == bindparam("of")).values(render_group=bindparam("group"))
_NOTE_FALLBACK = update(tasks).where(tasks.c.seq == bindparam("of")).values(fallback=bindparam("why"))

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
_JUDGED = select(*ENDED_COLUMNS, tasks.c.status, tasks.c.epoch, tasks.c.cancelled_at, tasks.c.outcome, tasks.c.progress)
_ONE = _JUDGED.where(tasks.c.id == bindparam("task")).with_for_update()
_SOME = _JUDGED.where(tasks.c.id.in_(bindparam("ids", expanding=True))).order_by(tasks.c.id).with_for_update()
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
    .returning(tasks.c.seq, tasks.c.attempts, tasks.c.key_id, tasks.c.variant)
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


class Leases(EachAlone):
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
        fell_back = [{"of": seq, "why": (fallback or {})[seq]} for seq in free if seq in (fallback or {})]
        if regrouped:
            connection.execute(_REGROUP, regrouped)
        if fell_back:
            connection.execute(_NOTE_FALLBACK, fell_back)
        leases = {row.seq: Lease(task_id=row.id, seq=row.seq, epoch=row.epoch, attempt=row.attempts) for row in taken}
        owners, teller = {row.seq: row.key_id for row in taken}, teller_of(connection)
        given = tuple(leases[seq] for seq in dict.fromkeys(seqs) if seq in leases)
        why = fallback or {}
        tell(
            connection,
            (task_started(one, owners[one.seq], holder, variant, why.get(one.seq, ""), now, teller) for one in given),
        )
        return given

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
    def settle(self, connection: Connection, ends: Sequence[AttemptEnd], now: float) -> tuple[Status | None, ...]:
        answers: dict[int, Status | None] = {}
        rest = dict(enumerate(ends))
        while rest:
            # A task that is named again is judged by what the first time made of it.
            first: dict[str, int] = {}
            for place, end in rest.items():
                first.setdefault(end.task_id, place)
            found = _settle(connection, [rest.pop(place) for place in first.values()], now)
            answers |= {place: found.get(task_id) for task_id, place in first.items()}
        return tuple(answers[place] for place in range(len(ends)))

    @writing
    def take_up(self, connection: Connection, task_id: str, epoch: int, holder: str, until: float, now: float) -> bool:
        told = {"task": task_id, "of": epoch, "by": holder, "until": until, "now": now}
        row = connection.execute(_TAKE_UP, told).one_or_none()
        if row is None:
            return False
        lease = Lease(task_id=task_id, seq=row.seq, epoch=epoch, attempt=row.attempts)
        why = "its holder was only slow: the attempt goes on"
        tell(connection, [task_started(lease, row.key_id, holder, row.variant, why, now, teller_of(connection))])
        return True

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
            cancel_live(connection, [task], now, teller_of(connection).who(key_id))
        return Status(task.status)


def cancel_batch(connection: Connection, batch_id: str, now: float, by: str) -> int:
    """Cancel the unfinished tasks of a batch; how many."""
    return cancel_live(connection, connection.execute(_LIVE_OF_BATCH, {"batch": batch_id}).all(), now, by)


def cancel_live(connection: Connection, live: Sequence[AnyRow], now: float, by: str) -> int:
    """End those that wait, mark those that run; how many were not marked before. The caller holds the rows; the audit
    log names `by` as who asked for it."""
    asked = [task for task in live if task.status != Status.RUNNING or task.cancelled_at is None]
    tell(connection, (task_cancel_requested(task, by, now) for task in asked))
    running = [task for task in live if task.status == Status.RUNNING and task.cancelled_at is None]
    if running:
        connection.execute(_MARK, [{"task": task.id, "now": now} for task in running])
    waiting = [task for task in live if task.status != Status.RUNNING]
    if waiting:
        connection.execute(_MARK, [{"task": task.id, "now": now} for task in waiting])
        cancelled = Outcome(status=Status.CANCELLED, variant="")
        _end(connection, [TaskEnd(task, cancelled, now) for task in waiting])
    return len(running) + len(waiting)


def _holds(task: AnyRow, epoch: int) -> bool:
    return bool(task.status == Status.RUNNING and task.epoch == epoch)


def _settle(connection: Connection, ends: Sequence[AttemptEnd], now: float) -> dict[str, Status | None]:
    """By task, each of which is named once."""
    rows = {row.id: row for row in connection.execute(_SOME, {"ids": [end.task_id for end in ends]})}
    answers: dict[str, Status | None] = {}
    over: list[TaskEnd] = []
    back: list[dict[str, object]] = []
    returned: list[Told] = []
    teller = teller_of(connection)
    for end in ends:
        task = rows.get(end.task_id)
        if task is None:
            continue
        verdict = judge(
            end,
            status=task.status,
            epoch=task.epoch,
            variant=task.variant,
            cancelled_at=task.cancelled_at,
            outcome=task.outcome,
            now=now,
        )
        answers[end.task_id] = verdict.status
        if verdict.outcome is not None:
            over.append(TaskEnd(task, verdict.outcome, verdict.at))
        elif isinstance(end, Returned) and verdict.status is Status.PENDING:
            unspent = 0 if end.spent else 1
            back.append({"task": task.id, "why": end.error, "at": end.not_before, "unspent": unspent})
            returned.append(task_returned(task, end.error, end.spent, now or teller.now(), teller))
    if back:
        connection.execute(_GIVE_BACK, back)
        tell(connection, returned)
    if over:
        _end(connection, over)
    return answers


def _end(connection: Connection, ended: Sequence[TaskEnd]) -> None:
    connection.execute(
        _END,
        [
            {
                "task": end.row.id,
                "ended": end.outcome.status.value,
                "now": end.at,
                "told": end.outcome.model_dump_json(),
                "usd": end.outcome.billed_usd,
                "gave_up": end.outcome.dead,
                "on": end.outcome.variant or end.row.variant,
                "share": 1.0 if end.outcome.status is Status.SUCCEEDED else end.row.progress,
            }
            for end in ended
        ],
    )
    teller = teller_of(connection)
    tell(connection, (task_ended(end.row, end.outcome, end.at, teller) for end in ended))
    announce(connection, ended)
