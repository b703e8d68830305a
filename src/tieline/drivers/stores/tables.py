"""Tables: the log, its projections, and what is kept beside the log. Portable: no type or clause of one database alone.

::

    the log              event
    its projections      exchange token peer cursor project spending serial record equivocation site job run quote usage
                         guest network transfer circuit receipt
                         guest                                                    (written in its transaction)
    the log's tree       tile checkpoint
    answers given        idempotency
    about the store      meta (position of the log), alembic_version (shape of these tables)
    outside the log      secret, blob

A column in `FIXED` never changes once its row exists; an upsert leaves it, and the indices on it, alone.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, String, Table, text

REVISION = "0003"  # the newest revision in migrations/versions

metadata = MetaData()

Id = String(200)
Word = String(32)
Position = BigInteger().with_variant(Integer, "sqlite")  # there INTEGER is 64 bits wide, and the row's own place
JOB_IS_SET = text("job IS NOT NULL")
SITE_IS_SET = text("site IS NOT NULL")
PROJECT_IS_SET = text("project IS NOT NULL")

event = Table(
    "event",
    metadata,
    Column("seq", Position, primary_key=True, autoincrement=False),
    Column("time_ms", BigInteger, nullable=False),
    Column("kind", Word, nullable=False),
    Column("subject", Id, nullable=False),
    Column("job", Id),  # short name of the job that it concerns, for histories
    Column("site", Id),
    Column("actor", Id, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("source", Id),  # network address and right of the caller, as the audit shows them; NULL before revision 0002
    Index("event_kind", "kind", "seq"),
    Index("event_job", "job", "seq", sqlite_where=JOB_IS_SET, postgresql_where=JOB_IS_SET),
    Index("event_site", "site", "seq", sqlite_where=SITE_IS_SET, postgresql_where=SITE_IS_SET),
)
exchange = Table("exchange", metadata, Column("id", Id, primary_key=True), Column("doc", LargeBinary, nullable=False))
token = Table(
    "token",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("id", Id, nullable=False),
    Column("doc", LargeBinary, nullable=False),
    Index("token_id", "id"),
)
record = Table(
    "record",
    metadata,
    Column("id", Id, primary_key=True),
    Column("prefix", Id, nullable=False),
    Column("kind", Word, nullable=False),
    Column("rev", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("exp", BigInteger, nullable=False),
    Column("status", Word, nullable=False),
    Column("kid", Id, nullable=False),
    Column("envelope", LargeBinary, nullable=False),
    Column("serial", BigInteger, nullable=False, server_default="0"),  # position in the log of its prefix
    Column("nb", BigInteger, nullable=False, server_default="0"),
    Column("envelope_sha256", String(64)),  # NULL before revision 0002
    Index("record_kind", "kind", "id"),
    Index("record_serial", "prefix", "serial"),
    Index("record_exp", "exp"),
)
equivocation = Table(
    "equivocation",
    metadata,
    Column("id", Id, primary_key=True),
    Column("rev", BigInteger, primary_key=True, autoincrement=False),
    Column("doc", LargeBinary, nullable=False),
)
site = Table("site", metadata, Column("id", Id, primary_key=True), Column("doc", LargeBinary, nullable=False))
job = Table(
    "job",
    metadata,
    Column("id", Id, primary_key=True),
    Column("state", Word, nullable=False),
    Column("user", Id, nullable=False),
    Column("pipeline", Id, nullable=False),
    Column("submitted_ms", BigInteger, nullable=False),
    Column("ended_ms", BigInteger, nullable=False),  # 0: it is live
    Column("doc", LargeBinary, nullable=False),
    Column("brief", LargeBinary),  # what stays in memory of it while it is live; NULL before revision 0002
    Column("project", Id),
    Index("job_ended", "ended_ms", "state"),
    Index("job_submitted", "submitted_ms", "id"),
    Index("job_user", "user", "submitted_ms", "id"),
    Index("job_project", "project", "submitted_ms", "id", sqlite_where=PROJECT_IS_SET, postgresql_where=PROJECT_IS_SET),
)
RUN_IS_LIVE = "state IN ('offered', 'accepted', 'running')"
run = Table(
    "run",
    metadata,
    Column("id", Id, primary_key=True),
    Column("job", Id, nullable=False),
    Column("site", Id, nullable=False),
    Column("owner", Id, nullable=False),
    Column("state", Word, nullable=False),
    Column("offered_ms", BigInteger, nullable=False),
    Column("doc", LargeBinary, nullable=False),
    Index("run_job", "job", "offered_ms"),
    Index("run_site", "site", "offered_ms"),
    Index("run_live", "id", sqlite_where=text(RUN_IS_LIVE), postgresql_where=text(RUN_IS_LIVE)),
)
QUOTE_IS_LIVE = "state IN ('asked', 'open')"
quote = Table(
    "quote",
    metadata,
    Column("id", Id, primary_key=True),
    Column("user", Id, nullable=False),
    Column("state", Word, nullable=False),
    Column("doc", LargeBinary, nullable=False),
    Index("quote_user", "user", "id"),
    Index("quote_live", "id", sqlite_where=text(QUOTE_IS_LIVE), postgresql_where=text(QUOTE_IS_LIVE)),
)
usage = Table(
    "usage",
    metadata,
    Column("run", Id, primary_key=True),
    Column("job", Id, nullable=False),
    Column("user", Id, nullable=False),
    Column("owner", Id, nullable=False),
    Column("ended_ms", BigInteger, nullable=False),
    Column("doc", LargeBinary, nullable=False),
    Column("charge_micro_cny", BigInteger, nullable=False, server_default="0"),
    Column("project", Id),
    Index("usage_ended", "ended_ms", "run"),
    Index("usage_user", "user", "ended_ms", "run"),
    Index("usage_owner", "owner", "ended_ms", "run"),
    Index("usage_job", "job"),
    Index("usage_project", "project", "ended_ms", "run", sqlite_where=PROJECT_IS_SET, postgresql_where=PROJECT_IS_SET),
)
serial = Table(  # the newest position of the log of each prefix
    "serial", metadata, Column("prefix", Id, primary_key=True), Column("serial", BigInteger, nullable=False)
)
peer = Table("peer", metadata, Column("id", Id, primary_key=True), Column("doc", LargeBinary, nullable=False))
cursor = Table(
    "cursor",
    metadata,
    Column("id", String(401), primary_key=True),
    Column("peer", Id, nullable=False),
    Column("doc", LargeBinary, nullable=False),
)
project = Table("project", metadata, Column("id", Id, primary_key=True), Column("doc", LargeBinary, nullable=False))
spending = Table("spending", metadata, Column("id", Id, primary_key=True), Column("doc", LargeBinary, nullable=False))
guest = Table(  # the runs that peers asked for, and what they are told of them
    "guest",
    metadata,
    Column("id", String(401), primary_key=True),
    Column("peer", Id, nullable=False),
    Column("doc", LargeBinary, nullable=False),
)
network = Table("network", metadata, Column("id", Id, primary_key=True), Column("doc", LargeBinary, nullable=False))
TRANSFER_IS_LIVE = "state IN ('booked', 'moving', 'short')"
transfer = Table(
    "transfer",
    metadata,
    Column("id", Id, primary_key=True),
    Column("user", Id, nullable=False),
    Column("state", Word, nullable=False),
    Column("doc", LargeBinary, nullable=False),
    Index("transfer_user", "user", "id"),
    Index("transfer_live", "id", sqlite_where=text(TRANSFER_IS_LIVE), postgresql_where=text(TRANSFER_IS_LIVE)),
)
CIRCUIT_IS_LIVE = "state IN ('ordered', 'up', 'degraded', 'down')"
circuit = Table(
    "circuit",
    metadata,
    Column("id", Id, primary_key=True),
    Column("user", Id, nullable=False),
    Column("state", Word, nullable=False),
    Column("doc", LargeBinary, nullable=False),
    Index("circuit_user", "user", "id"),
    Index("circuit_live", "id", sqlite_where=text(CIRCUIT_IS_LIVE), postgresql_where=text(CIRCUIT_IS_LIVE)),
)
receipt = Table(
    "receipt",
    metadata,
    Column("id", String(401), primary_key=True),
    Column("subject", Id, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("doc", LargeBinary, nullable=False),
    Index("receipt_subject", "subject", "seq"),
)
tile = Table(  # whole rows of 256 hashes of the log's Merkle tree
    "tile",
    metadata,
    Column("level", BigInteger, primary_key=True, autoincrement=False),
    Column("place", BigInteger, primary_key=True, autoincrement=False),
    Column("hashes", LargeBinary, nullable=False),
)
checkpoint = Table(  # signed heads of the log's Merkle tree, ours and those that peers showed us
    "checkpoint",
    metadata,
    Column("exchange", Id, primary_key=True),
    Column("size", BigInteger, primary_key=True, autoincrement=False),
    Column("root", LargeBinary, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("statement", LargeBinary, nullable=False),
)
idempotency = Table(
    "idempotency",
    metadata,
    Column("key", String(600), primary_key=True),
    Column("digest", String(128), nullable=False),
    Column("time_ms", BigInteger, nullable=False),
    Column("reply", LargeBinary, nullable=False),
    Index("idempotency_time", "time_ms"),
)
meta = Table("meta", metadata, Column("key", Word, primary_key=True), Column("value", LargeBinary, nullable=False))
secret = Table("secret", metadata, Column("job", Id, primary_key=True), Column("sealed", LargeBinary, nullable=False))
blob = Table(
    "blob",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("size_bytes", BigInteger, nullable=False),
    Column("owner", Id, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("used_ms", BigInteger, nullable=False),
)
alembic_version = Table("alembic_version", metadata, Column("version_num", Word, primary_key=True))

FIXED: dict[str, frozenset[str]] = {
    "record": frozenset({"prefix", "kind"}),
    "job": frozenset({"user", "pipeline", "submitted_ms", "project"}),
    "run": frozenset({"job", "site", "owner", "offered_ms"}),
    "quote": frozenset({"user"}),
    "usage": frozenset({"job", "user", "owner", "project"}),
    "cursor": frozenset({"peer"}),
    "guest": frozenset({"peer"}),
    "transfer": frozenset({"user"}),
    "circuit": frozenset({"user"}),
    "receipt": frozenset({"subject", "seq"}),
    "blob": frozenset({"size_bytes", "owner", "created_ms"}),
}
STATE = (
    "exchange", "token", "peer", "cursor", "project", "spending", "serial", "record", "equivocation", "site", "job",
    "run", "quote", "usage", "guest", "network", "transfer", "circuit", "receipt",
)  # fmt: skip
CHANGEABLE = frozenset((*STATE, "secret", "blob", "idempotency"))  # what a change (table, key, row or None) may name
