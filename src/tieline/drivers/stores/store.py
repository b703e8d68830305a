"""Store: the log and its projections in one database file; everything of a batch is kept, or nothing is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, inspect, select, text, union
from sqlalchemy.exc import DatabaseError

from tieline.drivers.stores import tables as t
from tieline.drivers.stores.connection import Lock, file_of, reading_engine, writing_engine
from tieline.drivers.stores.disk import Disk, private_folder
from tieline.drivers.stores.failure import cause_of, code_of
from tieline.drivers.stores.log import LogRow
from tieline.drivers.stores.reader import Reader
from tieline.drivers.stores.statements import Delete, Insert, Lookup, Upsert
from tieline.model.error import TielineError

Row = Mapping[str, Any]
Change = tuple[str, str, Row | None]  # table, key, the row as it is from now on (None: it is deleted)

RECENT_JOBS = 2_000  # whose runs are loaded at a start, so that a report that is repeated is answered as before
PROBE_BYTES = 64 * 2**10


class Batch(NamedTuple):
    """What one transaction writes."""

    entries: Sequence[Sequence[Any]] = ()  # in the order of `LogRow`
    changes: Sequence[Change] = ()
    replies: Sequence[tuple[str, str, int, bytes]] = ()  # key, digest, time_ms, reply


class StoreError(Exception):
    """A transaction that was not kept: `code` is `storage_full` or `internal`."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__(why)
        self.code = code


