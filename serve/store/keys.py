"""API keys."""

from sqlalchemy import Connection, bindparam, insert, select, update

from serve.store import tables
from serve.store.contract import ApiKey
from serve.store.database import AnyRow, Database, reading, writing

_KEYS = tables.keys
_COLUMNS = select(*(column for column in _KEYS.c if column.name != "digest"))
_FIND = _COLUMNS.where(_KEYS.c.digest == bindparam("secret"), _KEYS.c.revoked_at.is_(None))
_GET = _COLUMNS.where(_KEYS.c.id == bindparam("key"))
_ALL = _COLUMNS.order_by(_KEYS.c.created_at, _KEYS.c.id)
_REVOKE = update(_KEYS).where(_KEYS.c.id == bindparam("key"), _KEYS.c.revoked_at.is_(None))


class SqlKeys:
    """`KeyStore` over a database."""

    def __init__(self, db: Database) -> None:
        self._db = db

    @writing
    def add(self, connection: Connection, key: ApiKey, digest: str) -> None:
        """PermanentError when there is one with that id or secret."""
        connection.execute(insert(_KEYS), {**vars(key), "digest": digest})

    @reading
    def find(self, connection: Connection, digest: str) -> ApiKey | None:
        """Revoked keys are not found."""
        return _key(connection.execute(_FIND, {"secret": digest}).one_or_none())

    @reading
    def get(self, connection: Connection, key_id: str) -> ApiKey | None:
        return _key(connection.execute(_GET, {"key": key_id}).one_or_none())

    @reading
    def all(self, connection: Connection) -> tuple[ApiKey, ...]:
        """Oldest first, revoked ones too."""
        return tuple(ApiKey(**row._mapping) for row in connection.execute(_ALL))

    @writing
    def revoke(self, connection: Connection, key_id: str, now: float) -> bool:
        """False when there is none, or it was revoked before."""
        return connection.execute(_REVOKE, {"key": key_id, "revoked_at": now}).rowcount > 0


def _key(row: AnyRow | None) -> ApiKey | None:
    return None if row is None else ApiKey(**row._mapping)
