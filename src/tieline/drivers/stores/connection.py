"""Connections: one that writes, a few that read, on a file that its owner alone can open and one process at a time."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event, make_url
from sqlalchemy.pool import QueuePool, StaticPool

from tieline.drivers.stores.disk import FILE_MODE, private_file
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


def file_of(url: str) -> Path:
    """The file behind ``url``; raises `invalid_request` for what is not an SQLite file."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database or parsed.database == ":memory:":
        raise TielineError(
            "invalid_request",
            f"`{parsed.render_as_string(hide_password=True)}` is no store that this version opens",
            hints=("use sqlite:////absolute/path/tieline.db",),
        )
    return Path(parsed.database)


def writing_engine(path: Path) -> Engine:
    """An engine with one connection whose transactions take the write lock at once (``BEGIN IMMEDIATE``)."""
    private_file(path)  # SQLite gives its -wal and -shm files the mode of this one
    engine = create_engine(f"sqlite:///{path}", poolclass=StaticPool, connect_args=_arguments())
    event.listen(engine, "connect", _prepared(BOTH + WRITING))
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return engine


def reading_engine(path: Path) -> Engine:
    """An engine whose connections see committed state, each statement by itself, and can change nothing."""
    engine = create_engine(
        f"sqlite:///{path}",
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
