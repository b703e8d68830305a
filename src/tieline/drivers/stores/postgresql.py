"""PostgreSQL below a store: the same tables, and the writer's lock on the very connection that writes.

The lock is a session's advisory lock. Who loses the connection has lost the lock, and a transaction that was begun
under it cannot be committed any more: an old writer that wakes up writes nothing. So the connection must be a session
of its own; a pooler in transaction mode between us and the database would give the lock to somebody else.

Passwords are read by libpq from ``PGPASSFILE``, ``~/.pgpass`` or ``PGPASSWORD``; one in the URL is refused, because
whoever lists processes would see it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from sqlalchemy import URL, Connection, Engine, String, create_engine, event, text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.pool import QueuePool, StaticPool

from tieline.drivers.stores import arrays
from tieline.drivers.stores.database import Statements
from tieline.drivers.stores.failure import cause_of, code_of_state, is_connection_lost
from tieline.drivers.stores.statements import Cursor
from tieline.model.error import TielineError

READERS = 4
MORE_READERS = 12
CHANNEL = "tieline"  # NOTIFY: the payload is the number of the newest entry of the log
LOCK = int.from_bytes(hashlib.sha256(b"tieline: the one writer").digest()[:8], "big", signed=True)
LEAST_VERSION = 14
ALLOWED = frozenset(
    {"host", "hostaddr", "port", "sslmode", "sslrootcert", "sslcert", "sslkey", "sslcrl", "passfile", "gssencmode",
     "channel_binding", "require_auth", "target_session_attrs"}
)  # fmt: skip
# Either end notices within some 15 s that the other machine is gone; a process that was killed is noticed at once.
ALIVE = {
    "connect_timeout": 5, "keepalives_idle": 5, "keepalives_interval": 3, "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}  # fmt: skip
SESSION = "-c tcp_keepalives_idle=5 -c tcp_keepalives_interval=3 -c tcp_keepalives_count=3 -c tcp_user_timeout=15000"
WRITING = f"{SESSION} -c synchronous_commit=on -c statement_timeout=0 -c idle_session_timeout=0 -c jit=off"
READING = f"{SESSION} -c default_transaction_read_only=on -c idle_session_timeout=0 -c jit=off"
HOLDER = text(
    "SELECT activity.pid, activity.application_name, coalesce(host(activity.client_addr), '') FROM pg_locks"
    " JOIN pg_stat_activity AS activity USING (pid) JOIN pg_database ON pg_database.oid = pg_locks.database"
    " WHERE locktype = 'advisory' AND granted AND pg_database.datname = current_database() AND objsubid = 1"
    " AND classid = :high AND objid = :low"
).bindparams(high=(LOCK >> 32) & 0xFFFFFFFF, low=LOCK & 0xFFFFFFFF)
log = logging.getLogger("tieline.store")


@compiles(String, "postgresql")
def _text(_type: String, _compiler: Any, **_: Any) -> str:
    """Text as SQLite has it: ordered by bytes whatever the server's locale is, so that names are paged in one order.

    And of any length: the lengths in `tables` are what is expected; a longer word must not fail a batch of others.
    """
    return 'TEXT COLLATE "C"'


class Holder(NamedTuple):
    """The session that holds the writer's lock."""

    pid: int  # of the session in the database server
    name: str  # `tieline HOST:PID`, as the process calls itself
    address: str  # empty: over a Unix socket


