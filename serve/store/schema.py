"""Which revision a database's tables are of, and making them this one's. Revisions are in `migrations/`."""

import threading
from pathlib import Path

from sqlalchemy import Connection, inspect, select, text

from schemas.errors import ConfigError
from serve.store import tables
from serve.store.database import Database

_BEFORE_MIGRATIONS = "0001"  # what version 1 of `rushes_schema` was
# Migrating a large table takes longer than any request may, and other processes that start wait for it.
_MIGRATION_S = 600.0
_POSTGRES_HOLD = (
    text(f"SET LOCAL statement_timeout = '{_MIGRATION_S:.0f}s'"),
    text(f"SET LOCAL lock_timeout = '{_MIGRATION_S:.0f}s'"),
    text("SELECT pg_advisory_xact_lock(1920300905)"),
)
_ALEMBIC = threading.Lock()  # it keeps what it works on in a global


class NewerSchemaError(ConfigError):
    """The tables are of a later rushes."""

    def __init__(self, found: str) -> None:
        super().__init__(
            f"its tables are of version {found}, newer than this rushes knows ({tables.REVISION}); "
            "start the rushes that made them, or name another database"
        )


def bring_up_to_date(db: Database) -> None:
    """Make the tables, or change those of an earlier rushes, in one transaction that other processes wait for.

    NewerSchemaError: they are of a later one; nothing is changed.
    """
    if db.read(_revision) == tables.REVISION:
        return
    # A server that is away says so at once; only others that migrate are waited for.
    db.write(lambda connection: _migrate(connection, db.is_sqlite), budget_s=_MIGRATION_S)


def _migrate(connection: Connection, is_sqlite: bool) -> None:
    if not is_sqlite:
        for statement in _POSTGRES_HOLD:
            connection.execute(statement)
    found = _revision(connection)  # by now another process may have done it
    if found == tables.REVISION:
        return
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    known = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    if found is not None and found not in known:
        raise NewerSchemaError(found)
    config.attributes["connection"] = connection
    with _ALEMBIC:
        if found == _BEFORE_MIGRATIONS:
            command.stamp(config, found)
        command.upgrade(config, tables.REVISION)


def _revision(connection: Connection) -> str | None:
    """None: there are no tables of ours. What is no revision of ours is of a later rushes."""
    there = inspect(connection)
    if there.has_table(tables.revisions.name):
        return connection.execute(select(tables.revisions.c.version_num)).scalar_one_or_none()
    if there.has_table(tables.schema.name):
        version = connection.execute(select(tables.schema.c.version)).scalar_one()
        return f"{version:04d}"
    return None
