"""The audit log in a database: told in the transaction of what is told of, chained a moment later by one appender.

    what changes a row ──same transaction──▶ audit_outbox ──`chain`, one at a time──▶ audit_log, audit_prompts
                                                                                      audit_head: how far it goes

Whoever tells waits for nobody: the outbox has no order but its own numbers, and no lock. A chain that no anchor was
taken of can be made anew by whoever can write to it, so to be chained a second later costs no protection.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import takewhile
from typing import Any

from pydantic_core import from_json
from sqlalchemy import Connection, Select, bindparam, delete, func, insert, select, text, update

from schemas.audit import (
    Action,
    AuditFilter,
    Entry,
    Head,
    Prompt,
    Record,
    Told,
    details,
    instant,
    prompt_erased,
    seconds_of,
)
from serve.store import tables
from serve.store.audit_entries import LOG_SUBJECT, Teller
from serve.store.contract import ChainedRecord, Filed
from serve.store.database import AnyRow, Database, reading, writing
from trust.audit_chain import appended

_OUTBOX, _LOG, _PROMPTS, _HEAD = tables.audit_outbox, tables.audit_log, tables.audit_prompts, tables.audit_head
# Postgres: one appends at a time. SQLite has one writer anyway.
_HOLD_LOG = text("SELECT pg_advisory_xact_lock(1920300906)")
TELLER = "rushes_teller"
"""The execution option of a writing connection that says who writes: a `Teller`."""
_TELL = insert(_OUTBOX)
_WAITING = select(_OUTBOX).order_by(_OUTBOX.c.id).limit(bindparam("n"))
_TAKEN = delete(_OUTBOX).where(_OUTBOX.c.id.in_(bindparam("ids", expanding=True)))
_THE_HEAD = select(_HEAD)
_MOVE_HEAD = update(_HEAD)
_OLDEST = (
    select(_LOG.c.position, _LOG.c.at, _LOG.c.hash)
    .where(_LOG.c.position > bindparam("after"))
    .order_by(_LOG.c.position)
    .limit(bindparam("n"))
)
_COLUMNS = (*_LOG.c, _PROMPTS.c.salt, _PROMPTS.c.words)
_RECORDS = select(*_COLUMNS).select_from(_LOG.outerjoin(_PROMPTS, _LOG.c.position == _PROMPTS.c.position))


def teller_of(connection: Connection) -> Teller:
    """Who writes in this transaction."""
    found = connection.get_execution_options()[TELLER]
    assert isinstance(found, Teller)
    return found


def tell(connection: Connection, told: Iterable[Told]) -> None:
    """Within the transaction of what is told of."""
    rows = [
        {
            "entry": one.entry.canonical,
            "salt": None if one.prompt is None else one.prompt.salt,
            "words": None if one.prompt is None else one.prompt.words,
        }
        for one in told
    ]
    if rows:
        connection.execute(_TELL, rows)


class SqlAudit:
    """`AuditStore` over a database."""

    def __init__(self, db: Database) -> None:
        self._db = db

    @writing
    def tell(self, connection: Connection, told: Sequence[Told]) -> None:
        tell(connection, told)

    def chain(self, limit: int = 1000) -> int:
        if not self.waiting(1):
            return 0  # nobody is kept from writing for nothing
        return self._db.write(lambda connection: self._chain(connection, limit))

    @reading
    def head(self, connection: Connection) -> Head | None:
        row = connection.execute(_THE_HEAD).one_or_none()
        return None if row is None else _head(row)

    @reading
    def floor(self, connection: Connection) -> Head | None:
        row = connection.execute(_THE_HEAD).one_or_none()
        return None if row is None else _floor(row)

    @reading
    def waiting(self, connection: Connection, most: int | None = None) -> int:
        some = select(_OUTBOX.c.id).limit(most).subquery()
        return connection.execute(select(func.count()).select_from(some)).scalar_one()

    @reading
    def records(
        self, connection: Connection, after: int = 0, limit: int = 1000, of: AuditFilter | None = None
    ) -> tuple[ChainedRecord, ...]:
        statement = _RECORDS.where(_LOG.c.position > after).order_by(_LOG.c.position).limit(limit)
        return tuple(map(_record, connection.execute(_filtered(statement, of or AuditFilter()))))

    def prune(self, before: float, limit: int, now: float, actor: str) -> int:
        """Records from the beginning that are older, as far as one is not; how many. What is left begins at a floor,
        of which the log itself tells."""
        return self._db.write(partial(self._prune, before=before, limit=limit, now=now, actor=actor))

    def erase(self, subject: str, now: float, actor: str) -> int:
        return self._db.write(partial(self._erase, subject=subject, now=now, actor=actor))

    def _chain(self, connection: Connection, limit: int) -> int:
        head = self._held(connection)
        waiting = connection.execute(_WAITING, {"n": limit}).all()
        if not waiting:
            return 0
        self._append(connection, head, [(row.entry, _beside(row)) for row in waiting])
        connection.execute(_TAKEN, {"ids": [row.id for row in waiting]})
        return len(waiting)

    def _append(self, connection: Connection, head: Head, told: Sequence[tuple[str, Prompt | None]]) -> Head:
        records, head = appended(head, [text for text, _ in told])
        connection.execute(insert(_LOG), list(map(_row, records)))
        beside = [
            {"position": record.position, "salt": prompt.salt, "words": prompt.words}
            for record, (_, prompt) in zip(records, told, strict=True)
            if prompt is not None
        ]
        if beside:
            connection.execute(insert(_PROMPTS), beside)
        connection.execute(_MOVE_HEAD.values(position=head.position, hash=head.hash))
        return head

    def _held(self, connection: Connection) -> Head:
        """The head, which nobody else moves until the transaction ends. A log is opened by whoever is first."""
        if not self._db.is_sqlite:
            connection.execute(_HOLD_LOG)
        row = connection.execute(_THE_HEAD).one_or_none()
        if row is not None:
            return _head(row)
        head = Head.drawn()
        opened = {"only": 1, "log": head.log, "position": 0, "hash": head.hash}
        connection.execute(insert(_HEAD), opened | {"floor_position": 0, "floor_hash": head.hash})
        return head

    def _prune(self, connection: Connection, before: float, limit: int, now: float, actor: str) -> int:
        head = self._held(connection)
        floor = _floor(connection.execute(_THE_HEAD).one())
        oldest = connection.execute(_OLDEST, {"after": floor.position, "n": limit}).all()
        old = list(takewhile(lambda row: row.at < before, oldest))
        if not old or old[0].position != floor.position + 1:
            return 0  # where somebody took records away `rushes audit verify` says so, and no floor hides it
        through, found, count = old[-1].position, old[-1].hash, old[-1].position - floor.position
        entry = Entry(
            at=instant(now),
            actor=actor,
            action=Action.LOG_PRUNED,
            subject=LOG_SUBJECT,
            details=details(through=through, hash=found, records=count),
        )
        self._append(connection, head, [(entry.canonical, None)])
        connection.execute(delete(_PROMPTS).where(_PROMPTS.c.position <= through))
        connection.execute(delete(_LOG).where(_LOG.c.position <= through))
        connection.execute(_MOVE_HEAD.values(floor_position=through, floor_hash=found))
        return count

    def _erase(self, connection: Connection, subject: str, now: float, actor: str) -> int:
        while self._chain(connection, 1000):  # what waits has its words in the outbox
            pass
        head = self._held(connection)
        of_subject = select(_LOG.c.position).where(_LOG.c.subject == subject)
        erased = connection.execute(delete(_PROMPTS).where(_PROMPTS.c.position.in_(of_subject))).rowcount
        if erased:
            entry = prompt_erased(subject, erased, now, actor)
            self._append(connection, head, [(entry.canonical, None)])
        return erased


def _filtered(statement: Select[Any], of: AuditFilter) -> Select[Any]:
    for column, value in ((_LOG.c.key_id, of.key_id), (_LOG.c.subject, of.subject), (_LOG.c.action, of.action)):
        if value is not None:
            statement = statement.where(column == value)
    if of.since is not None:
        statement = statement.where(_LOG.c.at >= of.since)
    if of.before is not None:
        statement = statement.where(_LOG.c.at < of.before)
    return statement


def _row(record: Record) -> Mapping[str, object]:
    return {
        "position": record.position,
        **filed_of(record.text)._asdict(),
        "entry": record.text,
        "previous": record.previous,
        "hash": record.hash,
    }


def _record(row: AnyRow) -> ChainedRecord:
    record = Record(row.position, row.previous, row.hash, row.entry)
    return ChainedRecord(record, _beside(row), Filed(row.at, row.action, row.subject, row.key_id))


def filed_of(text: str) -> Filed:
    """Under what an entry is to be found. Raises ValueError or KeyError where it is none."""
    entry = from_json(text)  # not as an Entry: that of a later version is filed too
    return Filed(seconds_of(entry["at"]), entry["action"], entry.get("subject", ""), entry.get("key_id", ""))


def _beside(row: AnyRow) -> Prompt | None:
    return None if row.salt is None else Prompt(row.salt, row.words)


def _head(row: AnyRow) -> Head:
    return Head(row.log, row.position, row.hash)


def _floor(row: AnyRow) -> Head:
    return Head(row.log, row.floor_position, row.floor_hash)
