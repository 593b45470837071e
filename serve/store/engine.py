"""Opening a store: which database a URL means, its tables, and whether they are of this version."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, insert, inspect, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from schemas.errors import ConfigError, PermanentError
from serve.store import tables
from serve.store.batches import SqlBatches
from serve.store.contract import (
    BatchStore,
    DeliveryStore,
    KeyStore,
    NoteStore,
    RouterStore,
    Store,
    TaskStore,
    UploadStore,
)
from serve.store.database import Database
from serve.store.deliveries import SqlDeliveries
from serve.store.keys import SqlKeys
from serve.store.notes import SqlNotes
from serve.store.routers import SqlRouters
from serve.store.tasks import SqlTasks
from serve.store.uploads import SqlUploads

FORMS = ("sqlite:///FILE", "postgresql://USER:PASSWORD@HOST/DATABASE")
# Postgres: processes that start together make the tables one after the other.
_HOLD_SCHEMA = text("SELECT pg_advisory_xact_lock(1920300905)")


@dataclass
class _SqlStore:
    tasks: TaskStore
    keys: KeyStore
    routers: RouterStore
    batches: BatchStore
    uploads: UploadStore
    deliveries: DeliveryStore
    notes: NoteStore
    _db: Database

    def close(self) -> None:
        self._db.close()


def open_store(url: str) -> Store:
    """The store at a URL of `FORMS`; its tables are made where they are missing.

    ConfigError: no such kind of database, not ours, or of another version. StoreUnavailableError: it does not answer.
    """
    address = _address(url)
    shown = address.render_as_string(hide_password=True)
    if address.get_backend_name() == "sqlite":
        _make_folder(address, shown)
    db = Database(address)
    try:
        version = db.write(lambda connection: _prepared(connection, db.is_sqlite))
    except PermanentError as error:
        db.close()
        raise ConfigError(f"database {shown}: cannot be used: {_root(error)}") from error
    except BaseException:
        db.close()
        raise
    if version != tables.SCHEMA_VERSION:
        db.close()
        raise ConfigError(
            f"database {shown}: its tables are of version {version}, this rushes needs {tables.SCHEMA_VERSION}; "
            "start the rushes that made them, or name another database"
        )
    return _SqlStore(
        tasks=SqlTasks(db),
        keys=SqlKeys(db),
        routers=SqlRouters(db),
        batches=SqlBatches(db),
        uploads=SqlUploads(db),
        deliveries=SqlDeliveries(db),
        notes=SqlNotes(db),
        _db=db,
    )


def _address(url: str) -> URL:
    try:
        address = make_url(url)
    except ArgumentError as error:
        # The text may hold a password.
        raise ConfigError(f"database: not a URL; available: {', '.join(FORMS)}") from error
    match address.drivername:
        case "sqlite" | "sqlite+pysqlite":
            if not address.database or address.database == ":memory:" or address.query.get("mode") == "memory":
                raise ConfigError("database: SQLite in memory forgets what was accepted; available: sqlite:///FILE")
            return address.set(drivername="sqlite+pysqlite")
        case "postgresql" | "postgres" | "postgresql+psycopg":
            if importlib.util.find_spec("psycopg") is None:
                raise ConfigError("database: Postgres needs psycopg: pip install 'rushes[postgres]'")
            return address.set(drivername="postgresql+psycopg")
        case other:
            raise ConfigError(f"database: unknown kind '{other}'; available: {', '.join(FORMS)}")


def _make_folder(address: URL, shown: str) -> None:
    try:
        Path(address.database or "").resolve().parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"database {shown}: {error}") from error


def _prepared(connection: Connection, is_sqlite: bool) -> int:
    """Make what is missing, in the one transaction; the version of what is there."""
    if not is_sqlite:
        connection.execute(_HOLD_SCHEMA)
    if inspect(connection).has_table(tables.schema.name):
        return connection.execute(select(tables.schema.c.version)).scalar_one()
    tables.metadata.create_all(connection)
    connection.execute(insert(tables.schema), {"only": 1, "version": tables.SCHEMA_VERSION})
    return tables.SCHEMA_VERSION


def _root(error: BaseException) -> BaseException:
    """The driver's own words: whoever starts an endpoint may see them."""
    cause: BaseException | None = error.__cause__
    return getattr(cause, "orig", cause) or error
