"""Clients' own keys for what they asked: the first request with one is remembered with what it made."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, select
from sqlalchemy.dialects import postgresql, sqlite

from serve.errors import IdempotencyError
from serve.store import tables
from serve.store.contract import Idempotency

_KEYS = tables.idempotency
_SEEN = select(_KEYS.c.digest, _KEYS.c.task_ids, _KEYS.c.batch_id).where(
    _KEYS.c.key_id == bindparam("key"), _KEYS.c.name == bindparam("name")
)
_REMEMBER = {
    "sqlite": sqlite.insert(_KEYS).on_conflict_do_nothing().returning(_KEYS.c.name),
    "postgresql": postgresql.insert(_KEYS).on_conflict_do_nothing().returning(_KEYS.c.name),
}


@dataclass(frozen=True)
class Seen:
    """What the first request made: tasks, or a bulk run behind a batch."""

    task_ids: tuple[str, ...]
    batch_id: str | None


def seen_before(connection: Connection, key_id: str, idempotency: Idempotency) -> Seen | None:
    """None for a key that was not used yet. Raises IdempotencyError where it was used for another body."""
    row = connection.execute(_SEEN, {"key": key_id, "name": idempotency.key}).one_or_none()
    if row is None:
        return None
    if row.digest != idempotency.digest:
        raise IdempotencyError("this Idempotency-Key was used with another body")
    return Seen(tuple(json.loads(row.task_ids)), row.batch_id)


def remember(
    connection: Connection,
    key_id: str,
    idempotency: Idempotency,
    now: float,
    *,
    task_ids: Sequence[str] = (),
    batch_id: str | None = None,
) -> Seen | None:
    """Remember the client's key with these; where it was there already, what was made then."""
    entry = {
        "key_id": key_id,
        "name": idempotency.key,
        "digest": idempotency.digest,
        "task_ids": json.dumps(list(task_ids)),
        "batch_id": batch_id,
        "created_at": now,
    }
    # The insert waits for one of the same key that is under way: of two requests one finds what the other made.
    if connection.execute(_REMEMBER[connection.dialect.name], entry).first() is not None:
        return None
    return seen_before(connection, key_id, idempotency)