class Store(Reader):
    """A store at ``url`` (``sqlite:////absolute/path/tieline.db``). One process opens it at a time.

    `append`, `replies`, `probe` and `recover` belong to the one thread that writes; the questions of `Reader` may be
    asked from any thread. ``migrations`` replaces the folder of revisions (for tests of an upgrade).
    """

    def __init__(self, url: str, *, revision: str = t.REVISION, migrations: Sequence[Path] = ()) -> None:
        self.path = file_of(url)
        self.disk = Disk(self.path.parent, 0)
        self._revision = revision
        self._migrations = tuple(migrations)
        self._lock = Lock(self.path.with_name(self.path.name + ".lock"))
        self._writing: Engine | None = None
        self._connection: Connection | None = None

    # -- opening and closing ------------------------------------------------------------------------------------------

    def open(self) -> Store:
        """Make, check or migrate the database.

        Raises `conflict` when another process has it open, `version_not_supported` when a newer version wrote it,
        `check_failed` when its log was cut, `internal` when it is no store.
        """
        private_folder(self.path.parent)
        self._lock.take()
        try:
            self._writing = writing_engine(self.path)
            self._connection = self._writing.connect()
            self._shape(self._connection)
        except BaseException as error:
            self.close()
            if isinstance(error, DatabaseError):
                raise TielineError("internal", f"`{self.path}` is not a store: {cause_of(error)}") from error
            raise
        super().__init__(reading_engine(self.path))
        try:
            self.check_end()
        except TielineError:
            self.close()
            raise
        dialect = self._writing.dialect
        self._insert_events = Insert(t.event, dialect)
        self._upserts = {name: Upsert(t.metadata.tables[name], dialect) for name in (*t.CHANGEABLE, "meta")}
        self._values = {name: itemgetter(*upsert.columns) for name, upsert in self._upserts.items()}
        self._deletes = {name: Delete(t.metadata.tables[name], dialect) for name in t.CHANGEABLE}
        self._find_replies = Lookup(t.idempotency, dialect, ("key", "digest", "time_ms", "reply"))
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

    def close(self) -> None:
        """Write the log back into the file and let go of it; nothing happens when it is not open."""
        engine = getattr(self, "_engine", None)
        if engine is not None:
            engine.dispose()
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._writing is not None:
            self._writing.dispose()  # the last connection to close folds the write-ahead log into the file
            self._writing = None
        self._lock.release()

    def recover(self) -> None:
        """Replace the writing connection after a failure. Raises StoreError when even that is not possible."""
        assert self._writing is not None
        try:
            if self._connection is not None:
                self._connection.invalidate()
                self._connection.close()
            self._writing.dispose()
            self._connection = self._writing.connect()
        except DatabaseError as error:
            raise self._failure(error) from error

    # -- writing: one thread ------------------------------------------------------------------------------------------

    def append(self, batch: Batch) -> None:
        """Keep the whole batch, synced to disk, or nothing of it. Raises StoreError."""
        upserts: dict[str, list[Any]] = {}
        deletes: dict[str, list[str]] = {}
        for table, key, row in batch.changes:
            if row is None:
                deletes.setdefault(table, []).append(key)
            else:
                upserts.setdefault(table, []).append(self._values[table](row))
        if batch.replies:
            upserts["idempotency"] = list(batch.replies)
        if batch.entries:
            last = LogRow(*batch.entries[-1])
            upserts["meta"] = [("head", last.seq.to_bytes(8, "big") + last.hash)]
        self._transact(batch.entries, upserts, deletes)

    def _transact(
        self, entries: Sequence[Sequence[Any]], upserts: Mapping[str, list[Any]], deletes: Mapping[str, list[str]]
    ) -> None:
        connection = self._connection
        assert connection is not None, "the store is not open"
        try:
            with connection.begin():
                cursor = connection.connection.cursor()
                if entries:
                    self._insert_events.run(cursor, entries)
                for table, rows in upserts.items():
                    self._upserts[table].run(cursor, rows)
                for table, keys in deletes.items():
                    self._deletes[table].run(cursor, keys)
        except Exception as error:
            raise self._failure(error) from error

    def replies(self, keys: Sequence[str]) -> dict[str, tuple[str, int, bytes]]:
        """Stored answers by idempotency key: (digest, time_ms, reply)."""
        connection = self._connection
        assert connection is not None, "the store is not open"
        try:
            rows = self._find_replies.run(connection.connection.cursor(), keys)
        except Exception as error:
            raise self._failure(error) from error
        return {key: (digest, time_ms, bytes(reply)) for key, digest, time_ms, reply in rows}

    def probe(self) -> None:
        """Write and take back `PROBE_BYTES`. Raises StoreError when the store takes no more."""
        key = "probe"
        self._transact((), {"meta": [(key, bytes(PROBE_BYTES))]}, {})
        connection = self._connection
        assert connection is not None
        try:
            with connection.begin():
                connection.execute(t.meta.delete().where(t.meta.c.key == key))
        except Exception as error:
            raise self._failure(error) from error

    def _failure(self, error: BaseException) -> StoreError:
        return StoreError(code_of(error, self.disk), str(cause_of(error)))

    # -- what a start needs -------------------------------------------------------------------------------------------

    def tables(self) -> dict[str, Iterable[Row]]:
        """The state tables as a view is filled from them: all rows, but of jobs, runs and quotes the live ones.

        Runs also come for the jobs that ended last. Rows are read as they are asked for, oldest first.
        """
        jobs, runs = t.job.c, t.run.c
        live_jobs = select(jobs.id).where(jobs.ended_ms == 0)
        recent_jobs = select(jobs.id).where(jobs.ended_ms > 0).order_by(jobs.ended_ms.desc()).limit(RECENT_JOBS)
        wanted = union(  # and not OR: each part is found by an index of its own
            select(runs.id).where(text(t.RUN_IS_LIVE)),
            select(runs.id).where(runs.job.in_(live_jobs)),
            select(runs.id).where(runs.job.in_(recent_jobs)),
        )
        narrowed = {
            "job": select(t.job).where(jobs.ended_ms == 0).order_by(jobs.submitted_ms, jobs.id),
            "run": select(t.run).where(runs.id.in_(wanted)).order_by(runs.offered_ms, runs.id),
            "quote": select(t.quote).where(text(t.QUOTE_IS_LIVE)).order_by(t.quote.c.id),
        }
        return {
            name: _Rows(self._engine, narrowed[name] if name in narrowed else _whole(t.metadata.tables[name]))
            for name in t.STATE
        }

    def sizes(self) -> dict[str, int]:
        """Bytes of the database and its write-ahead log, and what is free on the disk."""
        wal = self.path.with_name(self.path.name + "-wal")
        return {
            "database_bytes": self.path.stat().st_size,
            "wal_bytes": wal.stat().st_size if wal.exists() else 0,
            "free_bytes": self.disk.free_bytes(),
        }


def _whole(table: Any) -> Any:
    return select(table).order_by(*table.primary_key)


class _Rows:
    """The rows of a query as mappings, read anew at each iteration and never all in memory."""

    def __init__(self, engine: Engine, query: Any) -> None:
        self._engine = engine
        self.query = query

    def __iter__(self) -> Iterator[Row]:
        with self._engine.connect().execution_options(yield_per=500) as connection:
            for row in connection.execute(self.query).mappings():
                yield dict(row)
