"""One database under the store: connections, transactions, and what its errors mean to us.

SQLite: WAL, so that readers never wait; synchronous=FULL, so that what was committed is on the disk; writes begin
IMMEDIATE on the one writing connection of a process, and processes take turns by SQLite's lock.
Postgres: READ COMMITTED with row locks; advisory locks where a count or an order must hold across rows.
"""

import functools
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Concatenate, ParamSpec, Protocol, TypeAlias, TypeVar

from sqlalchemy import Connection, Engine, FromClause, Row, Table, create_engine, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.sqlite.base import SQLiteCompiler
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from schemas.errors import PermanentError
from serve.errors import StoreUnavailableError
from storage.retry import Backoff, retried

AnyRow: TypeAlias = Row[*tuple[Any, ...]]
T = TypeVar("T")
P = ParamSpec("P")

BUSY_S = 5.0
_TURN_S = 0.001
_BACKOFF = Backoff(budget_s=2.0, first_s=0.02, longest_s=0.5)
# SQLite's own, in the low byte of its extended codes: BUSY, LOCKED, READONLY (a directory that vanished), IOERR, FULL,
# CANTOPEN, PROTOCOL. Any other OperationalError is a wrong statement or a wrong file.
_SQLITE_PASSING = frozenset({5, 6, 8, 10, 13, 14, 15})
# What Postgres says of a state that passes, and the driver does not count among its operational errors: read-only (a
# standby, a failover, a full disk's guard), and a transaction that it ended for being idle.
_POSTGRES_PASSING = frozenset({"25006", "25P03"})
# So that a connection that a firewall forgot is missed within half a minute.
_POSTGRES_KEEPALIVE = {
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}
_POSTGRES_SESSION = f"""
SELECT set_config('lock_timeout', '{BUSY_S:.0f}s', false), set_config('statement_timeout', '30s', false),
  set_config('idle_in_transaction_session_timeout', '15s', false), set_config('timezone', 'UTC', false),
  CASE WHEN current_setting('synchronous_commit') = 'off' THEN set_config('synchronous_commit', 'on', false) END
"""


class _UnsureError(Exception):
    """The connection went away during COMMIT: nobody knows whether it is stored, so it must not be tried again."""


class Database:
    """Hands out transactions. Thread-safe; for one process (open another after a fork)."""

    def __init__(
        self, url: URL, sleep: Callable[[float], None] = time.sleep, writer_options: Mapping[str, object] | None = None
    ) -> None:
        """`writer_options`: what `Connection.get_execution_options` gives within a write."""
        self.is_sqlite = url.get_backend_name() == "sqlite"
        writer, self._reader = _sqlite_engines(url) if self.is_sqlite else _postgres_engines(url)
        self._writer = writer.execution_options(**writer_options) if writer_options else writer
        self._sleep = sleep

    def write(self, work: Callable[[Connection], T], *, budget_s: float = _BACKOFF.budget_s) -> T:
        """`work` in one transaction, durable on return; it may run more than once, of which one is kept.

        `budget_s`: how long a store that is locked or away is tried again.
        """

        def attempt() -> T:
            with _our_errors(), self._writer.connect() as connection:
                transaction = connection.begin()
                try:
                    answer = work(connection)
                except DBAPIError as error:
                    if _is_read_only(error):
                        # The server of a failover, or a session that began while writes were off: the next connection
                        # may lead elsewhere, or begin otherwise.
                        connection.invalidate(error)
                    else:
                        transaction.rollback()
                    raise
                except BaseException:
                    transaction.rollback()
                    raise
                try:
                    transaction.commit()
                except DBAPIError as error:
                    if error.connection_invalidated:
                        raise _UnsureError from error
                    raise
                return answer

        try:
            return retried(attempt, replace(_BACKOFF, budget_s=budget_s), sleep=self._sleep)
        except _UnsureError as error:
            raise StoreUnavailableError("the task store went away during a commit") from error

    def read(self, work: Callable[[Connection], T]) -> T:
        """`work` outside of a transaction: each statement sees what is committed as it starts."""

        def attempt() -> T:
            with _our_errors(), self._reader.connect() as connection:
                return work(connection)

        return retried(attempt, _BACKOFF, sleep=self._sleep)

    def insert(self, table: Table) -> "postgresql.Insert | sqlite.Insert":
        """An INSERT that knows ON CONFLICT."""
        return sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)

    def close(self) -> None:
        self._reader.dispose()
        self._writer.dispose()


class HasDatabase(Protocol):
    @property
    def _db(self) -> Database: ...


