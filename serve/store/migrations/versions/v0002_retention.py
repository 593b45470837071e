"""Ages to prune by, what was billed for pruned tasks, objects of deleted tasks, and counts without a scan."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    op.create_table(
        "usage_days",
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("tasks", sa.Integer(), nullable=False),
        sa.Column("billed_usd", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("key_id", "day", "model"),
    )
    op.add_column("tasks", sa.Column("purged", sa.Boolean(), nullable=False, server_default=sa.false()))
    live = ["seq", "id", "status", "epoch", "attempts", "holder", "lease_until", "not_before", "cancelled_at"]
    op.create_index("tasks_live", "tasks", live if is_sqlite else ["seq"], **_where("status IN ('PENDING', 'RUNNING')"))
    op.create_index("tasks_ended", "tasks", ["finished_at"], **_where("finished_at IS NOT NULL"))
    unpurged = "deleted IS {true} AND purged IS {false} AND finished_at IS NOT NULL"
    op.create_index(
        "tasks_unpurged",
        "tasks",
        ["seq"],
        sqlite_where=sa.text(unpurged.format(true=1, false=0)),
        postgresql_where=sa.text(unpurged.format(true="true", false="false")),
    )
    op.create_index("idempotency_by_age", "idempotency", ["created_at"])
    op.create_index("decisions_by_age", "router_decisions", ["created_at"])
    op.create_index("batches_ended", "batches", ["finished_at"], **_where("finished_at IS NOT NULL"))
    op.create_index("deliveries_delivered", "deliveries", ["delivered_at"], **_where("delivered_at IS NOT NULL"))
    # With their conditions in them: else SQLite looks those up in every row that it counts.
    state = ["due_at", "delivered_at", "given_up"]
    op.create_index("deliveries_given_up", "deliveries", state, **_where("delivered_at IS NULL AND given_up = 1"))
    op.drop_index("deliveries_due", "deliveries")
    op.create_index("deliveries_due", "deliveries", state, **_where("delivered_at IS NULL AND given_up = 0"))
    op.drop_index("tasks_dead", "tasks")
    dead: dict[str, Any] = {"sqlite_where": sa.text("dead IS 1"), "postgresql_where": sa.text("dead IS true")}
    op.create_index("tasks_dead", "tasks", ["key_id", "dead"], **dead)
    # So that a rushes of before, which looks here alone, leaves the tables be.
    op.execute("UPDATE rushes_schema SET version = 2")


def _where(condition: str) -> dict[str, Any]:
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}
