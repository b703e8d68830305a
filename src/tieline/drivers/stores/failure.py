"""What a database error means to a caller: is the disk full, is the database away, or is something broken."""

from __future__ import annotations

import errno
import sqlite3

from sqlalchemy.exc import DBAPIError

from tieline.drivers.stores.disk import Disk

SPARE_BYTES = 2**20  # SQLite reports some full disks as plain I/O errors; with less than this free they are
FULL = frozenset({"53100", "53200"})  # SQLSTATE: disk full, out of memory
AWAY = frozenset(
    {"53300", "57P01", "57P02", "57P03", "57P05"}
)  # too many connections, shut down, starting, idle too long
AGAIN = frozenset({"40001", "40P01", "55P03"})  # serialization failure, deadlock, lock not available


def cause_of(error: BaseException) -> BaseException:
    """The driver's own error below SQLAlchemy's."""
    return error.orig if isinstance(error, DBAPIError) and error.orig is not None else error


def code_of(error: BaseException, disk: Disk) -> str:
    """`storage_full` or `internal`, of an error of SQLite or of the system."""
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


def state_of(error: BaseException) -> str:
    """The SQLSTATE of an error of PostgreSQL; empty where the server said nothing."""
    return getattr(cause_of(error), "sqlstate", None) or ""


def code_of_state(error: BaseException) -> str:
    """`storage_full`, `store_unreachable` or `internal`, of an error of PostgreSQL (its appendix A)."""
    state = state_of(error)
    if state in FULL:
        return "storage_full"
    return "store_unreachable" if is_connection_lost(error) or state in AGAIN or state[:2] == "08" else "internal"


def is_connection_lost(error: BaseException) -> bool:
    """Whether PostgreSQL ended the session, or nothing is known of it any more."""
    cause, state = cause_of(error), state_of(error)
    if state:
        return state in AWAY or state[:2] == "08"
    return type(cause).__name__ == "OperationalError"  # of the driver itself: the socket broke