S = TypeVar("S", bound=HasDatabase)


def writing(method: Callable[Concatenate[S, Connection, P], T]) -> Callable[Concatenate[S, P], T]:
    """Makes a method one write transaction: its connection is given by this, and all else by the caller."""

    def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._db.write(lambda connection: method(self, connection, *args, **kwargs))

    functools.update_wrapper(call, method)
    return call


def reading(method: Callable[Concatenate[S, Connection, P], T]) -> Callable[Concatenate[S, P], T]:
    """Makes a method a read."""

    def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._db.read(lambda connection: method(self, connection, *args, **kwargs))

    functools.update_wrapper(call, method)
    return call


def _sqlite_engines(url: URL) -> tuple[Engine, Engine]:
    # A pool of one is the lock between the threads that write; the timeout is how long they wait for each other.
    writer = create_engine(url, pool_size=1, max_overflow=0, pool_timeout=BUSY_S, connect_args=_SQLITE_CONNECT)
    reader = create_engine(url, pool_size=8, max_overflow=56, pool_timeout=BUSY_S, connect_args=_SQLITE_CONNECT)
    for engine in (writer, reader):
        engine.dialect.statement_compiler = _SqliteCompiler
        event.listen(engine, "connect", _prepare_sqlite)
    # pysqlite begins nothing by itself (isolation_level None): the writer does here, readers never do.
    event.listen(writer, "connect", lambda connection, _: connection.execute("PRAGMA busy_timeout=0"))
    event.listen(writer, "begin", _take_turn)
    return writer, reader


class _SqliteCompiler(SQLiteCompiler):
    """Says what `with_hint` was given after the table's name."""

    def get_from_hint_text(self, table: FromClause, text: str | None) -> str | None:  # noqa: ARG002 - SQLAlchemy gives it
        return text


_SQLITE_CONNECT = {"timeout": BUSY_S, "check_same_thread": False, "isolation_level": None}


def _prepare_sqlite(connection: sqlite3.Connection, _: object) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "cache_size=-16384"):
        connection.execute(f"PRAGMA {pragma}").close()


def _take_turn(connection: Connection) -> None:
    """BEGIN IMMEDIATE, asked for every millisecond until another process lets go.

    SQLite's own waiting backs off to 100 ms a sleep: with four processes that write, some wait seconds for their turn.
    """
    raw = connection.connection.driver_connection
    assert isinstance(raw, sqlite3.Connection)
    deadline = time.monotonic() + BUSY_S
    while time.monotonic() < deadline:
        try:
            raw.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                break
        time.sleep(_TURN_S)
    connection.exec_driver_sql("BEGIN IMMEDIATE")  # the last try says what is wrong


def _postgres_engines(url: URL) -> tuple[Engine, Engine]:
    engine = create_engine(
        url,
        pool_size=6,
        max_overflow=10,
        pool_timeout=BUSY_S,
        pool_use_lifo=True,
        connect_args={"connect_timeout": 5, **_POSTGRES_KEEPALIVE},
    )

    @event.listens_for(engine, "connect")
    def prepare(connection, _) -> None:  # type: ignore[no-untyped-def]
        connection.autocommit = True
        connection.execute(_POSTGRES_SESSION)
        connection.autocommit = False

    return engine, engine.execution_options(isolation_level="AUTOCOMMIT")


@contextmanager
def _our_errors() -> Iterator[None]:
    """SQLAlchemy's errors as ours. Clients may see the messages, so address, path and statement stay in the cause."""
    try:
        yield
    except PoolTimeoutError as error:
        raise StoreUnavailableError("the task store is busy: no connection was free in time") from error
    except DBAPIError as error:
        kind = type(error.orig).__name__
        if _passes(error):
            raise StoreUnavailableError(f"the task store does not answer ({kind})") from error
        raise PermanentError(f"the task store refuses ({kind})") from error


def _sqlstate(error: DBAPIError) -> str:
    return getattr(error.orig, "sqlstate", None) or ""


def _is_read_only(error: DBAPIError) -> bool:
    return _sqlstate(error) == "25006"


def _passes(error: DBAPIError) -> bool:
    if _sqlstate(error) in _POSTGRES_PASSING:
        return True
    if error.connection_invalidated or isinstance(error, InterfaceError):
        return True
    if isinstance(error.orig, sqlite3.Error):
        return getattr(error.orig, "sqlite_errorcode", 0) & 0xFF in _SQLITE_PASSING
    return isinstance(error, OperationalError)
