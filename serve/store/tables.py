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
    false,
    literal_column,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

from schemas.audit import storable
from schemas.clip import Status

REVISION = "0004"  # the last of `migrations/`, which makes what stands here

metadata = MetaData()


class Words(TypeDecorator[str]):
    """Text from anywhere. Postgres has no NUL and UTF-8 no lone surrogates: both become U+FFFD, also in questions."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - SQLAlchemy gives it
        return None if value is None else storable(value)


def by_index(statement: Select[Any], name: str, table: Table | None = None) -> Select[Any]:
    """SQLite knows nothing of how many are in which status, and would pass a partial index by."""
    return statement.with_hint(tasks if table is None else table, f"INDEXED BY {name}", "sqlite")


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
    Column("quoted_usd", Double, nullable=False, default=0.0, server_default=text("0")),  # of the offer: reserved
    Column("body", Text, nullable=False),  # request, constraints and offer: never changed
    Column("render_group", Text, nullable=False),
    Column("story", Text),  # null: the offer's
    Column("outcome", Text),
    # Of one that was deleted: nothing of it is in the object store any more.
    Column("purged", Boolean, nullable=False, default=False, server_default=false()),
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
Index("tasks_dead", tasks.c.key_id, tasks.c.dead, sqlite_where=_DEAD, postgresql_where=_DEAD)
# What a scheduler reconciles with. SQLite reads it from the index alone: its rows are wide. Not Postgres, where every
# heartbeat would then write to each index.
LIVE = tasks.c.status.in_([literal_column(f"'{status}'") for status in (Status.PENDING, Status.RUNNING)])
LIVE_COLUMNS = (
    tasks.c.seq,
    tasks.c.id,
    tasks.c.status,
    tasks.c.epoch,
    tasks.c.attempts,
    tasks.c.holder,
    tasks.c.lease_until,
    tasks.c.not_before,
    tasks.c.cancelled_at,
)
Index("tasks_live", *LIVE_COLUMNS, sqlite_where=LIVE).ddl_if(dialect="sqlite")
Index("tasks_live", tasks.c.seq, postgresql_where=LIVE).ddl_if(dialect="postgresql")
# By age, for pruning; and what a sweep has still to remove.
ENDED = tasks.c.finished_at.is_not(None)
UNPURGED = tasks.c.deleted.is_(True) & tasks.c.purged.is_(False) & ENDED
Index("tasks_ended", tasks.c.finished_at, sqlite_where=ENDED, postgresql_where=ENDED)
Index("tasks_unpurged", tasks.c.seq, sqlite_where=UNPURGED, postgresql_where=UNPURGED)

# Of tasks that were pruned, so that the usage stays as it was.
usage_days = Table(
    "usage_days",
    metadata,
    Column("key_id", Words, primary_key=True),
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("model", Words, primary_key=True),
    Column("tasks", Integer, nullable=False),
    Column("billed_usd", Double, nullable=False),
)

# What a key's tasks and bulk runs cost that were accepted in a month: as billed, and as quoted while they are open.
spending = Table(
    "spending",
    metadata,
    Column("key_id", Words, primary_key=True),
    Column("month", Integer, primary_key=True, autoincrement=False),  # year × 12 + month − 1, UTC
    Column("usd", Double, nullable=False),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("key_id", Words, primary_key=True),
    Column("name", Words, primary_key=True),
    Column("digest", Words, nullable=False),
    Column("task_ids", Text, nullable=False),
    Column("batch_id", Words),  # of a bulk run, which has no tasks here
    Column("created_at", Double, nullable=False),
)
Index("idempotency_by_age", idempotency.c.created_at)

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
    Column("weight", Double),
    Column("max_priority", Integer),
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
Index("decisions_by_age", router_decisions.c.created_at)

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
    Column("model", Words, nullable=False, server_default="auto"),  # as the client named it: for the usage of runs
    Column("details", Text),
)
_RUN = batches.c.run_uri.is_not(None)
Index("batches_runs", batches.c.key_id, batches.c.created_at, sqlite_where=_RUN, postgresql_where=_RUN)
_OPEN_RUN = batches.c.run_uri.is_not(None) & batches.c.finished_at.is_(None)
Index("batches_open_runs", batches.c.created_at, sqlite_where=_OPEN_RUN, postgresql_where=_OPEN_RUN)
ENDED_BATCH = batches.c.finished_at.is_not(None)
Index("batches_ended", batches.c.finished_at, sqlite_where=ENDED_BATCH, postgresql_where=ENDED_BATCH)

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
DELIVERED = deliveries.c.delivered_at.is_not(None)
GIVEN_UP = deliveries.c.delivered_at.is_(None) & (deliveries.c.given_up == literal_column("1"))
Index("deliveries_delivered", deliveries.c.delivered_at, sqlite_where=DELIVERED, postgresql_where=DELIVERED)
# With their conditions in them, as in `tasks_ahead`.
_STATE = (deliveries.c.due_at, deliveries.c.delivered_at, deliveries.c.given_up)
Index("deliveries_due", *_STATE, sqlite_where=WAITING, postgresql_where=WAITING)
Index("deliveries_given_up", *_STATE, sqlite_where=GIVEN_UP, postgresql_where=GIVEN_UP)

notes = Table(
    "notes",
    metadata,
    Column("name", Words, primary_key=True),
    Column("value", Text, nullable=False),
)

# What was told of and is not chained yet, in the order in which it was told.
audit_outbox = Table(
    "audit_outbox",
    metadata,
    Column("id", _Seq, primary_key=True),
    Column("entry", Text, nullable=False),
    Column("salt", Text),
    Column("words", Text),
)

# The chain: rows are added at its end, and pruned from its beginning.
audit_log = Table(
    "audit_log",
    metadata,
    Column("position", _Seq, primary_key=True, autoincrement=False),
    Column("at", Double, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Words, nullable=False),
    Column("key_id", Words, nullable=False),
    Column("entry", Text, nullable=False),  # canonical JSON: what is hashed; the columns above are from it
    Column("previous", Text, nullable=False),
    Column("hash", Text, nullable=False),
)
Index("audit_by_time", audit_log.c.at)
Index("audit_by_subject", audit_log.c.subject, audit_log.c.position)
Index("audit_by_key", audit_log.c.key_id, audit_log.c.position)

# Beside the chain, where it may be taken away: the salt of a prompt's hash, and its words where they are kept.
audit_prompts = Table(
    "audit_prompts",
    metadata,
    Column("position", _Seq, primary_key=True, autoincrement=False),
    Column("salt", Text, nullable=False),
    Column("words", Text),
)

audit_head = Table(
    "audit_head",
    metadata,
    Column("only", Integer, primary_key=True, autoincrement=False),
    Column("log", Text, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("hash", Text, nullable=False),
    Column("floor_position", BigInteger, nullable=False),
    Column("floor_hash", Text, nullable=False),
)

# By alembic. A name of its own: others may keep their tables in the same database.
revisions = Table("rushes_revision", MetaData(), Column("version_num", Text, primary_key=True))

# What an older rushes looks at: it refuses what is not 1.
schema = Table(
    "rushes_schema",
    metadata,
    Column("only", Integer, primary_key=True, autoincrement=False),
    Column("version", Integer, nullable=False),
)
