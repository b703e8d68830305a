"""The network: its topology, what is booked of it, and what was seen of that."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

LIVE = {
    "transfer": "state IN ('booked', 'moving', 'short')",
    "circuit": "state IN ('ordered', 'up', 'degraded', 'down')",
}


def upgrade() -> None:
    """Add tables; nothing of before changes."""
    op.create_table(
        "network",
        sa.Column("id", sa.String(length=200), nullable=False),
        sa.Column("doc", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    for name, live in LIVE.items():
        op.create_table(
            name,
            sa.Column("id", sa.String(length=200), nullable=False),
            sa.Column("user", sa.String(length=200), nullable=False),
            sa.Column("state", sa.String(length=32), nullable=False),
            sa.Column("doc", sa.LargeBinary(), nullable=False),
            sa.PrimaryKeyConstraint("id"),
        )
        op.create_index(f"{name}_user", name, ["user", "id"])
        op.create_index(f"{name}_live", name, ["id"], sqlite_where=sa.text(live), postgresql_where=sa.text(live))
    op.create_table(
        "receipt",
        sa.Column("id", sa.String(length=401), nullable=False),
        sa.Column("subject", sa.String(length=200), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("doc", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("receipt_subject", "receipt", ["subject", "seq"])
