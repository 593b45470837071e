"""The audit log: its outbox, its chain, what lies beside it, and its head."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    seq = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "audit_outbox",
        sa.Column("id", seq, primary_key=True),
        sa.Column("entry", sa.Text(), nullable=False),
        sa.Column("salt", sa.Text()),
        sa.Column("words", sa.Text()),
    )
    op.create_table(
        "audit_log",
        sa.Column("position", seq, primary_key=True, autoincrement=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("entry", sa.Text(), nullable=False),
        sa.Column("previous", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
    )
    op.create_index("audit_by_time", "audit_log", ["at"])
    op.create_index("audit_by_subject", "audit_log", ["subject", "position"])
    op.create_index("audit_by_key", "audit_log", ["key_id", "position"])
    op.create_table(
        "audit_prompts",
        sa.Column("position", seq, primary_key=True, autoincrement=False),
        sa.Column("salt", sa.Text(), nullable=False),
        sa.Column("words", sa.Text()),
    )
    op.create_table(
        "audit_head",
        sa.Column("only", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("log", sa.Text(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("floor_position", sa.BigInteger(), nullable=False),
        sa.Column("floor_hash", sa.Text(), nullable=False),
    )
