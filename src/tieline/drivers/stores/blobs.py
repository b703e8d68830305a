"""Blobs: bytes by their sha256, in a folder. The files are the truth; a site keeps its cache in the same way.

::

    <folder>/ab/cdef0123...    the bytes whose hash is abcdef0123..., mode 0600; the file's time is its last use
    <folder>/tmp/...           what is being written; gone after a restart
    <folder>/from/...          which peer brought what (`senders`)

A blob is there whole or not at all: it is written aside, synced, and then renamed to its hash. Nothing here blocks the
event loop: files are touched in threads.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import BinaryIO, NamedTuple

from tieline.drivers.stores.disk import FILE_MODE, Disk, private_folder
from tieline.drivers.stores.senders import Senders
from tieline.model.error import TielineError
from tieline.model.quantity import show_size
from tieline.ports import Clock

PIECE_BYTES = 2**20  # written and read at once
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


class BlobFile(NamedTuple):
    """One blob as it lies on disk."""

    sha256: str
    size_bytes: int
    used_ms: int


def checked_digest(digest: str) -> str:
    """``digest`` if it is a sha256 in lower-case hex, else `invalid_request`: it becomes a path."""
    if not _DIGEST.match(digest):
        raise TielineError("invalid_request", "a blob is named by its sha256: 64 letters of 0-9a-f")
    return digest


class Blobs:
    """The port `Blobs` on a folder. ``total_bytes`` bounds all blobs together, ``disk`` keeps its reserve free.

    ``sender_bytes`` bounds what each peer brings, all blobs together where it is 0.
    """

    def __init__(self, folder: Path, clock: Clock, disk: Disk, total_bytes: int, sender_bytes: int = 0) -> None:
        self.folder = folder
        self._aside = folder / "tmp"
        self._clock = clock
        self._disk = disk
        self._limit = total_bytes
        self._senders = Senders(folder / "from", sender_bytes or total_bytes)
        self._lock = Lock()
        self._writing_bytes = 0  # of files that are not renamed yet
        self.bytes_kept = 0
        self.count = 0

    def open(self) -> Blobs:
        """Make the folder, drop what was being written when the process ended, and count what is there."""
        private_folder(self.folder)
        private_folder(self._aside)
        for left in self._aside.iterdir():
            left.unlink()
        self.bytes_kept = self.count = 0
        for blob in self.listing():
            self.bytes_kept += blob.size_bytes
            self.count += 1
        self._senders.open(self._size_of)
        return self

    def _size_of(self, digest: str) -> int | None:
        try:
            return self.path(digest).stat().st_size
        except (FileNotFoundError, TielineError):
            return None

    def free_bytes(self) -> int:
        """What is free on the disk that they lie on."""
        return self._disk.free_bytes()

    def path(self, digest: str) -> Path:
        """Where the blob lies, whether or not it is there."""
        return self.folder / checked_digest(digest)[:2] / digest[2:]

    # -- asking -------------------------------------------------------------------------------------------------------

    async def has(self, digest: str) -> bool:
        """Whether they are there. Asking is a use: the blob is kept for a while from now on."""
        return await asyncio.to_thread(self.touch, digest)

    def was_brought(self, digest: str, sender: str) -> bool:
        """Whether this peer brought the blob."""
        with self._lock:
            return self._senders.brought(sender, digest)

    async def size(self, digest: str) -> int:
        """Their size in bytes; raises `not_found`."""
        if not await self.has(digest):
            raise _missing(digest)
        return (await asyncio.to_thread(self.path(digest).stat)).st_size

    async def read(self, digest: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """Stream the bytes from ``start`` up to, not including, ``end``; raises `not_found`."""
        if not await self.has(digest):
            raise _missing(digest)
        try:
            file = await asyncio.to_thread(self.path(digest).open, "rb")
        except FileNotFoundError:
            raise _missing(digest) from None
        try:
            if start:
                await asyncio.to_thread(file.seek, start)
            left = -1 if end is None else max(0, end - start)
            while left and (
                piece := await asyncio.to_thread(file.read, PIECE_BYTES if left < 0 else min(left, PIECE_BYTES))
            ):
                if left > 0:
                    left -= len(piece)
                yield piece
        finally:
            file.close()

    def listing(self, after: str = "") -> Iterator[BlobFile]:
        """Every blob in order of its hash, those after the hash ``after``. Touches the disk: not for the event loop."""
        for shelf in sorted(path for path in self.folder.iterdir() if len(path.name) == 2 and path.name >= after[:2]):
            with os.scandir(shelf) as found:
                entries = sorted(found, key=lambda entry: entry.name)
            for entry in entries:
                digest = shelf.name + entry.name
                if digest > after:
                    with suppress(FileNotFoundError):
                        facts = entry.stat(follow_symlinks=False)
                        yield BlobFile(digest, facts.st_size, facts.st_mtime_ns // 1_000_000)

    # -- changing -----------------------------------------------------------------------------------------------------

    async def write(self, chunks: AsyncIterator[bytes], limit_bytes: int, sender: str = "") -> tuple[str, int]:
        """Store a stream whole or not at all; returns (sha256, size). ``sender``: the peer that it counts for.

        Raises `too_large` above ``limit_bytes`` or where the sender has its share (with a reason), and `storage_full`
        before the folder or the disk is really full.
        """
        part = await asyncio.to_thread(_Part, self._aside, sender)
        try:
            buffer = bytearray()
            async for chunk in chunks:
                buffer += chunk
                if part.size + len(buffer) > limit_bytes:
                    raise TielineError("too_large", f"the blob is over its limit of {show_size(limit_bytes)}")
                if len(buffer) >= PIECE_BYTES:
                    await self._flush(part, bytes(buffer))
                    buffer.clear()
            await self._flush(part, bytes(buffer))
            return await asyncio.to_thread(self._publish, part)
        finally:
            with self._lock:
                self._writing_bytes -= part.size
                if part.sender:
                    self._senders.end(part.sender, part.size)
            await asyncio.shield(asyncio.to_thread(part.drop))

    async def _flush(self, part: _Part, piece: bytes) -> None:
        with self._lock:
            if self.bytes_kept + self._writing_bytes + len(piece) > self._limit:
                raise TielineError(
                    "storage_full",
                    f"all blobs together may take {show_size(self._limit)}, {show_size(self.bytes_kept)} are taken",
                    hints=("tieline status  # what takes the room, and the limits that bound it",),
                )
            if part.sender:
                self._senders.begin(part.sender, len(piece))
            self._writing_bytes += len(piece)
            part.size += len(piece)
        self._disk.check(len(piece))
        try:
            await asyncio.to_thread(part.write, piece)
        except OSError as error:
            raise _no_room(error) from error

    def _publish(self, part: _Part) -> tuple[str, int]:
        try:
            part.sync()
        except OSError as error:
            raise _no_room(error) from error
        digest = part.hash.hexdigest()
        path = self.path(digest)
        marks: Path | None = None
        with self._lock:
            if path.exists():
                self._use(path)
                return digest, part.size
            if part.sender:
                marks = self._senders.mark(part.sender, digest, part.size)  # before the blob: no blob is unmarked
                part.sender = ""
            is_new_shelf = not path.parent.is_dir()
            private_folder(path.parent)
            try:
                part.path.rename(path)
            except OSError:
                self._senders.forget(digest)
                raise
            self._use(path)
            self.bytes_kept += part.size
            self.count += 1
        for folder in (marks, path.parent):
            if folder is not None:
                _sync_folder(folder)
        if is_new_shelf:
            _sync_folder(self.folder)
        return digest, part.size

    def remove(self, digest: str, unused_since_ms: int) -> int | None:
        """Drop a blob and return its size; None when it is not there or was used after ``unused_since_ms``."""
        path = self.path(digest)
        with self._lock:
            try:
                facts = path.stat()
            except FileNotFoundError:
                return None
            if facts.st_mtime_ns // 1_000_000 > unused_since_ms:
                return None
            path.unlink()
            self.bytes_kept -= facts.st_size
            self.count -= 1
            self._senders.forget(digest)
        return facts.st_size

    def touch(self, digest: str) -> bool:
        """Use a blob: False when it is not there. Touches the disk: not for the event loop."""
        path = self.path(digest)
        with self._lock:  # so that a blob is not dropped between this answer and its use
            try:
                self._use(path)
            except FileNotFoundError:
                return False
        return True

    def _use(self, path: Path) -> None:
        at_ns = self._clock.now_ms() * 1_000_000
        os.utime(path, ns=(at_ns, at_ns))


class _Part:
    """A blob that is being written; its hash is taken on the way."""

    def __init__(self, folder: Path, sender: str = "") -> None:
        self.path = folder / os.urandom(16).hex()
        self.sender = sender
        self.hash = hashlib.sha256()
        self.size = 0
        self._file: BinaryIO = open(self.path, "xb", buffering=0, opener=_private)  # noqa: SIM115 - closed by drop()

    def write(self, piece: bytes) -> None:
        self.hash.update(piece)
        view = memoryview(piece)
        while view:
            view = view[self._file.write(view) :]

    def sync(self) -> None:
        os.fsync(self._file.fileno())

    def drop(self) -> None:
        """Close it, and remove what was not renamed."""
        self._file.close()
        with suppress(FileNotFoundError):
            self.path.unlink()


_private: Callable[[str, int], int] = lambda path, flags: os.open(path, flags, FILE_MODE)  # noqa: E731


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _missing(digest: str) -> TielineError:
    return TielineError("not_found", f"there is no blob `{digest}` here")


def _no_room(error: OSError) -> TielineError:
    code = "storage_full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "internal"
    return TielineError(code, f"the blob could not be written: {error.strerror}")
