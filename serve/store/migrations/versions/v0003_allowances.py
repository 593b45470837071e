"""What a month's work of a key costs, quotes of tasks, idempotent bulk runs and their usage, weights of keys."""

from collections import defaultdict

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "spending",
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("month", sa.Integer(), nullable=False),
        sa.Column("usd", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("key_id", "month"),
    )
    op.add_column("tasks", sa.Column("quoted_usd", sa.Double(), nullable=False, server_default=sa.text("0")))
    op.add_column("idempotency", sa.Column("batch_id", sa.Text()))
    op.add_column("keys", sa.Column("weight", sa.Double()))
    op.add_column("keys", sa.Column("max_priority", sa.Integer()))
    op.add_column("batches", sa.Column("model", sa.Text(), nullable=False, server_default="auto"))
    op.add_column("batches", sa.Column("details", sa.Text()))
    is_run = sa.text("run_uri IS NOT NULL")
    op.create_index("batches_runs", "batches", ["key_id", "created_at"], sqlite_where=is_run, postgresql_where=is_run)
    _add_up()


def _add_up() -> None:
    """What was billed so far, by month. Tasks that are open count once they have ended."""
    usd: defaultdict[tuple[str, int], float] = defaultdict(float)
    for table in ("tasks", "usage_days"):
        days = op.get_bind().execute(sa.text(f"SELECT key_id, day, SUM(billed_usd) FROM {table} GROUP BY key_id, day"))
        for key_id, day, billed in days:
            usd[key_id, _month(day)] += billed
    spending = sa.table("spending", sa.column("key_id"), sa.column("month"), sa.column("usd"))
    rows = [{"key_id": key_id, "month": month, "usd": billed} for (key_id, month), billed in usd.items() if billed]
    if rows:
        op.bulk_insert(spending, rows)


def _month(day: int) -> int:
    from datetime import UTC, datetime

    at = datetime.fromtimestamp(day * 86_400, UTC)
    return at.year * 12 + at.month - 1
