"""Webhook messages until they were delivered."""

from collections.abc import Mapping

from sqlalchemy import Connection, bindparam, func, insert, select, update

from serve.store import tables
from serve.store.contract import Delivery
from serve.store.database import Database, reading, writing

_DELIVERIES = tables.deliveries
_DUE = (
    select(_DELIVERIES.c.id)
    .where(tables.WAITING, _DELIVERIES.c.due_at <= bindparam("now"))
    .order_by(_DELIVERIES.c.due_at)
    .limit(bindparam("n"))
    .with_for_update(skip_locked=True)
)
_CLAIM = (
    update(_DELIVERIES)
    .where(_DELIVERIES.c.id.in_(bindparam("ids", expanding=True)))
    .values(due_at=bindparam("until"))
    .returning(*_DELIVERIES.c)
)
_DELIVERED = update(_DELIVERIES).where(_DELIVERIES.c.id == bindparam("delivery"), tables.WAITING)
_COUNTS = {
    state: tables.by_index(select(func.count()).select_from(_DELIVERIES).where(which), index, _DELIVERIES)
    for state, which, index in (
        ("waiting", tables.WAITING, "deliveries_due"),
        ("delivered", tables.DELIVERED, "deliveries_delivered"),
        ("given_up", tables.GIVEN_UP, "deliveries_given_up"),
    )
}


class SqlDeliveries:
    """`DeliveryStore` over a database. `attempts` counts those that `failed` was told of, and the one that worked."""

    def __init__(self, db: Database) -> None:
        self._db = db

    @writing
    def due(
        self, connection: Connection, now: float, limit: int = 100, *, claim_s: float = 60.0
    ) -> tuple[Delivery, ...]:
        ids = connection.execute(_DUE, {"now": now, "n": limit}).scalars().all()
        if not ids:
            return ()
        claimed = connection.execute(_CLAIM, {"ids": ids, "until": now + claim_s})
        found = {row.id: Delivery(**{**row._mapping, "given_up": bool(row.given_up)}) for row in claimed}
        return tuple(found[delivery_id] for delivery_id in ids)

    @writing
    def add(self, connection: Connection, delivery: Delivery) -> None:
        connection.execute(insert(_DELIVERIES), {**vars(delivery), "given_up": int(delivery.given_up)})

    @writing
    def delivered(self, connection: Connection, delivery_id: str, now: float) -> None:
        statement = _DELIVERED.values(delivered_at=now, attempts=_DELIVERIES.c.attempts + 1)
        connection.execute(statement, {"delivery": delivery_id})

    @writing
    def failed(self, connection: Connection, delivery_id: str, error: str, due_at: float | None) -> None:
        then: dict[str, object] = {"given_up": 1} if due_at is None else {"due_at": due_at}
        statement = _DELIVERED.values(last_error=error, attempts=_DELIVERIES.c.attempts + 1, **then)
        connection.execute(statement, {"delivery": delivery_id})

    @reading
    def counts(self, connection: Connection) -> Mapping[str, int]:
        return {state: connection.execute(count).scalar_one() for state, count in _COUNTS.items()}
