"""What a database error means to a caller: is the disk full, or is something broken."""

from __future__ import annotations

import errno
import sqlite3

from sqlalchemy.exc import DBAPIError

from tieline.drivers.stores.disk import Disk

SPARE_BYTES = 2**20  # SQLite reports some full disks as plain I/O errors; with less than this free they are


def cause_of(error: BaseException) -> BaseException:
    """The driver's own error below SQLAlchemy's."""
    return error.orig if isinstance(error, DBAPIError) and error.orig is not None else error


def code_of(error: BaseException, disk: Disk) -> str:
    """`storage_full` or `internal`."""
    cause = cause_of(error)
    if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
        return "storage_full"
    if isinstance(cause, sqlite3.Error):
        name = getattr(cause, "sqlite_errorname", "") or ""
        if name == "SQLITE_FULL" or "disk is full" in str(cause):
            return "storage_full"
        if name.startswith("SQLITE_IOERR") and disk.free_bytes() < SPARE_BYTES:
            return "storage_full"
    return "internal"
