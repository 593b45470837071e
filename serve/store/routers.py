"""Model routers and the log of what they decided."""

import base64
import binascii
import builtins
import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from sqlalchemy import Connection, Select, Table, delete, insert, select, tuple_, update

from schemas.audit import Action
from schemas.errors import InvalidRequestError, Issue
from serve.store import tables
from serve.store.audit import tell, teller_of
from serve.store.audit_entries import router_deleted, router_told
from serve.store.contract import RouterConfig, RouterDecision
from serve.store.database import AnyRow, Database, reading, writing

T = TypeVar("T", RouterConfig, RouterDecision)
_ROUTERS = tables.routers
_DECISIONS = tables.router_decisions
_SLUGS = select(_ROUTERS.c.id)


class SqlRouters:
    """`RouterStore` over a database. A cursor that no list gave is an InvalidRequestError."""

    def __init__(self, db: Database) -> None:
        self._db = db

    @writing
    def create(self, connection: Connection, router: RouterConfig) -> bool:
        # DO NOTHING on the slug alone: an id that is taken is a mistake, and says so.
        statement = (
            self._db.insert(_ROUTERS).on_conflict_do_nothing(index_elements=["key_id", "slug"]).returning(_ROUTERS.c.id)
        )
        if connection.execute(statement, _router_row(router)).first() is None:
            return False
        tell(connection, [router_told(Action.ROUTER_CREATED, router)])
        return True

    @reading
    def get(self, connection: Connection, key_id: str, router_id: str) -> RouterConfig | None:
        statement = select(_ROUTERS).where(_ROUTERS.c.key_id == key_id, _ROUTERS.c.id == router_id)
        return _one(connection, statement)

    @reading
    def by_slug(self, connection: Connection, key_id: str, slug: str) -> RouterConfig | None:
        return _one(connection, select(_ROUTERS).where(_ROUTERS.c.key_id == key_id, _ROUTERS.c.slug == slug))

    @reading
    def list(
        self, connection: Connection, key_id: str, limit: int, cursor: str | None
    ) -> tuple[tuple[RouterConfig, ...], str | None]:
        statement = select(_ROUTERS).where(_ROUTERS.c.key_id == key_id)
        return _page(connection, statement, _ROUTERS, limit, cursor, _router)

    @writing
    def update(self, connection: Connection, router: RouterConfig, expected_version: int) -> bool:
        """False when its version is another, it is gone, or its new slug is taken."""
        same_slug = _SLUGS.where(
            _ROUTERS.c.key_id == router.key_id, _ROUTERS.c.slug == router.slug, _ROUTERS.c.id != router.id
        )
        if connection.execute(same_slug).first() is not None:
            return False
        statement = update(_ROUTERS).where(
            _ROUTERS.c.id == router.id, _ROUTERS.c.key_id == router.key_id, _ROUTERS.c.version == expected_version
        )
        row = {name: value for name, value in _router_row(router).items() if name not in ("id", "key_id", "created_at")}
        if connection.execute(statement.values(row)).rowcount == 0:
            return False
        tell(connection, [router_told(Action.ROUTER_CHANGED, router)])
        return True

    @writing
    def delete(self, connection: Connection, key_id: str, router_id: str) -> bool:
        """With its log."""
        statement = delete(_ROUTERS).where(_ROUTERS.c.key_id == key_id, _ROUTERS.c.id == router_id)
        if connection.execute(statement).rowcount == 0:
            return False
        tell(connection, [router_deleted(router_id, key_id, teller_of(connection).now())])
        return True

    @writing
    def log(self, connection: Connection, decision: RouterDecision) -> None:
        connection.execute(insert(_DECISIONS), {**vars(decision), "body": json.dumps(dict(decision.body))})

    @reading
    def decisions(
        self, connection: Connection, router_id: str, limit: int, cursor: str | None
    ) -> tuple[tuple[RouterDecision, ...], str | None]:
        statement = select(_DECISIONS).where(_DECISIONS.c.router_id == router_id)
        return _page(connection, statement, _DECISIONS, limit, cursor, _decision)


def _one(connection: Connection, statement: Select[Any]) -> RouterConfig | None:
    row = connection.execute(statement).one_or_none()
    return None if row is None else _router(row)


def _page(
    connection: Connection,
    statement: Select[Any],
    table: Table,
    limit: int,
    cursor: str | None,
    made: Callable[[AnyRow], T],
) -> tuple[tuple[T, ...], str | None]:
    """Newest first, from after the cursor; the cursor of the next page when there is one."""
    place = tuple_(table.c.created_at, table.c.id)
    if cursor is not None:
        statement = statement.where(place < tuple_(*_place(cursor)))
    statement = statement.order_by(table.c.created_at.desc(), table.c.id.desc()).limit(limit + 1)
    rows: Sequence[AnyRow] = connection.execute(statement).all()
    shown = rows[:limit]
    more = _cursor(shown[-1]) if shown and len(rows) > limit else None
    return tuple(made(row) for row in shown), more


def _cursor(row: AnyRow) -> str:
    return base64.urlsafe_b64encode(json.dumps([row.created_at, row.id]).encode()).decode().rstrip("=")


def _place(cursor: str) -> tuple[float, str]:
    try:
        place: builtins.list[Any] = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        created_at, entry_id = place
        return float(created_at), str(entry_id)
    except (binascii.Error, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise InvalidRequestError((Issue("cursor", "is none that this list gave"),)) from error


def _router_row(router: RouterConfig) -> dict[str, object]:
    return {**vars(router), "settings": json.dumps(dict(router.settings))}


def _router(row: AnyRow) -> RouterConfig:
    return RouterConfig(**{**row._mapping, "settings": json.loads(row.settings)})


def _decision(row: AnyRow) -> RouterDecision:
    return RouterDecision(**{**row._mapping, "body": json.loads(row.body)})
