"""Opening a store: which database a URL means, and that its tables are of this version."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from schemas.audit import AuditSettings
from schemas.errors import ConfigError, PermanentError
from serve.store.audit import TELLER, SqlAudit
from serve.store.audit_entries import Teller
from serve.store.batches import SqlBatches
from serve.store.contract import (
    AuditStore,
    BatchStore,
    DeliveryStore,
    KeyStore,
    NoteStore,
    RouterStore,
    Store,
    TaskStore,
    UploadStore,
)
from serve.store.cutoffs import Cutoffs, Pruned
from serve.store.database import Database
from serve.store.deliveries import SqlDeliveries
from serve.store.keys import SqlKeys
from serve.store.notes import SqlNotes
from serve.store.retention import Pruner
from serve.store.routers import SqlRouters
from serve.store.schema import bring_up_to_date
from serve.store.tasks import SqlTasks
from serve.store.uploads import SqlUploads
from trust.actor import os_user

_AUDIT = AuditSettings()
FORMS = ("sqlite:///FILE", "postgresql://USER:PASSWORD@HOST/DATABASE")


@dataclass
class _SqlStore:
    tasks: TaskStore
    keys: KeyStore
    routers: RouterStore
    batches: BatchStore
    uploads: UploadStore
    deliveries: DeliveryStore
    notes: NoteStore
    audit: AuditStore
    _db: Database
    _teller: Teller

    def prune(self, before: Cutoffs, limit: int = 500) -> Pruned:
        return Pruner(self._db, self.audit, self._teller).prune(before, limit)

    def close(self) -> None:
        self._db.close()


def open_store(url: str, audit: AuditSettings = _AUDIT, actor: str | None = None) -> Store:
    """The store at a URL of `FORMS`; its tables are made where they are missing, and migrated where they are older.

    The audit log names `actor` for what no API key does: this process's user unless given.

    ConfigError: no such kind of database, not ours, or of a later rushes. StoreUnavailableError: it does not answer.
    """
    address = _address(url)
    shown = address.render_as_string(hide_password=True)
    if address.get_backend_name() == "sqlite":
        _make_folder(address, shown)
    teller = Teller(actor or os_user(), audit.prompts)
    db = Database(address, writer_options={TELLER: teller})
    try:
        bring_up_to_date(db)
    except ConfigError as error:
        db.close()
        raise ConfigError(f"database {shown}: {error}") from error
    except PermanentError as error:
        db.close()
        raise ConfigError(f"database {shown}: cannot be used: {_root(error)}") from error
    except BaseException:
        db.close()
        raise
    return _SqlStore(
        tasks=SqlTasks(db),
        keys=SqlKeys(db),
        routers=SqlRouters(db),
        batches=SqlBatches(db),
        uploads=SqlUploads(db),
        deliveries=SqlDeliveries(db),
        notes=SqlNotes(db),
        audit=SqlAudit(db),
        _db=db,
        _teller=teller,
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


def _root(error: BaseException) -> BaseException:
    """The driver's own words: whoever starts an endpoint may see them."""
    cause: BaseException | None = error.__cause__
    return getattr(cause, "orig", cause) or error
