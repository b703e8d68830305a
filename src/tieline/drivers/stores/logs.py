"""Logs: what each node of a run printed, in one file each, appended at the offset that the site states.

::

    <folder>/<run>.<node>      mode 0600

Appending is idempotent: what is kept already is skipped, what would leave a gap is not taken, and the answer says from
where to go on. A log is cut at its limit, and all logs together have one. Files are touched in threads, never on the
event loop; following waits on an event and not on a timer.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from tieline.drivers.stores.disk import FILE_MODE, Disk, private_folder
from tieline.model.api import LogKept
from tieline.model.error import TielineError

PIECE_BYTES = 2**18
MOST_NODES = 100_000
TAIL_BYTES = 2**20  # how far back the last lines are looked for
_RUN = re.compile(r"[a-z0-9][a-z0-9._-]{0,120}\Z")


class LogFile(NamedTuple):
    """One log as it lies on disk."""

    run: str
    node: int
    size_bytes: int
    written_ms: int

    @property
    def name(self) -> str:
        """The file's name."""
        return f"{self.run}.{self.node}"


class _Bell:
    """Rings at every append; whoever listens took the event before it looked at the file, so no ring is missed."""

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.listeners = 0

    def ring(self) -> None:
        self.event.set()
        self.event = asyncio.Event()


class Logs:
    """Log files of runs. ``log_bytes`` bounds one, ``total_bytes`` all; ``disk`` keeps its reserve free."""

    def __init__(self, folder: Path, disk: Disk, log_bytes: int, total_bytes: int) -> None:
        self.folder = folder
        self._disk = disk
        self._limit = log_bytes
        self._total_limit = total_bytes
        self._lock = Lock()
        self._bells: dict[tuple[str, int], _Bell] = {}
        self.bytes_kept = 0
        self.count = 0

    def open(self) -> Logs:
        """Make the folder and count what is there."""
        private_folder(self.folder)
        self.bytes_kept = self.count = 0
        for file in self.listing():
            self.bytes_kept += file.size_bytes
            self.count += 1
        return self

    def path(self, run: str, node: int) -> Path:
        """Where the log lies, whether or not it is there. Raises `invalid_request` for what is no run or node."""
        if not _RUN.match(run) or ".." in run or not 0 <= node < MOST_NODES:
            raise TielineError("invalid_request", "a log is named by a run such as `j-7f3k2m9qab.1` and a node from 0")
        return self.folder / f"{run}.{node}"

    # -- writing ------------------------------------------------------------------------------------------------------

    async def append(self, run: str, node: int, offset: int, data: bytes) -> LogKept:
        """Keep ``data``, which begins at ``offset`` of the site's log. The answer says what is kept so far.

        ``is_full``: its limit, the limit of all logs or the disk's reserve is reached; the rest is not wanted.
        """
        path = self.path(run, node)
        if offset < 0:
            raise TielineError("invalid_request", f"the offset {offset} is below 0", where="offset")
        kept, grown = await asyncio.to_thread(self._append, path, offset, data)
        if grown:
            self._ring(run, node)
        return kept

    def _append(self, path: Path, offset: int, data: bytes) -> tuple[LogKept, int]:
        with self._lock:
            size = path.stat().st_size if path.exists() else 0
            fresh = data[size - offset :] if offset <= size else b""
            room = min(self._limit - size, self._total_limit - self.bytes_kept, self._disk.room_bytes())
            fresh = fresh[: max(0, room)]
            if fresh:
                descriptor = os.open(
                    path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE
                )
                try:
                    grown = os.write(descriptor, fresh)
                except OSError as error:
                    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                        raise
                    grown, room = 0, 0
                finally:
                    os.close(descriptor)
                self.count += size == 0 and grown > 0
                self.bytes_kept += grown
                size += grown
                room -= grown
            else:
                grown = 0
            return LogKept(offset=size, is_full=room <= 0), grown

    def end(self, run: str) -> None:
        """Let everybody who follows ``run`` look whether it is over. Call it on the event loop."""
        for name, node in tuple(self._bells):
            if name == run:
                self._ring(name, node)

    def _ring(self, run: str, node: int) -> None:
        bell = self._bells.get((run, node))
        if bell is not None:
            bell.ring()

    # -- reading ------------------------------------------------------------------------------------------------------

    async def size(self, run: str, node: int) -> int:
        """Bytes that are kept; 0 for a log that nobody wrote."""
        return await asyncio.to_thread(_size, self.path(run, node))

    async def read(self, run: str, node: int, offset: int = 0, limit: int = PIECE_BYTES) -> bytes:
        """At most ``limit`` bytes from ``offset``; empty at the end and for a log that nobody wrote."""
        return await asyncio.to_thread(_read, self.path(run, node), offset, min(limit, PIECE_BYTES))

    async def tail_offset(self, run: str, node: int, lines: int) -> int:
        """The offset at which the last ``lines`` lines begin, looked for in the last `TAIL_BYTES`."""
        return await asyncio.to_thread(_tail_offset, self.path(run, node), lines)

    async def follow(
        self, run: str, node: int, offset: int = 0, is_over: Callable[[], bool] = lambda: False
    ) -> AsyncIterator[bytes]:
        """What is there from ``offset``, then what comes, until ``is_over()`` says at the end that no more will."""
        bell = self._bells.setdefault((run, node), _Bell())
        bell.listeners += 1
        try:
            while True:
                rung = bell.event
                was_over = is_over()
                piece = await self.read(run, node, offset)
                if piece:
                    offset += len(piece)
                    yield piece
                elif was_over:
                    return
                else:
                    await rung.wait()
        finally:
            bell.listeners -= 1
            if not bell.listeners:
                self._bells.pop((run, node), None)

    def listing(self, after: str = "") -> Iterator[LogFile]:
        """Every log in order of its file's name, those after the file ``after``. Touches the disk."""
        with os.scandir(self.folder) as found:
            names = sorted(entry.name for entry in found if entry.name > after)
        for name in names:
            run, _, node = name.rpartition(".")
            if node.isdigit() and _RUN.match(run):
                with suppress(FileNotFoundError):
                    facts = (self.folder / name).stat()
                    yield LogFile(run, int(node), facts.st_size, facts.st_mtime_ns // 1_000_000)

    def remove(self, run: str, node: int) -> int:
        """Drop one log; returns the bytes that became free."""
        path = self.path(run, node)
        with self._lock:
            try:
                size = path.stat().st_size
                path.unlink()
            except FileNotFoundError:
                return 0
            self.bytes_kept -= size
            self.count -= 1
        return size


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _read(path: Path, offset: int, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(max(0, offset))
            return file.read(max(0, limit))
    except FileNotFoundError:
        return b""


def _tail_offset(path: Path, lines: int) -> int:
    size = _size(path)
    if lines <= 0:
        return size
    start = max(0, size - TAIL_BYTES)
    with suppress(FileNotFoundError), path.open("rb") as file:
        file.seek(start)
        text = file.read(size - start)
        end = len(text) - 1 if text.endswith(b"\n") else len(text)
        at = end
        for _ in range(lines):
            at = text.rfind(b"\n", 0, at)
            if at < 0:
                return start
        return start + at + 1
    return size