class PostgreSQL:
    """The database of ``url`` as a `Database`."""

    statements = Statements(arrays.Insert, arrays.Upsert, arrays.Delete, arrays.Lookup)
    folder: Path | None = None

    def __init__(self, url: URL) -> None:
        self.shown = checked(url).set(drivername="postgresql").render_as_string(hide_password=True)
        self._url = url.set(drivername="postgresql+psycopg")

    def prepare(self) -> None:
        """Nothing: what keeps others out is a lock of the writing connection."""

    def writing(self) -> Engine:
        """An engine with one connection that commits synchronously; transactions begin where they are asked for."""
        engine = create_engine(
            self._url,
            poolclass=StaticPool,
            isolation_level="AUTOCOMMIT",
            connect_args=self._arguments(WRITING),
        )
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
        return engine

    def reading(self) -> Engine:
        """An engine whose connections see committed state, each statement by itself, and can change nothing."""
        return create_engine(
            self._url,
            poolclass=QueuePool,
            pool_size=READERS,
            max_overflow=MORE_READERS,
            pool_timeout=30,
            pool_reset_on_return=None,
            pool_pre_ping=True,
            isolation_level="AUTOCOMMIT",
            connect_args=self._arguments(READING),
        )

    def listening(self) -> psycopg.Connection[Any]:
        """A connection that hears of every commit; its caller closes it."""
        arguments = self._url.translate_connect_args(username="user", database="dbname")
        made = psycopg.connect(**{**arguments, **dict(self._url.query), **self._arguments(READING)}, autocommit=True)
        made.execute(f"LISTEN {CHANNEL}")
        return made

    def _arguments(self, options: str) -> dict[str, Any]:
        name = f"tieline {platform.node()[:40]}:{os.getpid()}"
        return {**ALIVE, "options": options, "application_name": name}

    def take(self, connection: Connection) -> None:
        """Check the server, and take the writer's lock. Raises `conflict` with the process that has it."""
        with connection.begin():
            self._check(connection)
            if connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": LOCK}).scalar():
                return  # a session's lock outlives its transaction
            found = holder(connection)
        who = f"`{found.name}`{f' at {found.address}' if found.address else ''}" if found else "another process"
        raise TielineError(
            "conflict",
            f"the store `{self.shown}` is in use by {who}",
            hints=("stop that process first, or let this one follow it",),
        )

    def _check(self, connection: Connection) -> None:
        """Raise `invalid_request` for a server that cannot keep a store; warn of one that may lose it."""
        found = connection.exec_driver_sql(
            "SELECT current_setting('server_version_num')::int / 10000, current_setting('server_encoding'),"
            " pg_is_in_recovery(), current_setting('fsync'), current_setting('full_page_writes')"
        ).one()
        version, encoding, is_standby, *durable = found
        wrong = ""
        if version < LEAST_VERSION:
            wrong = f"is PostgreSQL {version}, at least {LEAST_VERSION} is needed"
        elif encoding != "UTF8":
            wrong = f"is encoded in {encoding}, UTF8 is needed"
        elif is_standby:
            wrong = "is a standby that can only be read"
        if wrong:
            raise TielineError("invalid_request", f"the database `{self.shown}` {wrong}")
        if durable != ["on", "on"]:
            log.warning("the server runs without fsync or full_page_writes: a power cut may lose what was acknowledged")

    def release(self) -> None:
        """Nothing: the lock goes with the connection."""

    def is_intact(self, connection: Connection) -> bool:
        """Whether the session lives and holds the lock; a transaction that it was in is rolled back."""
        try:
            connection.rollback()
            raw: Any = connection.connection.driver_connection
            raw.rollback()
            with connection.begin():
                found = holder(connection)
        except Exception as error:  # noqa: BLE001 - whatever it is: the connection is replaced
            log.warning("the writing connection broke: %s", cause_of(error))
            return False
        return found is not None and found.pid == raw.info.backend_pid

    @contextmanager
    def transaction(self, connection: Connection) -> Iterator[Cursor]:
        """A cursor whose statements travel to the server together, BEGIN and COMMIT included."""
        raw: Any = connection.connection.driver_connection
        cursor = raw.cursor()
        try:
            with raw.pipeline():
                cursor.execute("BEGIN")
                yield _Prepared(cursor)
                cursor.execute("COMMIT")
        except BaseException:
            with suppress(psycopg.Error):
                raw.rollback()
            raise

    def told(self, cursor: Cursor, seq: int) -> None:
        """NOTIFY with the number of the newest entry, delivered when the transaction is committed."""
        cursor.execute("SELECT pg_notify(%s, %s)", (CHANNEL, str(seq)))

    def code_of(self, error: BaseException) -> str:
        """`storage_full`, `store_unreachable` or `internal`."""
        return code_of_state(error)

    def is_lost(self, error: BaseException) -> bool:
        """Whether the connection broke."""
        return is_connection_lost(error)

    def sizes(self, engine: Engine) -> dict[str, int]:
        """Bytes of the database; what is free on the server's disk cannot be asked."""
        with engine.connect() as connection:
            size = connection.exec_driver_sql("SELECT pg_database_size(current_database())").scalar() or 0
        return {"database_bytes": int(size), "wal_bytes": 0}


class _Prepared:
    """A cursor whose statements are planned once for each connection."""

    def __init__(self, cursor: psycopg.Cursor[Any]) -> None:
        self._cursor = cursor

    def execute(self, statement: Any, parameters: Any = None, /) -> Any:
        """Run one statement."""
        return self._cursor.execute(statement, parameters, prepare=True)

    def fetchall(self) -> list[Any]:
        """The rows of the last statement."""
        return self._cursor.fetchall()


def checked(url: URL) -> URL:
    """``url``, or `invalid_request`: without a database, with a password, or with what a store sets itself."""
    shown = url.render_as_string(hide_password=True)
    if url.password is not None or "password" in url.query:
        raise TielineError(
            "invalid_request",
            f"`{url.set(query={}).render_as_string(hide_password=True)}` holds a password: others could read it",
            hints=("write it into ~/.pgpass (mode 0600), or name such a file in PGPASSFILE",),
        )
    if not url.database:
        raise TielineError("invalid_request", f"`{shown}` names no database", hints=("postgresql://user@host/tieline",))
    unknown = sorted(set(url.query) - ALLOWED)
    if unknown:
        raise TielineError("invalid_request", f"`{shown}`: `{unknown[0]}` cannot be set in a store's URL")
    return url


def holder(connection: Connection) -> Holder | None:
    """The session that holds the writer's lock of this database, if one does."""
    row = connection.execute(HOLDER).first()
    return Holder(*row) if row is not None else None


def depose(connection: Connection, found: Holder) -> bool:
    """End the session of a writer that answers nobody, so that its lock is free. True when it was told to end."""
    ended = connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": found.pid}).scalar()
    return bool(ended)
