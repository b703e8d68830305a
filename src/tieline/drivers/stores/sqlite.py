"""SQLite below a store: one connection that writes, a few that read, on a file that its owner alone can open.

One process at a time, by an exclusive flock(2) on a file beside the store: the kernel lets go when we die.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import QueuePool, StaticPool

from tieline.drivers.stores.database import Statements
from tieline.drivers.stores.disk import FILE_MODE, Disk, private_file, private_folder
from tieline.drivers.stores.failure import code_of
from tieline.drivers.stores.statements import Cursor, Delete, Insert, Lookup, Upsert
from tieline.model.error import TielineError

BUSY_MS = 5_000
READERS = 4
MORE_READERS = 12
PAGE_BYTES = 4_096
CHECKPOINT_PAGES = 2_000  # 8 MB of log are written back at once
WAL_KEPT_BYTES = 64 * 2**20

BOTH = (f"busy_timeout = {BUSY_MS}", "foreign_keys = ON", "temp_store = MEMORY", "trusted_schema = OFF")
WRITING = (
    f"page_size = {PAGE_BYTES}",
    "journal_mode = WAL",
    "synchronous = FULL",  # NORMAL would lose acknowledged commits with the power
    "secure_delete = ON",  # a deleted secret leaves no bytes in free pages
    f"wal_autocheckpoint = {CHECKPOINT_PAGES}",
    f"journal_size_limit = {WAL_KEPT_BYTES}",
    "cache_size = -16384",
)
READING = ("query_only = ON", "cache_size = -4096")


class SQLite:
    """The file ``path`` as a `Database`."""

    statements = Statements(Insert, Upsert, Delete, Lookup)

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folder: Path | None = path.parent
        self.shown = str(path)
        self._disk = Disk(path.parent, 0)
        self._lock = Lock(path.with_name(path.name + ".lock"))

    def prepare(self) -> None:
        """Make the folder, and keep other processes out."""
        private_folder(self.path.parent)
        self._lock.take()

    def writing(self) -> Engine:
        """An engine with one connection whose transactions take the write lock at once (``BEGIN IMMEDIATE``)."""
        private_file(self.path)  # SQLite gives its -wal and -shm files the mode of this one
        engine = create_engine(f"sqlite:///{self.path}", poolclass=StaticPool, connect_args=_arguments())
        event.listen(engine, "connect", _prepared(BOTH + WRITING))
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
        return engine

    def reading(self) -> Engine:
        """An engine whose connections see committed state, each statement by itself, and can change nothing."""
        engine = create_engine(
            f"sqlite:///{self.path}",
            poolclass=QueuePool,
            pool_size=READERS,
            max_overflow=MORE_READERS,
            pool_timeout=30,
            pool_reset_on_return=None,
            connect_args=_arguments(),
            isolation_level="AUTOCOMMIT",
        )
        event.listen(engine, "connect", _prepared(BOTH + READING))
        return engine

    def take(self, _: Connection) -> None:
        """Nothing: the lock on the file is held since `prepare`."""

    def release(self) -> None:
        """Let others in."""
        self._lock.release()

    def is_intact(self, _: Connection) -> bool:
        """False: a new connection costs little, and nobody else can have come in between."""
        return False

    @contextmanager
    def transaction(self, connection: Connection) -> Iterator[Cursor]:
        """A cursor in one transaction, synced to disk when the block ends."""
        with connection.begin():
            yield connection.connection.cursor()

    def told(self, _cursor: Cursor, _seq: int) -> None:
        """Nothing: who follows a file looks again after a while."""

    def code_of(self, error: BaseException) -> str:
        """`storage_full` or `internal`."""
        return code_of(error, self._disk)

    def is_lost(self, _: BaseException) -> bool:
        """False: there is nothing between us and the file."""
        return False

    def sizes(self, _: Engine) -> dict[str, int]:
        """Bytes of the file and its write-ahead log, and what is free on the disk."""
        wal = self.path.with_name(self.path.name + "-wal")
        return {
            "database_bytes": self.path.stat().st_size,
            "wal_bytes": wal.stat().st_size if wal.exists() else 0,
            "free_bytes": self._disk.free_bytes(),
        }


def _arguments() -> dict[str, Any]:
    return {"check_same_thread": False, "timeout": BUSY_MS / 1000, "cached_statements": 256, "isolation_level": None}


def _prepared(pragmas: tuple[str, ...]) -> Any:
    def prepare(connection: Any, _: Any) -> None:
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    return prepare


class Lock:
    """One process at a time: an exclusive flock(2) on a file beside the store. The kernel lets go when we die."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def take(self) -> None:
        """Take it, or raise `conflict` with the process that holds it."""
        descriptor = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise TielineError(
                "conflict",
                f"the store in `{self._path.parent}` is in use by process {holder}",
                hints=("tieline down  # stop it first, or use another folder",),
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Let go; nothing happens when it is not held."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
