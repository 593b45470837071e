"""The tables, alike on SQLite and Postgres. What is asked for in WHERE has a column; the rest is JSON text.

Each index belongs to one question; partial ones keep what waits apart from the millions that have ended.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Select,
    Sequence,
    Table,
    Text,
    UniqueConstraint,
    literal_column,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

from schemas.clip import Status

SCHEMA_VERSION = 1

metadata = MetaData()


class Words(TypeDecorator[str]):
    """Text from anywhere. Postgres has no NUL and UTF-8 no lone surrogates: both become U+FFFD, also in questions."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - SQLAlchemy gives it
        if value is None or (value.isascii() and "\x00" not in value):
            return value
        return value.replace("\x00", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def by_index(statement: Select[Any], name: str) -> Select[Any]:
    """SQLite knows nothing of how many are in which status, and would pass a partial index by."""
    return statement.with_hint(tasks, f"INDEXED BY {name}", "sqlite")


# SQLite's rowid is what its INTEGER PRIMARY KEY names.
_Seq = BigInteger().with_variant(Integer(), "sqlite")

# Postgres numbers tasks by this; SQLite, with one writer, by the largest seq.
task_seq = Sequence("task_seq", metadata=metadata)

tasks = Table(
    "tasks",
    metadata,
    Column("seq", _Seq, primary_key=True, autoincrement=False),
    Column("id", Words, nullable=False, unique=True),
    Column("key_id", Words, nullable=False),
    Column("kind", Words, nullable=False),
    Column("model", Words, nullable=False),
    Column("status", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("batch_id", Words, ForeignKey("batches.id")),
    Column("router_id", Words),
    Column("webhook_url", Words),
    Column("created_at", Double, nullable=False),
    Column("day", Integer, nullable=False),  # of created_at, in days since the epoch: for the usage
    Column("started_at", Double),
    Column("finished_at", Double),
    Column("attempts", Integer, nullable=False, default=0),
    Column("epoch", Integer, nullable=False, default=0),
    Column("holder", Words, nullable=False, default=""),
    Column("lease_until", Double, nullable=False, default=0.0),
    Column("not_before", Double, nullable=False, default=0.0),
    Column("progress", Double, nullable=False, default=0.0),
    Column("stage", Words, nullable=False, default=""),
    Column("cancelled_at", Double),  # asked for then
    Column("deleted", Boolean, nullable=False, default=False),
    Column("variant", Words, nullable=False, default=""),
    Column("fallback", Words, nullable=False, default=""),
    Column("last_error", Words, nullable=False, default=""),
    Column("dead", Boolean, nullable=False, default=False),
    Column("billed_usd", Double, nullable=False, default=0.0),
    Column("body", Text, nullable=False),  # request, constraints and offer: never changed
    Column("render_group", Text, nullable=False),
    Column("story", Text),  # null: the offer's
    Column("outcome", Text),
)

_PENDING = tasks.c.status == literal_column(f"'{Status.PENDING}'")
_AGAIN = _PENDING & (tasks.c.attempts > literal_column("0"))
_DEAD = tasks.c.dead.is_(True)
_THROTTLED = tasks.c.status == literal_column(f"'{Status.THROTTLED}'")

# The queue in order, those that run (few: leases need no index of their own), the latest that ended so, the counts.
Index("tasks_by_status", tasks.c.status, tasks.c.seq)
# With the status in it, though all have the same: SQLite would look it up in each of ten thousand rows.
Index("tasks_ahead", tasks.c.priority, tasks.c.seq, tasks.c.status, sqlite_where=_PENDING, postgresql_where=_PENDING)
Index("tasks_again", tasks.c.not_before, sqlite_where=_AGAIN, postgresql_where=_AGAIN)
# A key's: how many are live, the latest, those of a day, which are released next.
Index("tasks_by_key", tasks.c.key_id, tasks.c.status, tasks.c.seq)
Index("tasks_latest", tasks.c.key_id, tasks.c.seq)
Index("tasks_by_day", tasks.c.key_id, tasks.c.created_at)
Index("tasks_throttled", tasks.c.key_id, tasks.c.seq, sqlite_where=_THROTTLED, postgresql_where=_THROTTLED)
Index(
    "tasks_by_batch",
    tasks.c.batch_id,
    tasks.c.status,
    sqlite_where=tasks.c.batch_id.is_not(None),
    postgresql_where=tasks.c.batch_id.is_not(None),
)
Index("tasks_dead", tasks.c.key_id, sqlite_where=_DEAD, postgresql_where=_DEAD)

idempotency = Table(
    "idempotency",
    metadata,
    Column("key_id", Words, primary_key=True),
    Column("name", Words, primary_key=True),
    Column("digest", Words, nullable=False),
    Column("task_ids", Text, nullable=False),
    Column("created_at", Double, nullable=False),
)

keys = Table(
    "keys",
    metadata,
    Column("id", Words, primary_key=True),
    Column("digest", Words, nullable=False, unique=True),
    Column("name", Words, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("max_concurrent", Integer),
    Column("max_daily", Integer),
    Column("monthly_credits", Integer),
    Column("revoked_at", Double),
)

routers = Table(
    "routers",
    metadata,
    Column("id", Words, primary_key=True),
    Column("key_id", Words, nullable=False),
    Column("slug", Words, nullable=False),
    Column("name", Words, nullable=False),
    Column("description", Words),
    Column("settings", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    UniqueConstraint("key_id", "slug"),
)
Index("routers_latest", routers.c.key_id, routers.c.created_at, routers.c.id)

router_decisions = Table(
    "router_decisions",
    metadata,
    Column("id", Words, primary_key=True),
    Column("router_id", Words, ForeignKey("routers.id", ondelete="CASCADE"), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("body", Text, nullable=False),
)
Index("decisions_latest", router_decisions.c.router_id, router_decisions.c.created_at, router_decisions.c.id)

batches = Table(
    "batches",
    metadata,
    Column("id", Words, primary_key=True),
    Column("key_id", Words, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("total", Integer, nullable=False),
    Column("quote_usd", Double, nullable=False),
    Column("status", Text, nullable=False),  # of bulk runs and of what has ended; else the tasks say it
    Column("webhook_url", Words),
    Column("manifest_uri", Words),
    Column("run_uri", Words),
    Column("counts", Text, nullable=False),
    Column("billed_usd", Double, nullable=False),
    Column("finished_at", Double),
    Column("failure", Words, nullable=False),
)
_OPEN_RUN = batches.c.run_uri.is_not(None) & batches.c.finished_at.is_(None)
Index("batches_open_runs", batches.c.created_at, sqlite_where=_OPEN_RUN, postgresql_where=_OPEN_RUN)

uploads = Table(
    "uploads",
    metadata,
    Column("id", Words, primary_key=True),
    Column("key_id", Words, nullable=False),
    Column("filename", Words, nullable=False),
    Column("object_key", Words, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False, index=True),
    Column("content_type", Words, nullable=False),
    Column("upload_bytes", BigInteger),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", Words, primary_key=True),
    Column("url", Words, nullable=False),
    Column("key_id", Words, nullable=False),
    Column("payload", Words, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("due_at", Double, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("last_error", Words, nullable=False),
    Column("delivered_at", Double),
    Column("given_up", Integer, nullable=False),  # 0 or 1: an index condition that both databases read alike
    CheckConstraint("given_up IN (0, 1)"),
)
WAITING = deliveries.c.delivered_at.is_(None) & (deliveries.c.given_up == literal_column("0"))
Index("deliveries_due", deliveries.c.due_at, sqlite_where=WAITING, postgresql_where=WAITING)

notes = Table(
    "notes",
    metadata,
    Column("name", Words, primary_key=True),
    Column("value", Text, nullable=False),
)

schema = Table(
    "rushes_schema",
    metadata,
    Column("only", Integer, primary_key=True, autoincrement=False),
    Column("version", Integer, nullable=False),
)
