"""Database: what a store needs of the database below it. One module for each kind; imported when a URL names it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from sqlalchemy import Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError

from tieline.drivers.extras import bring
from tieline.drivers.stores.statements import Cursor
from tieline.model.error import TielineError

POSTGRESQL = ("postgresql", "postgres", "postgresql+psycopg")


class Writes(Protocol):
    """A prepared statement that is run with many rows, or many keys."""

    @property
    def columns(self) -> tuple[str, ...]:
        """What a row consists of, in this order."""

    def run(self, cursor: Cursor, rows: Sequence[Any], /) -> Any:
        """Run it; a lookup gives rows."""


class Statements(NamedTuple):
    """How one kind of database makes the statements of the writer from a table."""

    insert: Any  # (table, dialect) -> Writes
    upsert: Any
    delete: Any
    lookup: Any  # (table, dialect, columns) -> Writes


class Database(Protocol):
    """One kind of database behind a store. Nothing is opened before `prepare`."""

    shown: str  # for people and logs; holds no secret
    folder: Path | None  # where its files lie, if it is a file of this machine
    statements: Statements

    def prepare(self) -> None:
        """Before the writing connection: make what must be there, and keep other processes out where files can."""

    def writing(self) -> Engine:
        """An engine with one connection, whose transactions are on disk when they are committed."""

    def reading(self) -> Engine:
        """An engine whose connections see committed state, each statement by itself, and can change nothing."""

    def take(self, connection: Connection) -> None:
        """Keep other processes out where a connection does that. Raises `conflict` with who has the store."""

    def release(self) -> None:
        """Let others in; nothing happens when nobody was kept out."""

    def is_intact(self, connection: Connection) -> bool:
        """Whether the connection lives and what `take` took is still held; what it was doing is given up."""

    @contextmanager
    def transaction(self, connection: Connection) -> Iterator[Cursor]:
        """A cursor whose statements are kept together, on disk, when the block ends, or not at all."""

    def told(self, cursor: Cursor, seq: int) -> None:
        """Wake those who follow the log when this transaction is committed; ``seq`` is its newest entry."""

    def code_of(self, error: BaseException) -> str:
        """What an error means: `storage_full`, `store_unreachable` or `internal`."""

    def is_lost(self, error: BaseException) -> bool:
        """Whether the connection broke, so that nobody knows yet if the transaction was kept."""

    def sizes(self, engine: Engine) -> dict[str, int]:
        """Bytes: ``database_bytes``, ``wal_bytes`` and, where it can be known, ``free_bytes`` of its disk."""


def database_of(url: str) -> Database:
    """The database that ``url`` names. Raises `invalid_request`, without saying a password that the URL may hold."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise TielineError("invalid_request", "the store's address is no URL", hints=_HINTS) from None
    if parsed.drivername == "sqlite" and parsed.database and parsed.database != ":memory:":
        from tieline.drivers.stores.sqlite import SQLite

        return SQLite(Path(parsed.database))
    if parsed.drivername in POSTGRESQL:
        try:
            from tieline.drivers.stores.postgresql import PostgreSQL
        except ImportError as error:
            why = f"a store in PostgreSQL needs the driver psycopg: {error}"
            raise TielineError("invalid_request", why, hints=(bring("postgres"),)) from None
        return PostgreSQL(parsed)
    shown = parsed.render_as_string(hide_password=True)
    raise TielineError("invalid_request", f"`{shown}` is no store that this version opens", hints=_HINTS)


_HINTS = ("use sqlite:////absolute/path/tieline.db or postgresql://user@host/database",)
