"""Store: the log and its projections in one database; everything of a batch is kept, or nothing is."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, inspect, select
from sqlalchemy.exc import DatabaseError

from tieline.drivers.stores import tables as t
from tieline.drivers.stores.database import Database, Writes, database_of
from tieline.drivers.stores.disk import Disk
from tieline.drivers.stores.failure import cause_of
from tieline.drivers.stores.log import LogRow
from tieline.drivers.stores.reader import Reader
from tieline.drivers.stores.snapshot import RECENT_JOBS as RECENT_JOBS
from tieline.drivers.stores.snapshot import Row, Rows, connection_of, state_queries
from tieline.drivers.stores.tiles import TileRow, Tree, built
from tieline.model.error import TielineError

Change = tuple[str, str, Row | None]  # table, key, the row as it is from now on (None: it is deleted)

PROBE_BYTES = 64 * 2**10
FILLED_ROWS = 512  # written at once into an empty store
RETURN_S = 3.0  # a database that went away is waited for so long before a batch is given up
RETURN_PAUSE_S = 0.05


class Batch(NamedTuple):
    """What one transaction writes."""

    entries: Sequence[Sequence[Any]] = ()  # in the order of `LogRow`
    changes: Sequence[Change] = ()
    replies: Sequence[tuple[str, str, int, bytes]] = ()  # key, digest, time_ms, reply


class StoreError(Exception):
    """A transaction that was not kept: `code` is `storage_full`, `store_unreachable`, `not_leader` or `internal`.

    ``is_lost``: the connection broke; whether the transaction was kept is not known before `Store.recover`.
    """

    def __init__(self, code: str, why: str, *, is_lost: bool = False) -> None:
        super().__init__(why)
        self.code = code
        self.is_lost = is_lost


class Store(Reader):
    """A store at ``url``: ``sqlite:////absolute/path/tieline.db`` or ``postgresql://user@host/database``.

    One process opens it at a time; others read along with a `Follower`. `append`, `replies`, `probe` and `recover`
    belong to the one thread that writes; the questions of `Reader` may be asked from any thread. ``migrations``
    replaces the folder of revisions (for tests of an upgrade).

    `term` counts the writers of a PostgreSQL store, one for each `open`: it only grows, and is kept in `meta`. It is 0
    for a file, which no second process can take over.
    """

    def __init__(self, url: str, *, revision: str = t.REVISION, migrations: Sequence[Path] = ()) -> None:
        self._database: Database = database_of(url)
        self._revision = revision
        self._migrations = tuple(migrations)
        self._writing: Engine | None = None
        self._connection: Connection | None = None
        self._head: bytes | None = None  # as the last batch left it
        self._is_over = False  # another writer has begun
        self.term = 0
        self.tree = Tree()  # of the log, as the last batch left it

    @property
    def path(self) -> Path:
        """The file of an SQLite store."""
        path = getattr(self._database, "path", None)
        assert isinstance(path, Path), "a server's store is no file"
        return path

    @property
    def disk(self) -> Disk:
        """The disk that the file of an SQLite store lies on."""
        return Disk(self.path.parent, 0)

    @property
    def is_server(self) -> bool:
        """Whether it is in a database server, where another process may take over as the writer."""
        return self._database.folder is None

    @property
    def shown(self) -> str:
        """Where the store is, for people."""
        return self._database.shown

    # -- opening and closing ------------------------------------------------------------------------------------------

    def open(self) -> Store:
        """Take the writer's lock, and make, check or migrate the database.

        Raises `conflict` when another process has it open, `version_not_supported` when a newer version wrote it,
        `check_failed` when its log was cut, `store_unreachable` when a server does not answer, `invalid_request` when
        it cannot keep a store, `internal` when it is none.
        """
        self._database.prepare()
        try:
            self._writing = self._database.writing()
            self._connection = self._writing.connect()
            self._database.take(self._connection)
            self._shape(self._connection)
            self._begin_term(self._connection)
        except BaseException as error:
            self.close()
            if isinstance(error, DatabaseError):
                raise opening_error(self._database, error) from error
            raise
        super().__init__(self._database.reading())
        try:
            self.check_end()
        except TielineError:
            self.close()
            raise
        dialect, made = self._writing.dialect, self._database.statements
        self._insert_events: Writes = made.insert(t.event, dialect)
        self._upserts: dict[str, Writes] = {
            name: made.upsert(t.metadata.tables[name], dialect)
            for name in (*t.CHANGEABLE, "meta", "tile", "checkpoint")
        }
        self._values = {name: itemgetter(*upsert.columns) for name, upsert in self._upserts.items()}
        self._deletes: dict[str, Writes] = {
            name: made.delete(t.metadata.tables[name], dialect) for name in (*t.CHANGEABLE, "meta", "checkpoint")
        }
        self._find_replies: Writes = made.lookup(t.idempotency, dialect, ("key", "digest", "time_ms", "reply"))
        try:
            self.tree = built(self._engine, self._keep_tiles)
        except BaseException:
            self.close()
            raise
        return self

    def _shape(self, connection: Connection) -> None:
        """Bring the tables to the revision of this version; Alembic is imported only when they are not."""
        with connection.begin():
            names = inspect(connection).get_table_names()
            stored = None
            if t.alembic_version.name in names:
                stored = connection.execute(select(t.alembic_version.c.version_num)).scalar()
            if stored is None and not names:
                t.metadata.create_all(connection)
                connection.execute(t.alembic_version.insert().values(version_num=t.REVISION))
                stored = t.REVISION
            if stored != self._revision:
                # Heavy, and needed only here.
                from tieline.drivers.stores.migrations import upgrade

                upgrade(connection, stored, self._migrations)

    def _begin_term(self, connection: Connection) -> None:
        """Note that a new writer is here, so that an older one sees it when it comes back."""
        with connection.begin():
            self._head = meta_of(connection, "head")
            if not self.is_server:
                return
            self.term = int.from_bytes(meta_of(connection, "term") or b"", "big") + 1
            connection.execute(t.meta.delete().where(t.meta.c.key == "term"))
            connection.execute(t.meta.insert().values(key="term", value=self.term.to_bytes(8, "big")))

    def close(self) -> None:
        """Write the log back into the file and let go of it; nothing happens when it is not open."""
        engine = getattr(self, "_engine", None)
        if engine is not None:
            engine.dispose()
        self._drop()
        self._writing = None
        self._database.release()

    def _drop(self) -> None:
        """Close the writing connection, whatever state it is in."""
        if self._connection is not None:
            self._connection.invalidate()
            self._connection.close()
            self._connection = None
        if self._writing is not None:
            self._writing.dispose()  # the last connection to close folds the write-ahead log into the file

    def recover(self) -> bool:
        """Replace the writing connection after a failure, and take the lock again where it went with the connection.

        True when the store may hold more than the last batch that `append` kept: the view must be filled anew.
        Raises StoreError when it is not possible: `not_leader` when another process has become the writer since, or
        is it now; then this process must step down, and never write again.
        """
        assert self._writing is not None
        if self._connection is not None and self._database.is_intact(self._connection):
            return False
        try:
            self._drop()
            self._connection = self._writing.connect()
            if not self.is_server:
                return False
            self._check_term(self._connection)
            self._database.take(self._connection)
            head = self._check_term(self._connection)
        except DatabaseError as error:
            raise self._failure(error) from error
        except TielineError as error:
            raise StoreError("not_leader" if error.code == "conflict" else error.code, error.message) from error
        is_more, self._head = head != self._head, head
        return is_more

    def _check_term(self, connection: Connection) -> bytes | None:
        """The head of the log. Raises `not_leader` when another writer has begun: then this one is over for good."""
        with connection.begin():
            term = int.from_bytes(meta_of(connection, "term") or b"", "big")
            head = meta_of(connection, "head")
        if term != self.term:
            self._drop()
            self._is_over = True
            raise StoreError("not_leader", f"writer {term} of `{self.shown}` came after this one, writer {self.term}")
        return head

    # -- writing: one thread ------------------------------------------------------------------------------------------

    def append(self, batch: Batch) -> None:
        """Keep the whole batch, synced to disk, or nothing of it. Raises StoreError.

        A database server that goes away in the middle is waited for, up to `RETURN_S`: then the batch is looked for,
        and written if it is not there.
        """
        upserts: dict[str, list[Any]] = {}
        deletes: dict[str, list[str]] = {}
        for (table, key), row in {(table, key): row for table, key, row in batch.changes}.items():
            if row is None:
                deletes.setdefault(table, []).append(key)
            else:
                upserts.setdefault(table, []).append(self._values[table](row))
        if batch.replies:
            upserts.setdefault("idempotency", []).extend(batch.replies)
        head, seq, tree = self._head, 0, self.tree
        if batch.entries:
            tree, tiles = self._grown(batch.entries)
            if tiles:
                upserts["tile"] = tiles
            last = LogRow(*batch.entries[-1])
            seq, head = last.seq, last.seq.to_bytes(8, "big") + last.hash
            upserts["meta"] = [("head", head)]
        try:
            self._transact(batch.entries, upserts, deletes, seq)
        except StoreError as error:
            if not error.is_lost:
                raise
            before = self._head
            self._return(error)
            if self._head == before:
                self._transact(batch.entries, upserts, deletes, seq)
            elif self._head != head:
                raise StoreError("not_leader", "the log went on without this process") from error
        self._head, self.tree = head, tree

    def _grown(self, entries: Sequence[Sequence[Any]]) -> tuple[Tree, list[TileRow]]:
        """The log's tree with ``entries`` after it, and the tiles that come whole with them."""
        before = LogRow(*entries[0]).seq - 1
        if self.tree.size != before:  # the store was filled, or another process wrote before this one took over again
            try:
                self.tree = built(self._engine, self._keep_tiles)
            except TielineError as error:
                raise StoreError("internal", error.message) from error
            except DatabaseError as error:
                raise self._failure(error) from error
        if self.tree.size != before:
            raise StoreError("internal", f"entry {before + 1} does not follow the {self.tree.size:,} that are stored")
        return self.tree.grown([LogRow(*entry).hash for entry in entries])

    def _keep_tiles(self, rows: list[TileRow]) -> None:
        self._transact((), {"tile": rows}, {})

    def _return(self, error: StoreError) -> None:
        """Wait for the database, or raise ``error`` after `RETURN_S`."""
        deadline = time.monotonic() + RETURN_S
        while True:
            try:
                self.recover()
            except StoreError as again:
                if self._is_over:
                    raise
                if again.code not in ("not_leader", "store_unreachable") or time.monotonic() > deadline:
                    raise error from again
                time.sleep(RETURN_PAUSE_S)  # a session of ours that broke may hold the lock for a moment yet
            else:
                return

    def _transact(
        self,
        entries: Sequence[Sequence[Any]],
        upserts: Mapping[str, list[Any]],
        deletes: Mapping[str, list[str]],
        seq: int = 0,
    ) -> None:
        connection = self._connection
        if connection is None:
            raise StoreError("not_leader", f"`{self.shown}` has another writer")
        try:
            with self._database.transaction(connection) as cursor:
                if entries:
                    self._insert_events.run(cursor, entries)
                for table, rows in upserts.items():
                    self._upserts[table].run(cursor, rows)
                for table, keys in deletes.items():
                    self._deletes[table].run(cursor, keys)
                if seq:
                    self._database.told(cursor, seq)
        except Exception as error:
            raise self._failure(error) from error

    def fill(self, rows: Iterable[tuple[str, Sequence[Any]]]) -> None:
        """Write ``rows`` (table, values in the order of its columns) into an empty store, all or none of them.

        Raises StoreError, and whatever reading ``rows`` raises.
        """
        connection = self._connection
        assert connection is not None, "the store is not open"
        dialect, made = connection.dialect, self._database.statements
        inserts: dict[str, Writes] = {}
        try:
            with self._database.transaction(connection) as cursor:
                for name, group in groupby(rows, itemgetter(0)):
                    if name not in inserts:
                        inserts[name] = made.insert(t.metadata.tables[name], dialect)
                    values = (row for _, row in group)
                    while page := list(islice(values, FILLED_ROWS)):
                        inserts[name].run(cursor, page)
        except TielineError:
            raise
        except Exception as error:
            raise self._failure(error) from error
        with connection.begin():
            self._head = meta_of(connection, "head")

    def replies(self, keys: Sequence[str]) -> dict[str, tuple[str, int, bytes]]:
        """Stored answers by idempotency key: (digest, time_ms, reply)."""
        try:
            rows = self._look(keys)
        except StoreError as error:
            if not error.is_lost:
                raise
            before = self._head
            self._return(error)
            if self._head != before:
                raise StoreError("not_leader", "the log went on without this process") from error
            rows = self._look(keys)
        return {key: (digest, time_ms, bytes(reply)) for key, digest, time_ms, reply in rows}

    def _look(self, keys: Sequence[str]) -> Sequence[Any]:
        connection = self._connection
        if connection is None:
            raise StoreError("not_leader", f"`{self.shown}` has another writer")
        try:
            found: Sequence[Any] = self._find_replies.run(connection.connection.cursor(), keys)
        except Exception as error:
            raise self._failure(error) from error
        return found

    def probe(self) -> None:
        """Write and take back `PROBE_BYTES`. Raises StoreError when the store takes no more."""
        self._transact((), {"meta": [("probe", bytes(PROBE_BYTES))]}, {})
        self._transact((), {}, {"meta": ["probe"]})

    def _failure(self, error: BaseException) -> StoreError:
        database = self._database
        why = " ".join(str(cause_of(error)).split())
        return StoreError(database.code_of(error), why, is_lost=database.is_lost(error))

    # -- what a start needs -------------------------------------------------------------------------------------------

    def tables(self) -> dict[str, Rows]:
        """The state tables as a view is filled from them (`state_queries`), each read as it is asked for."""
        return {name: Rows(query, lambda: connection_of(self._engine)) for name, query in state_queries().items()}

    def noted(self, key: str) -> bytes | None:
        """What the store notes about itself under ``key``, such as that it was ``restored``."""
        with self._engine.connect() as connection:
            return meta_of(connection, key)

    def sizes(self) -> dict[str, int]:
        """Bytes of the database and its write-ahead log, and what is free on the disk where that can be known."""
        return self._database.sizes(self._engine)


def meta_of(connection: Connection, key: str) -> bytes | None:
    """What the store notes about itself under ``key``."""
    value = connection.execute(select(t.meta.c.value).where(t.meta.c.key == key)).scalar()
    return value if isinstance(value, bytes) else None  # what a changed file holds there is found by `check_end`


def opening_error(database: Database, error: DatabaseError) -> TielineError:
    """What a caller hears when a database cannot be opened."""
    if database.is_lost(error):
        why = " ".join(str(cause_of(error)).split())
        hints = ("createdb tieline  # when the database does not exist yet",) if "does not exist" in why else ()
        return TielineError("store_unreachable", f"`{database.shown}` does not answer: {why[:600]}", hints=hints)
    return TielineError("internal", f"`{database.shown}` is not a store: {cause_of(error)}")
