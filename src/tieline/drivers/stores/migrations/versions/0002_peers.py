"""Peers, logs of records with serials, projects, runs of peers, the Merkle tree of the log."""

from __future__ import annotations

import base64
import json
from hashlib import sha256

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add what revision 0001 did not have; the records of each prefix are numbered in the order of their names."""
    op.add_column("event", sa.Column("source", sa.String(length=200), nullable=True))
    op.add_column("record", sa.Column("serial", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("record", sa.Column("nb", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("record", sa.Column("envelope_sha256", sa.String(length=64), nullable=True))
    op.add_column("job", sa.Column("brief", sa.LargeBinary(), nullable=True))
    op.add_column("usage", sa.Column("charge_micro_cny", sa.BigInteger(), nullable=False, server_default="0"))
    for table, order in (("job", "submitted_ms"), ("usage", "ended_ms")):
        op.add_column(table, sa.Column("project", sa.String(length=200), nullable=True))
        key = "id" if table == "job" else "run"
        is_set = sa.text("project IS NOT NULL")
        op.create_index(
            f"{table}_project", table, ["project", order, key], sqlite_where=is_set, postgresql_where=is_set
        )
    fill_charges(op.get_bind())
    fill_heads(op.get_bind())
    op.execute(
        "UPDATE record SET serial = (SELECT COUNT(*) FROM record AS other"
        " WHERE other.prefix = record.prefix AND other.id <= record.id)"
    )
    op.create_index("record_serial", "record", ["prefix", "serial"])
    op.create_table(
        "serial",
        sa.Column("prefix", sa.String(length=200), nullable=False),
        sa.Column("serial", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("prefix"),
    )
    op.execute("INSERT INTO serial (prefix, serial) SELECT prefix, MAX(serial) FROM record GROUP BY prefix")
    for name in ("peer", "project", "spending"):
        op.create_table(
            name,
            sa.Column("id", sa.String(length=200), nullable=False),
            sa.Column("doc", sa.LargeBinary(), nullable=False),
            sa.PrimaryKeyConstraint("id"),
        )
    op.create_table(
        "cursor",
        sa.Column("id", sa.String(length=401), nullable=False),
        sa.Column("peer", sa.String(length=200), nullable=False),
        sa.Column("doc", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "guest",
        sa.Column("id", sa.String(length=401), nullable=False),
        sa.Column("peer", sa.String(length=200), nullable=False),
        sa.Column("doc", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "tile",
        sa.Column("level", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("place", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("hashes", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("level", "place"),
    )
    op.create_table(
        "checkpoint",
        sa.Column("exchange", sa.String(length=200), nullable=False),
        sa.Column("size", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("root", sa.LargeBinary(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("statement", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("exchange", "size"),
    )


def fill_charges(connection: sa.Connection) -> None:
    """Write down beside each usage line what it charges, so that their sum needs no decoding."""
    usage = sa.table("usage", sa.column("run"), sa.column("doc"), sa.column("charge_micro_cny"))
    after = ""
    while True:
        page = sa.select(usage.c.run, usage.c.doc).where(usage.c.run > after).order_by(usage.c.run).limit(1_000)
        lines = connection.execute(page).fetchall()
        if not lines:
            return
        charge = usage.update().where(usage.c.run == sa.bindparam("named"))
        connection.execute(
            charge.values(charge_micro_cny=sa.bindparam("charged")),
            [{"named": run, "charged": json.loads(bytes(doc))["charge_micro_cny"]} for run, doc in lines],
        )
        after = lines[-1].run


def fill_heads(connection: sa.Connection) -> None:
    """Write down beside each record what is remembered of its bytes, so that a start need not read them."""
    record = sa.table("record", *map(sa.column, ("id", "envelope", "nb", "envelope_sha256")))
    after = ""
    while True:
        page = sa.select(record.c.id, record.c.envelope).where(record.c.id > after).order_by(record.c.id).limit(1_000)
        kept = [(name, bytes(envelope)) for name, envelope in connection.execute(page)]
        if not kept:
            return
        head = record.update().where(record.c.id == sa.bindparam("named"))
        connection.execute(
            head.values(nb=sa.bindparam("since"), envelope_sha256=sa.bindparam("digest")),
            [
                {"named": name, "since": since(envelope), "digest": sha256(envelope).hexdigest()}
                for name, envelope in kept
            ],
        )
        after = kept[-1][0]


def since(envelope: bytes) -> int:
    """The beginning of a record's lease; 0 where its bytes were let go."""
    if not envelope:
        return 0
    payload = json.loads(envelope)["payload"]
    return int(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["nb"])
