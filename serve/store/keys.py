"""API keys."""

from sqlalchemy import Connection, bindparam, insert, select, update

from schemas.audit import Action
from serve.store import tables
from serve.store.audit import tell, teller_of
from serve.store.audit_entries import key_revoked, key_told
from serve.store.contract import ApiKey
from serve.store.database import AnyRow, Database, reading, writing

_KEYS = tables.keys
_COLUMNS = select(*(column for column in _KEYS.c if column.name != "digest"))
_FIND = _COLUMNS.where(_KEYS.c.digest == bindparam("secret"), _KEYS.c.revoked_at.is_(None))
_GET = _COLUMNS.where(_KEYS.c.id == bindparam("key"))
_HELD = _GET.with_for_update()
_ALL = _COLUMNS.order_by(_KEYS.c.created_at, _KEYS.c.id)
_UPDATE = update(_KEYS).where(_KEYS.c.id == bindparam("key"), _KEYS.c.revoked_at.is_(None))
_CHANGING = ("name", "max_concurrent", "max_daily", "monthly_credits", "weight", "max_priority")


class SqlKeys:
    """`KeyStore` over a database."""

    def __init__(self, db: Database) -> None:
        self._db = db

    @writing
    def add(self, connection: Connection, key: ApiKey, digest: str) -> None:
        """PermanentError when there is one with that id or secret."""
        connection.execute(insert(_KEYS), {**vars(key), "digest": digest})
        tell(connection, [key_told(Action.KEY_CREATED, key, key.created_at, teller_of(connection))])

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
    def change(self, connection: Connection, key: ApiKey) -> bool:
        values = {name: getattr(key, name) for name in _CHANGING}
        before = _key(connection.execute(_HELD, {"key": key.id}).one_or_none())
        if connection.execute(_UPDATE, {"key": key.id, **values}).rowcount == 0:
            return False
        teller = teller_of(connection)
        tell(connection, [key_told(Action.KEY_CHANGED, key, teller.now(), teller, before)])
        return True

    @writing
    def revoke(self, connection: Connection, key_id: str, now: float) -> bool:
        """False when there is none, or it was revoked before."""
        if connection.execute(_UPDATE, {"key": key_id, "revoked_at": now}).rowcount == 0:
            return False
        tell(connection, [key_revoked(key_id, now, teller_of(connection))])
        return True


def _key(row: AnyRow | None) -> ApiKey | None:
    return None if row is None else ApiKey(**row._mapping)
